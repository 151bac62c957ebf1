"""Fakes of APIs that reject what the real ones reject, as their public references and bug reports say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKENS = 5
USAGE = {"prompt_tokens": 20, "completion_tokens": TOKENS, "total_tokens": 20 + TOKENS}
Answer = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Request:
    """A request as the server received it."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """With names in lowercase."""
    body: dict[str, Any] = field(default_factory=dict)


Rule = Callable[[Request], Answer | None]
"""Returns the rejection of a request, or None if it is accepted."""


def azure(key: str, deployment: str) -> Rule:
    """Azure OpenAI: a deployment in the path, an api-version, and the key in its own header."""

    def judge(request: Request) -> Answer | None:
        if request.headers.get("api-key") != key:
            message = "Access denied due to invalid subscription key or wrong API endpoint."
            return 401, {"error": {"code": "401", "message": message}}
        if "api-version" not in request.query or not request.path.startswith("/openai/deployments/"):
            return 404, {"error": {"code": "404", "message": "Resource not found"}}
        if request.path != f"/openai/deployments/{deployment}/chat/completions":
            message = "The API deployment for this resource does not exist."
            return 404, {"error": {"code": "DeploymentNotFound", "message": message}}
        return None

    return judge


def openrouter(key: str) -> Rule:
    """OpenRouter: a bearer token, and models with the name of their vendor."""

    def judge(request: Request) -> Answer | None:
        if request.headers.get("authorization") != f"Bearer {key}":
            return 401, {"error": {"message": "No auth credentials found", "code": 401}}
        if request.path != "/api/v1/chat/completions":
            return 404, {"error": {"message": "Not Found", "code": 404}}
        if "/" not in request.body["model"]:
            return 400, {
                "error": {"message": f"{request.body['model']} is not a valid model ID", "code": 400}
            }
        return None

    return judge


MISTRAL_KEYS = {
    "frequency_penalty", "max_tokens", "messages", "model", "n", "parallel_tool_calls", "prediction",
    "presence_penalty", "prompt_mode", "random_seed", "response_format", "safe_prompt", "stop", "stream",
    "temperature", "tool_choice", "tools", "top_p",
}  # fmt: skip


def mistral(request: Request) -> Answer | None:
    """Mistral: a 422 for any key that it does not know, which includes stream_options and seed."""
    extra = sorted(set(request.body) - MISTRAL_KEYS)
    if not extra:
        return None
    detail = [{"type": "extra_forbidden", "loc": ["body", key]} for key in extra]
    return 422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}


def openai_reasoning(request: Request) -> Answer | None:
    """OpenAI's reasoning models: no max_tokens, and no temperature but 1."""
    body = request.body
    if "max_tokens" in body:
        message = "Unsupported parameter: 'max_tokens' is not supported with this model."
        code = "unsupported_parameter"
    elif body.get("temperature", 1) != 1:
        message, code = "Unsupported value: 'temperature' does not support 0.7.", "unsupported_value"
    else:
        return None
    return 400, {"error": {"message": message, "type": "invalid_request_error", "code": code}}


@dataclass
class StrictApi:
    """A running fake, with the requests it received."""

    url: str
    requests: list[Request]


@contextmanager
def serving(rule: Rule) -> Iterator[StrictApi]:
    """Serve plain and streamed completions to the requests that the rule accepts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                body = json.loads(content)
            except ValueError:
                self.answer(400, b'{"error": {"message": "not JSON", "type": "invalid_request_error"}}')
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(parts.path, dict(parse_qsl(parts.query)), headers, body)
            api.requests.append(request)
            rejected = rule(request)
            if rejected is not None:
                self.answer(rejected[0], json.dumps(rejected[1]).encode())
            elif body.get("stream"):
                self.answer(200, stream(), "text/event-stream")
            else:
                self.answer(200, json.dumps(plain(body.get("n", 1))).encode())

        def do_GET(self) -> None:
            self.answer(404, b'{"error": {"message": "Resource not found", "code": "404"}}')

        def answer(self, status: int, body: bytes, media_type: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = StrictApi(f"http://127.0.0.1:{server.server_port}", [])
        yield api
        server.shutdown()


def plain(count: int) -> dict[str, Any]:
    """Return a completion with ``count`` choices."""
    message = {"role": "assistant", "content": "Hello to you"}
    choices = [{"index": at, "message": message, "finish_reason": "stop"} for at in range(count)]
    return {"id": "c", "object": "chat.completion", "choices": choices, "usage": USAGE}


def stream() -> bytes:
    """Return a stream as all of these APIs send it: the last chunk, which has the usage, has a choice."""
    deltas: list[dict[str, Any]] = [{"content": "w"}] * TOKENS + [{}]
    chunks = [
        {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]}
        for delta in deltas
    ]
    events = [
        *(json.dumps(chunk) for chunk in chunks[:-1]),
        json.dumps(chunks[-1] | {"usage": USAGE}),
        "[DONE]",
    ]
    return "".join(f"data: {event}\n\n" for event in events).encode()
