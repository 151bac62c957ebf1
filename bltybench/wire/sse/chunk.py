"""The used parts of a chat API's responses. Decoding skips everything else.

Fields that servers fill in their own ways are ``Any`` and checked where they are used, so that an unexpected
value there does not make the whole event unreadable.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec


class Delta(msgspec.Struct, gc=False):
    """What a choice adds to a stream, or the ``message`` of a plain completion."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a chunk or of a plain completion. The older completions API uses ``text``."""

    index: Any = 0
    delta: Delta | None = None
    message: Delta | None = None
    text: Any = None
    finish_reason: Any = None


class Chunk(msgspec.Struct, gc=False):
    """A streamed chunk or a plain completion."""

    id: Any = None
    model: Any = None
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_any = msgspec.json.Decoder().decode


def decode_chunk(data: bytes) -> Chunk:
    """Decode a chunk or a plain completion. Raises ValueError for anything else."""
    try:
        return _decode_chunk(data)
    except (msgspec.MsgspecError, RecursionError):
        return msgspec.convert(_decode_lenient(data), Chunk)


def decode_any(data: bytes) -> Any:
    """Decode any JSON. Raises ValueError for anything else."""
    try:
        return _decode_any(data)
    except (msgspec.MsgspecError, RecursionError):
        return _decode_lenient(data)


def decode_or_none(data: bytes) -> Any:
    """Decode any JSON; return None for anything else."""
    try:
        return decode_any(data)
    except ValueError:
        return None


def _decode_lenient(data: bytes) -> Any:
    """Decode what strict decoders reject: half a surrogate pair, raw control characters, bad UTF-8.

    A server that splits its text at every token also splits emoji. ``join_surrogates`` rejoins them.
    """
    try:
        return json.loads(data.decode("utf-8", "replace"), strict=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def join_surrogates(text: str) -> str:
    """Join adjacent halves of surrogate pairs, and replace halves without a partner."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_in(content: Any) -> str:
    """Return the text of a content field: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def reasoning_in(delta: Delta) -> str:
    """Return the reasoning of a delta. Servers use two names for it."""
    return text_in(delta.reasoning_content) or text_in(delta.reasoning)


def merge_tool_call(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    """Merge one delta of a tool call: append to ``function.arguments``, set everything else once."""
    index = part.get("index")
    call = calls.setdefault(index if isinstance(index, int) else len(calls), {"function": {}})
    for key in ("id", "type"):
        if isinstance(part.get(key), str):
            call.setdefault(key, join_surrogates(part[key]))
    function = part.get("function")
    if isinstance(function, dict):
        known = call["function"]
        if isinstance(function.get("name"), str):
            known.setdefault("name", join_surrogates(function["name"]))
        if isinstance(function.get("arguments"), str):
            known["arguments"] = known.get("arguments", "") + join_surrogates(function["arguments"])
