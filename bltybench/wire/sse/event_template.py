"""The bytes around the text of an event, by which later events are counted without parsing them."""

import re
import sys
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from bltybench.wire.sse.chunk import Chunk, decode_or_none

_CONTENT_KEYS = (b'"content"', b'"reasoning_content"', b'"reasoning"')

_STRING = re.compile(rb'[ \t]*:[ \t]*"([^"\\]*+(?:\\.[^"\\]*+)*+)"')


class EventTemplate(NamedTuple):
    """The bytes around the text in one event, which are mostly the same in the next.

    An event matches if it has the same bytes before and after, and between them one or more bytes without a
    quote or a line end, not ending in a backslash. Such an event differs from the parsed one in that string
    only, so it can be counted as content without parsing.
    """

    before: bytes
    after: bytes
    between: bytes
    """Bytes between the texts of two consecutive events."""
    start: int
    end: int
    overhead: int
    reasoning: bool

    def rebuild(self, blocks: Sequence[bytes], blank: int) -> tuple[bytes, bytes]:
        """Return the texts if all ``blocks`` match, and the bytes of the stream in that case.

        The texts have quotes between them. Returns nothing if they cannot be texts. Each block ends in
        ``blank`` bytes of line ends. Texts are cut out by position alone, and the caller compares the rebuilt
        bytes with the stream. That costs a fraction of matching each event.
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
            return b"", b""
        return quoted, b"".join((before, between.join(texts), after, b"\n\n"))


NO_TEMPLATE = EventTemplate(b"", b"", b"", 0, 0, sys.maxsize, False)
"""A template that no event matches."""


def learn_template(block: bytes, chunk: Chunk) -> EventTemplate:
    """Return the template of an event that holds one text and nothing else of use, or NO_TEMPLATE."""
    choices = chunk.choices or []
    if len(choices) != 1 or any(part is not None for part in (chunk.usage, chunk.x_groq, chunk.error)):
        return NO_TEMPLATE
    choice = choices[0]
    delta = choice.delta
    if (
        delta is None
        or choice.index not in (0, None)
        or choice.finish_reason
        or choice.usage is not None
        or choice.error is not None
        or choice.text
        or choice.message
    ):
        return NO_TEMPLATE
    values = (delta.content, delta.reasoning_content, delta.reasoning)
    if sum(map(bool, values)) != 1 or delta.tool_calls or delta.function_call or delta.refusal or delta.audio:
        return NO_TEMPLATE
    key, value = next((key, value) for key, value in zip(_CONTENT_KEYS, values, strict=True) if value)
    if not isinstance(value, str) or block.count(key) != 1 or b"\n" in block:
        return NO_TEMPLATE
    match = _STRING.match(block, block.index(key) + len(key))
    # The key occurs once, and these bytes decode to the parsed value: this is where it came from.
    if match is None or decode_or_none(b'"' + match[1] + b'"') != value:
        return NO_TEMPLATE
    before, after = block[: match.start(1)], block[match.end(1) :]
    between = after + b"\n\n" + before
    overhead = len(before) + len(after)
    return EventTemplate(before, after, between, len(before), -len(after), overhead, key != _CONTENT_KEYS[0])
