"""A small chat API for every framework: what it answers to one request. It has no limits of its own.

It runs in the environment of the limiters, so it imports nothing but the standard library.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

MODELS = ("deepseek-chat", "deepseek-reasoner")
KEYS = ("sk-first", "sk-second")
TOKEN_S = 0.05
"""Time between two tokens of a stream, in seconds."""
MAX_TOKENS = 120
"""Longest completion. A stream then takes 6 s, which is long enough to count the open ones."""
CHAT, LIST = "/v1/chat/completions", "/v1/models"
WORD = " word"


class Reply(NamedTuple):
    """A response. If it has several chunks, they are to be sent TOKEN_S apart."""

    status: int
    content_type: str
    chunks: tuple[bytes, ...]


def reply(method: str, path: str, authorization: str, body: bytes) -> Reply:
    """Return the response to one request."""
    if authorization.removeprefix("Bearer ") not in KEYS:
        return _error(401, "invalid_api_key", "Incorrect API key provided.")
    if (method, path) == ("GET", LIST):
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in MODELS]
        return _json(200, {"object": "list", "data": models})
    if (method, path) == ("POST", CHAT):
        return _completion(body)
    return _error(404, "not_found", "There is nothing at this address.")


def _completion(body: bytes) -> Reply:
    try:
        asked = json.loads(body)
        texts, model = [message["content"] for message in asked["messages"]], asked["model"]
        prompt = sum(map(len, texts)) // 4 + 1
        tokens = min(MAX_TOKENS, int(asked.get("max_tokens") or MAX_TOKENS))
    except (ValueError, KeyError, TypeError, AttributeError):
        texts, model, prompt, tokens = [], "", 0, 0
    if not texts:
        return _error(400, "invalid_request_error", "The request is not a valid chat completion.")
    if model not in MODELS:
        return _error(404, "model_not_found", "The model does not exist.")
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    if asked.get("stream"):
        with_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        return Reply(200, "text/event-stream", tuple(_events(model, tokens, usage if with_usage else None)))
    message = {"role": "assistant", "content": WORD * tokens}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    return _json(200, _object(model, "chat.completion", [choice]) | {"usage": usage})


def _events(model: str, tokens: int, usage: dict[str, int] | None) -> Iterator[bytes]:
    for number in range(tokens):
        delta = {"content": WORD} | ({"role": "assistant"} if number == 0 else {})
        yield _event(model, [{"index": 0, "delta": delta, "finish_reason": None}])
    end = _event(model, [{"index": 0, "delta": {}, "finish_reason": "length"}])
    if usage is not None:
        end += _event(model, [], usage=usage)
    yield end + b"data: [DONE]\n\n"


def _event(model: str, choices: list[Any], **more: Any) -> bytes:
    chunk = _object(model, "chat.completion.chunk", choices) | more
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _object(model: str, kind: str, choices: list[Any]) -> dict[str, Any]:
    return {"id": "made", "object": kind, "created": 0, "model": model, "choices": choices}


def _json(status: int, value: object) -> Reply:
    return Reply(status, "application/json", (json.dumps(value).encode(),))


def _error(status: int, code: str, message: str) -> Reply:
    return _json(status, {"error": {"message": message, "type": "invalid_request_error", "code": code}})
