"""The parts of a chat API's answers that are looked at. Everything else in them is skipped unread.

Leaves that servers fill in their own ways are ``Any`` and checked where they are used: an odd value
there must not make the whole event unreadable.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec


class Delta(msgspec.Struct, gc=False):
    """What a choice adds (streams) or says (``message`` of a plain answer)."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a chunk or of a plain answer; ``text`` is what the older completions API says."""

    index: Any = 0
    delta: Delta | None = None
    message: Delta | None = None
    text: Any = None
    finish_reason: Any = None


class Chunk(msgspec.Struct, gc=False):
    """A streamed chunk or a plain answer."""

    id: Any = None
    model: Any = None
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_any = msgspec.json.Decoder().decode


def decode_chunk(data: bytes) -> Chunk:
    """Decode a chunk or a plain answer. Raises ValueError for anything else."""
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


def decoded(data: bytes) -> Any:
    """Decode any JSON; None for anything else."""
    try:
        return decode_any(data)
    except ValueError:
        return None


def _decode_lenient(data: bytes) -> Any:
    """Take what strict decoders refuse: half of a surrogate pair, raw control characters, bad UTF-8.

    Servers that cut a text at every token do cut emoji in two. Callers put the halves together (``mend``).
    """
    try:
        return json.loads(data.decode("utf-8", "replace"), strict=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def mend(text: str) -> str:
    """Join halves of surrogate pairs that stand side by side, and replace the lonely ones."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
