"""Errors of the sandbox, in the OpenAI format with the types of the reference."""

from dataclasses import dataclass, field

import msgspec

Headers = list[tuple[bytes, bytes]]


@dataclass(eq=False)
class ApiError(Exception):
    """An error response: status, body, and headers."""

    status: int
    error_type: str
    message: str
    param: str | None = None
    code: str | None = None
    headers: Headers = field(default_factory=list)
    html: bool = False
    """Whether the body is a web page, as proxies send it, instead of JSON."""

    @property
    def content_type(self) -> bytes:
        """The media type of the body."""
        return b"text/html; charset=utf-8" if self.html else b"application/json"

    def body(self) -> bytes:
        """Return the body."""
        if self.html:
            return f"<html><body><h1>{self.status}</h1><p>{self.message}</p></body></html>".encode()
        error = {"message": self.message, "type": self.error_type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class ClientGone(Exception):  # noqa: N818 - an event, not an error
    """The client closed the connection before the response was complete."""


def invalid(message: str, param: str | None, code: str | None = None) -> ApiError:
    """Return a 400: the request is malformed or incomplete."""
    return ApiError(400, "invalid_request_error", message, param, code)


def no_model(model: str) -> ApiError:
    """Return a 404: unknown model."""
    message = f"The model '{model[:100]}' does not exist."
    return ApiError(404, "not_found_error", message, "model", "model_not_found")


def server_error(headers: Headers) -> ApiError:
    """Return a 500: due to the setting ``error_rate``, or a bug in the sandbox."""
    message = "The server had an error while processing your request."
    return ApiError(500, "server_error", message, headers=headers)
