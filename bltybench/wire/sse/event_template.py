"""The bytes around the text of an event: what lets the next events be counted without parsing them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from bltybench.wire.sse.chunk import Chunk, decoded

_CONTENT_KEYS = (b'"content"', b'"reasoning_content"', b'"reasoning"')

_STRING = re.compile(rb'[ \t]*:[ \t]*"([^"\\]*+(?:\\.[^"\\]*+)*+)"')


class Shape(NamedTuple):
    """The bytes around the text in one event, which are mostly the same in the next.

    An event with the same bytes before and after, and between them one or more bytes that hold no
    quote, no line end and do not end in a backslash, differs from the one that was parsed in the value of
    that one string only: it need not be parsed to be counted as content.
    """

    before: bytes
    after: bytes
    between: bytes
    """What lies between the texts of two events that follow each other."""
    start: int
    end: int
    overhead: int
    reasoning: bool

    def rebuild(self, blocks: Sequence[bytes], blank: int) -> tuple[list[bytes], bytes]:
        """Return what the texts are if all blocks have this shape, and the stream's bytes then; no texts
        where they could not be texts. ``blank`` bytes at a block's end are line ends.

        Cut to texts by lengths alone and put together again as the shape says; who calls compares. So many
        events cost a fraction of what they would cost each by itself.
        """
        before, after, between, start, end, *_ = self
        texts = list(map(itemgetter(slice(start, end - blank)), blocks))
        quoted = b'"'.join(texts)
        if (
            not texts
            or not all(texts)
            or quoted.count(b'"') != len(texts) - 1
            or b"\n" in quoted
            or b"\r" in quoted
            or (b"\\" in quoted and (b'\\"' in quoted or quoted.endswith(b"\\")))
        ):
            return [], b""
        return texts, b"".join((before, between.join(texts), after, b"\n\n"))


NO_SHAPE = Shape(b"", b"", b"", 0, 0, sys.maxsize, False)
"""No event has it."""


def learn(block: bytes, chunk: Chunk) -> Shape:
    """Return the shape of an event that holds one text and nothing else to look at, or none."""
    choices = chunk.choices or []
    if len(choices) != 1 or chunk.usage is not None or chunk.error is not None:
        return NO_SHAPE
    choice = choices[0]
    delta = choice.delta
    if (
        delta is None
        or choice.index not in (0, None)
        or choice.finish_reason
        or choice.text
        or choice.message
    ):
        return NO_SHAPE
    told = (delta.content, delta.reasoning_content, delta.reasoning)
    if sum(map(bool, told)) != 1 or delta.tool_calls or delta.function_call or delta.refusal:
        return NO_SHAPE
    key, value = next((key, said) for key, said in zip(_CONTENT_KEYS, told, strict=True) if said)
    if not isinstance(value, str) or block.count(key) != 1 or b"\n" in block:
        return NO_SHAPE
    match = _STRING.match(block, block.index(key) + len(key))
    # Bytes that decode to the parsed value, at the only place that has the key: this is where it was.
    if match is None or decoded(b'"' + match[1] + b'"') != value:
        return NO_SHAPE
    before, after = block[: match.start(1)], block[match.end(1) :]
    between = after + b"\n\n" + before
    overhead = len(before) + len(after)
    return Shape(before, after, between, len(before), -len(after), overhead, key != _CONTENT_KEYS[0])
