"""All errors of the sandbox, in the OpenAI format with the types of the reference."""

from __future__ import annotations

import msgspec

Headers = list[tuple[bytes, bytes]]


class ApiError(Exception):
    """An error response: status, body, and headers."""

    def __init__(
        self,
        status: int,
        error_type: str,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or []

    def body(self) -> bytes:
        """Return the JSON body."""
        error = {"message": self.message, "type": self.error_type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class ClientGone(Exception):  # noqa: N818 - an event, not an error
    """The client closed the connection before the response was complete."""


def invalid(message: str, param: str | None, code: str | None = None) -> ApiError:
    """Return a 400: the request is malformed or incomplete."""
    return ApiError(400, "invalid_request_error", message, param=param, code=code)


def no_key() -> ApiError:
    """Return a 401: the request has no bearer token."""
    message = "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'."
    return ApiError(401, "authentication_error", message, code="invalid_api_key")


def wrong_key(key: str) -> ApiError:
    """Return a 401: unknown key. Only the usual prefix of the key is shown."""
    masked = "sk-***" if key.startswith("sk-") else "***"
    message = f"Incorrect API key provided: {masked}. The sandbox's public key is in its settings."
    return ApiError(401, "authentication_error", message, code="invalid_api_key")


def no_permission(model: str) -> ApiError:
    """Return a 403: valid key without access to this model."""
    message = f"This API key has no access to the model '{model}'."
    return ApiError(403, "permission_error", message, param="model", code="model_access_denied")


def no_model(model: str) -> ApiError:
    """Return a 404: unknown model."""
    message = f"The model '{model[:100]}' does not exist."
    return ApiError(404, "not_found_error", message, param="model", code="model_not_found")


def no_route(method: str, path: str) -> ApiError:
    """Return a 404: unknown endpoint."""
    return ApiError(404, "not_found_error", f"Unknown request URL: {method} {path[:200]}", code="unknown_url")


def no_method(method: str, path: str, allow: str) -> ApiError:
    """Return a 405: wrong method for this endpoint."""
    message = f"Not allowed to {method} on {path[:200]}; allowed: {allow}."
    return ApiError(
        405,
        "invalid_request_error",
        message,
        code="method_not_supported",
        headers=[(b"allow", allow.encode())],
    )


def too_large(limit_bytes: int) -> ApiError:
    """Return a 413: the body is too large. The connection closes, because the rest is not read."""
    return ApiError(
        413,
        "invalid_request_error",
        f"The request body is larger than {limit_bytes} bytes.",
        code="request_too_large",
        headers=[(b"connection", b"close")],
    )


def rate_limited(message: str, code: str, headers: Headers, *, status: int = 429) -> ApiError:
    """Return a 429, or the configured status: a limit refused the request."""
    return ApiError(status, "rate_limit_error", message, code=code, headers=headers)


def server_error(headers: Headers | None = None) -> ApiError:
    """Return a 500: due to the setting ``error_rate``, or a bug in the sandbox."""
    return ApiError(
        500, "server_error", "The server had an error while processing your request.", headers=headers
    )
