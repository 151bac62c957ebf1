"""A fake API for tests of the check: it follows the reference, or departs from it in one way at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

KEY = "sk-unit-the-good-key"
MODEL = "deepseek-chat"
LIMIT = 60

Body = dict[str, Any]


def error(
    status: int, kind: str, message: str, *, param: str | None = None, code: str | None = None
) -> httpx.Response:
    """Return an error in the shape of the reference."""
    fields = {"message": message, "type": kind, "param": param, "code": code}
    return httpx.Response(status, json={"error": fields})


def sse(events: list[Any], *, done: bool = True, end: str = "\n") -> bytes:
    """Return a stream of server-sent events."""
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"data: {text}{end}{end}" for text in [*texts, *(["[DONE]"] if done else [])]).encode()


def chunk(delta: Body | None, finish: str | None = None, **more: Any) -> Body:
    """Return a chunk of a streamed completion; without a delta, the one with the usage."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": MODEL,
    }
    return base | {"choices": choices} | more


USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


class FakeApi:
    """A correct API as an httpx handler. Tests replace its attributes to make it incorrect."""

    def __init__(self) -> None:
        self.remaining = LIMIT
        self.limit = LIMIT
        self.window_s = 60
        self.key = KEY
        self.keys_barred: set[str] = set()
        self.requests: list[httpx.Request] = []
        self.edit: Callable[[str, Body], Body] = lambda _kind, body: body
        """Return the body to send, given the kind of response (models, plain) and its correct body."""
        self.headers: Callable[[dict[str, str]], dict[str, str]] = lambda headers: headers
        self.stream_body: Callable[[], bytes] = self.good_stream
        self.refuse: Callable[[], httpx.Response] = self.good_refusal
        self.errors: dict[str, httpx.Response] = {}
        """Responses to send instead of the correct ones, by kind of request or error."""

    def transport(self) -> httpx.MockTransport:
        """Return a transport that calls this API."""
        return httpx.MockTransport(self)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a request."""
        self.requests.append(request)
        kind, response = self._respond(request)
        return self.errors.get(kind, response)

    def _respond(self, request: httpx.Request) -> tuple[str, httpx.Response]:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        wrong = self._check_key_and_path(request.url.path, token)
        if wrong is None and request.url.path == "/v1/models":
            return "models", httpx.Response(200, json=self.edit("models", self.good_models()))
        wrong = wrong or self._check_body(request.content, token)
        if wrong is not None:
            return wrong
        if self.remaining == 0:
            return "refused", self.refuse()
        self.remaining -= 1
        body = json.loads(request.content)
        if body.get("stream"):
            headers = self.quota() | {"content-type": "text/event-stream; charset=utf-8"}
            return "stream", httpx.Response(200, headers=headers, content=self.stream_body())
        plain = self.edit("plain", self.good_plain(body["max_tokens"]))
        return "plain", httpx.Response(200, headers=self.quota(), json=plain)

    def _check_key_and_path(self, path: str, token: str) -> tuple[str, httpx.Response] | None:
        kind, code = "authentication_error", "invalid_api_key"
        if not token:
            return "no key", error(401, kind, "No key.", code=code)
        if token not in {self.key, *self.keys_barred}:
            return "wrong key", error(401, kind, "Incorrect API key provided: sk-***.", code=code)
        if path not in {"/v1/models", "/v1/chat/completions"}:
            return "no route", error(404, "not_found_error", "No such endpoint.")
        return None

    def _check_body(self, content: bytes, token: str) -> tuple[str, httpx.Response] | None:
        kind = "invalid_request_error"
        wrong: tuple[str, httpx.Response] | None = None
        try:
            body = json.loads(content)
        except ValueError:
            return "bad JSON", error(400, kind, "The body is not JSON.")
        if "messages" not in body:
            wrong = "no messages", error(400, kind, "messages is missing.", param="messages")
        elif not isinstance(body["messages"], list):
            wrong = "wrong type", error(400, kind, "messages is no list.", param="messages")
        elif body["model"] != MODEL:
            wrong = "no model", error(404, "not_found_error", "No such model.", code="model_not_found")
        elif token in self.keys_barred:
            wrong = "forbidden", error(403, "permission_error", "Not for this key.")
        return wrong

    def quota(self) -> dict[str, str]:
        """Return the rate-limit headers of an accepted request."""
        return self.headers(
            {
                "X-RateLimit-Limit": str(self.limit),
                "X-RateLimit-Remaining": str(self.remaining),
                "X-RateLimit-Reset": str(int(time.time()) + self.window_s // 2),
            }
        )

    def good_models(self) -> Body:
        """Return a list of two models."""
        ids = (MODEL, "gpt-4o-mini")
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "blty"} for name in ids]
        return {"object": "list", "data": data}

    def good_plain(self, max_tokens: int) -> Body:
        """Return a completion of two tokens, or one that ``max_tokens`` cuts off at five."""
        cut = max_tokens == 5
        message = {"role": "assistant", "content": "one two three four five" if cut else "ready."}
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14} if cut else USAGE
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}],
            "usage": usage,
        }

    def good_stream(self) -> bytes:
        """Return the completion of two tokens as a stream."""
        return sse(
            [
                chunk({"role": "assistant", "content": ""}),
                chunk({"content": "rea"}),
                chunk({"content": "dy."}),
                chunk({}, "stop"),
                chunk(None, usage=USAGE),
            ]
        )

    def good_refusal(self) -> httpx.Response:
        """Return a 429 with a Retry-After of 0, and refill the limit."""
        self.remaining = self.limit
        refused = error(429, "rate_limit_error", "Too many requests.", code="rate_limit_exceeded")
        refused.headers.update({**self.headers({"X-RateLimit-Remaining": "0"}), "Retry-After": "0"})
        return refused
