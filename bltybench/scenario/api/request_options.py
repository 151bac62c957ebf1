"""Keys of the request body that differ between APIs and between calls."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from bltybench.scenario.base import Table

MAX_TOKENS_KEYS = ("max_tokens", "max_completion_tokens")
"""Keys that bound a completion, in the reference's order."""
MAX_INT, MIN_INT = 2**64 - 1, -(2**63)
"""Integers that JSON encoders agree on."""
MAX_CHOICES = 1_000
"""Maximum completions per request. APIs allow up to 128."""
MAX_DEPTH = 60
"""Maximum nesting of a body."""

_ELSEWHERE = {
    "model": "set the model of the scenario",
    "messages": "set prompt_tokens, system, or conversations of the call",
    "stream": "set stream of the call",
    "max_tokens": "set max_tokens of the call",
    "max_completion_tokens": 'set max_tokens of the call, and max_tokens_key = "max_completion_tokens"',
}
"""Keys that ``body`` can't set, because measurement or budgets depend on them, with what to set instead."""


class RequestOptions(Table):
    """What to put into the request body. A call's options take precedence over its target's."""

    body: dict[str, Any] = Field(default_factory=dict)
    """Further keys of the body, such as top_p, stop, seed, tools, or a vendor's own."""
    max_tokens_key: str | None = Field(default=None, min_length=1)
    """Key that bounds the completion. Default: max_tokens."""
    stream_options: bool | None = None
    """Whether streams ask for their usage with stream_options. Default: true."""

    @field_validator("body", mode="before")
    @classmethod
    def _json(cls, value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError("must be a table")  # noqa: TRY004 - pydantic reports a ValueError with its key
        for key, remedy in _ELSEWHERE.items():
            if key in value:
                raise ValueError(f"can't hold {key}: {remedy}")
        choices = value.get("n", 1)
        if not isinstance(choices, int) or isinstance(choices, bool) or not 1 <= choices <= MAX_CHOICES:
            raise ValueError(f"n must be an integer from 1 to {MAX_CHOICES}")
        return {str(key): as_json(item, str(key)) for key, item in value.items()}

    @field_validator("max_tokens_key")
    @classmethod
    def _not_taken(cls, value: str | None) -> str | None:
        if value in {"model", "messages", "stream", "stream_options", "temperature", "n"}:
            raise ValueError('must be a key that bounds the completion, such as "max_completion_tokens"')
        return value

    def over(self, defaults: "RequestOptions | None") -> "RequestOptions":
        """Return these options, with ``defaults`` for those that are not set."""
        if defaults is None:
            return self
        asks_usage = defaults.stream_options if self.stream_options is None else self.stream_options
        return RequestOptions(
            body=defaults.body | self.body,
            max_tokens_key=self.max_tokens_key or defaults.max_tokens_key,
            stream_options=asks_usage,
        )


def request_body(
    defaults: RequestOptions,
    call: RequestOptions | None = None,
    *,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    stream: bool,
    max_tokens: int | None,
    temperature: float | None,
) -> dict[str, Any]:
    """Return a request's body: the target's keys, then the arguments, then the call's keys."""
    call = call or defaults
    asks_usage = defaults.stream_options if call.stream_options is None else call.stream_options
    body: dict[str, Any] = {"model": model, "messages": list(messages)}
    if stream:
        body["stream"] = True
        if asks_usage is not False:
            body["stream_options"] = {"include_usage": True}
    body |= defaults.body
    if max_tokens is not None:
        body[call.max_tokens_key or defaults.max_tokens_key or MAX_TOKENS_KEYS[0]] = max_tokens
    if temperature is not None:
        body["temperature"] = temperature
    if call is not defaults:
        body |= call.body
    if not stream:
        body.pop("stream_options", None)  # APIs reject it
    return body


def max_completion_tokens(body: Mapping[str, Any], *options: RequestOptions | None) -> int | None:
    """Return the most completion tokens of one choice; None if the body has no bound.

    ``options`` are those from which the body was made.
    """
    keys = [option.max_tokens_key for option in options if option is not None and option.max_tokens_key]
    for key in (*keys, *MAX_TOKENS_KEYS):
        value = body.get(key)
        if isinstance(value, int) and value:
            return value
    return None


def choices(body: Mapping[str, Any]) -> int:
    """Return the number of completions that a body asks for."""
    value = body.get("n")
    return value if isinstance(value, int) and value > 1 else 1


def as_json(value: object, where: str, depth: int = 1) -> Any:
    """Return a value as JSON. Raise ValueError for dates, infinity, and numbers that JSON can't hold."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{where[:60]} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return {str(key): as_json(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, f"{where}[{at}]", depth + 1) for at, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number")
    if isinstance(value, int) and not MIN_INT <= value <= MAX_INT:
        raise ValueError(f"{where} has more than 64 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{where} is a {type(value).__name__}, which JSON does not have: put it in quotes")
