"""Stream formats of the benchmark server: our client reads each as a complete stream."""

from __future__ import annotations

import re

import pytest

from benchmarks.stream_formats import FORMATS, body_of
from bltybench.wire.sse.stream import StreamFold

CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


def unframed(data: bytes) -> bytes:
    """Return the content of HTTP chunks."""
    parts, at = [], 0
    while at < len(data):
        head = CHUNK.match(data, at)
        assert head is not None
        size = int(head[1], 16)
        parts.append(data[head.end() : head.end() + size])
        at = head.end() + size + 2
    return b"".join(parts)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_a_complete_stream(name: str) -> None:
    fold = StreamFold()
    body = body_of(name, 64, 1)
    for at, chunk in enumerate(body.chunks):
        fold.take(unframed(chunk), at)
    fold.close(len(body.chunks))
    assert list(fold.times) == list(range(1, 65)), "one event with content per write"
    assert fold.other_events == 4
    assert fold.done
    assert fold.finished
    assert fold.usage == {"prompt_tokens": 64, "completion_tokens": 64, "total_tokens": 128}
    assert len(fold.generated_text) >= 64 * 10


@pytest.mark.parametrize("name", FORMATS)
def test_events_of_a_format_differ_from_each_other(name: str) -> None:
    assert len(set(body_of(name, 64, 1).chunks)) == 68


def test_bursts_hold_the_same_events() -> None:
    assert body_of("large", 10, 4).whole == body_of("large", 10, 1).whole
    assert len(body_of("large", 10, 4).chunks) == 4 + 3
