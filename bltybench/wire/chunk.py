"""The parts of a chat API's answers that are looked at. Everything else in them is skipped unread.

Leaves that servers fill in their own ways are ``Any`` and checked where they are used: an odd value
there must not make the whole event unreadable.
"""

from __future__ import annotations

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


decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_any = msgspec.json.Decoder().decode
