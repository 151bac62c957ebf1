"""Validation of chat requests as in the API: types, ranges, and the name of the invalid parameter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from bltybench.sandbox.errors import invalid
from bltybench.sandbox.structured import Structure, structure_of

CONTEXT_TOKENS = 131_072
"""Maximum prompt plus completion tokens. More is a 400."""
MAX_CHOICES = 128
MAX_STOPS = 4
ROLES = ("system", "developer", "user", "assistant", "tool")

JSON_NAMES = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}

DECIMALS = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
# Checked for their type only. Most are ignored, because completions are random words.
OTHERS: dict[str, type | tuple[type, ...]] = {
    "logit_bias": dict,
    "metadata": dict,
    "parallel_tool_calls": bool,
    "reasoning_effort": str,
    "response_format": dict,
    "safety_identifier": str,
    "prompt_cache_key": str,
    "service_tier": str,
    "store": bool,
    "tool_choice": (str, dict),
    "tools": list,
    "user": str,
    "verbosity": str,
}
KNOWN = {
    *DECIMALS,
    *OTHERS,
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "top_logprobs",
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid chat request."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool
    include_usage: bool
    max_tokens: int | None
    n: int
    stop: tuple[str, ...]
    structure: Structure | None = None
    """JSON that is asked for; None for text."""


def parse_request(raw: bytes) -> ChatRequest:
    """Return the request in ``raw``. Raise ApiError (400) that names the first invalid parameter."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("The body of the request is not valid JSON.", None, "invalid_json") from error
    if not isinstance(body, dict):
        raise invalid("The body of the request must be a JSON object.", None, "invalid_type")
    for name in body:
        if name not in KNOWN:
            raise invalid(f"Unknown parameter: '{name[:100]}'.", name[:100], "unknown_parameter")
    for name in ("model", "messages"):
        if body.get(name) is None:
            _missing(name)
    model = _typed(body, "model", str)
    messages = _messages(body["messages"])
    for name, (low, high) in DECIMALS.items():
        _number(body, name, float, low, high)
    for name, kind in OTHERS.items():
        _typed(body, name, kind)
    _number(body, "seed", int)
    if _typed(body, "logprobs", bool) or body.get("top_logprobs") is not None:
        raise invalid("This model does not give 'logprobs'.", "logprobs", "unsupported_parameter")
    stream = bool(_typed(body, "stream", bool))
    return ChatRequest(
        model=str(model),
        messages=messages,
        stream=stream,
        include_usage=_include_usage(body, stream),
        max_tokens=_max_tokens(body),
        n=_number(body, "n", int, 1, MAX_CHOICES) or 1,
        stop=_stop(body),
        structure=structure_of(body),
    )


def _missing(param: str) -> NoReturn:
    raise invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def _wrong_type(param: str, expected: str, value: object) -> NoReturn:
    received = "null" if value is None else JSON_NAMES.get(type(value), "an object")
    message = f"Invalid type for '{param}': expected {expected}, but got {received} instead."
    raise invalid(message, param, "invalid_type")


def _typed(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """Return the value, or None if it is missing or null."""
    value = body.get(name)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if value is not None and not isinstance(value, kinds):
        _wrong_type(name, " or ".join(JSON_NAMES.get(kind, "an object") for kind in kinds), value)
    return value


def _number(
    body: Mapping[str, Any],
    name: str,
    kind: type[int | float],
    low: float = -math.inf,
    high: float = math.inf,
) -> Any:
    """Return an int or a float within the bounds, or None if it is missing or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        _wrong_type(name, JSON_NAMES[kind], value)
    noun = "integer" if kind is int else "decimal"
    if value < low:
        message = f"Invalid '{name}': {noun} below minimum value. Expected a value >= {low}, but got {value}."
        raise invalid(message, name, f"{noun}_below_min_value")
    if value > high:
        message = (
            f"Invalid '{name}': {noun} above maximum value. Expected a value <= {high}, but got {value}."
        )
        raise invalid(message, name, f"{noun}_above_max_value")
    return value


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    old: int | None = _number(body, "max_tokens", int, 1, CONTEXT_TOKENS)
    new: int | None = _number(body, "max_completion_tokens", int, 1, CONTEXT_TOKENS)
    if old is not None and new is not None:
        message = "Set 'max_tokens' or 'max_completion_tokens', not both."
        raise invalid(message, "max_tokens", "invalid_parameter_combination")
    return old or new


def _include_usage(body: Mapping[str, Any], stream: bool) -> bool:
    options = _typed(body, "stream_options", dict)
    if options is None:
        return False
    if not stream:
        message = "'stream_options' is only allowed if 'stream' is true."
        raise invalid(message, "stream_options", "invalid_parameter_combination")
    for name, value in options.items():
        param = f"stream_options.{name[:100]}"
        if name not in {"include_usage", "include_obfuscation"}:
            raise invalid(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
        if not isinstance(value, bool):
            _wrong_type(param, "a boolean", value)
    return bool(options.get("include_usage", False))


def _stop(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = _typed(body, "stop", (str, list))
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if len(stops) > MAX_STOPS:
        message = (
            f"Invalid 'stop': array too long. Expected at most {MAX_STOPS} strings, but got {len(stops)}."
        )
        raise invalid(message, "stop", "array_above_max_length")
    for index, text in enumerate(stops):
        if not isinstance(text, str):
            _wrong_type(f"stop[{index}]", "a string", text)
        if not text:
            raise invalid("Invalid 'stop': an empty string never ends a text.", "stop", "invalid_value")
    return tuple(stops)


def _messages(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        _wrong_type("messages", "an array", value)
    if not value:
        raise invalid("Invalid 'messages': expected at least one message.", "messages", "empty_array")
    for index, message in enumerate(value):
        param = f"messages[{index}]"
        if not isinstance(message, dict):
            _wrong_type(param, "an object", message)
        role = message.get("role")
        if role is None:
            _missing(f"{param}.role")
        if role not in ROLES:
            text = f"Invalid value for '{param}.role': expected one of {', '.join(ROLES)}."
            raise invalid(text, f"{param}.role", "invalid_value")
        _check_content(message, f"{param}.content")
    return value


def _check_content(turn: Mapping[str, Any], param: str) -> None:
    content = turn.get("content")
    if content is None:
        # An assistant's turn can consist of tool calls only.
        if turn["role"] != "assistant":
            _missing(param)
    elif isinstance(content, list):
        for index, part in enumerate(content):
            place = f"{param}[{index}]"
            if not isinstance(part, dict):
                _wrong_type(place, "an object", part)
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                message = f"Invalid '{place}': this model takes parts of type 'text' only."
                raise invalid(message, place, "invalid_value")
    elif not isinstance(content, str):
        _wrong_type(param, "a string or an array", content)
