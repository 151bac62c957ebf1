from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.wire.sse.framing import Event, Framer, parse_block


def events_of(reads: list[bytes]) -> list[Event]:
    framer = Framer()
    events = []
    for data in reads:
        events += [parse_block(block) for block in framer.feed(data).split(b"\n\n")]
    return [event for event in events if event is not None]


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(stream) + 1) for at in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data",
        b"data:  two",
        b": ping",
        b"event: error",
        b"id: 3",
        b"retry: 1",
        b"",
        b"\xc3\xa9",
    ]
)
STREAMS = st.one_of(
    st.binary(max_size=200),
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30).map(
        lambda parts: b"".join(line + end for line, end in parts)
    ),
)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_are_framed_with_any_line_end(end: bytes) -> None:
    stream = end.join([b"data: a", b"", b"event: error", b"data:b", b"data: c", b"", b""])
    assert events_of([stream]) == [Event(b"", b"a"), Event(b"error", b"b\nc")]


@pytest.mark.parametrize(
    ("block", "data"),
    [
        (b"data: x", b"x"),
        (b"data:x", b"x"),
        (b"data:  x", b" x"),
        (b"data", b""),
        (b": comment\ndata: x\nid: 1", b"x"),
        (b"\ndata: x\n", b"x"),
        (b"data: x\ndata: y", b"x\ny"),
    ],
)
def test_data_fields_of_a_block_are_joined(block: bytes, data: bytes) -> None:
    assert parse_block(block) == Event(b"", data)


@pytest.mark.parametrize("block", [b": keep-alive", b"id: 4", b"", b"\n\n", b"datax: y", b" data: y"])
def test_a_block_without_data_is_no_event(block: bytes) -> None:
    assert parse_block(block) is None


def test_a_byte_order_mark_is_skipped_only_at_the_start() -> None:
    mark = b"\xef\xbb\xbf"
    stream = mark + b"data: a\n\n" + mark + b"data: b\n\ndata: c\n\n"
    whole = [Event(b"", b"a"), Event(b"", b"c")]
    assert events_of([stream]) == whole
    assert events_of([stream[i : i + 1] for i in range(len(stream))]) == whole


def test_an_event_is_returned_by_the_read_that_completes_it() -> None:
    framer = Framer()
    assert framer.feed(b"data: a\n") == b""
    assert framer.feed(b"\ndata: b\n\nda") == b"data: a\n\ndata: b\n\n"
    assert framer.unfinished == b"da"


@given(STREAMS, st.lists(st.integers(min_value=0, max_value=10_000), max_size=20))
def test_reads_can_end_anywhere(stream: bytes, cuts: list[int]) -> None:
    assert events_of(cut(stream, cuts)) == events_of([stream])


@given(STREAMS)
def test_reads_of_single_bytes_give_the_same_events(stream: bytes) -> None:
    assert events_of([stream[i : i + 1] for i in range(len(stream))]) == events_of([stream])


@given(STREAMS)
def test_framing_agrees_with_a_plain_implementation_of_the_rules(stream: bytes) -> None:
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *lines, _ = text.split(b"\n")
    expected: list[Event] = []
    name = b""
    data: list[bytes] = []
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                expected.append(Event(name, b"\n".join(data)))
            name, data = b"", []
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    assert events_of([stream]) == expected
