"""The state of an event stream, folded from its bytes in bounded slices."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import ne
from typing import Any, NamedTuple

from bltybench.wire.fault import Failure, Fault
from bltybench.wire.sse.answer import Answer
from bltybench.wire.sse.chunk import (
    Chunk,
    PlainChunk,
    as_array,
    decode_arguments,
    decode_array,
    decode_chunk,
    decode_chunks,
    decode_mixed,
    decode_or_none,
    decode_texts,
)
from bltybench.wire.sse.error_shapes import error_in
from bltybench.wire.sse.framing import Framer, data_of, parse_block

MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 500_000
MAX_BAD_EVENTS = 1_000
"""Events that are not JSON after which a broken stream is not examined further. Each takes as long as several
good ones, and a small compressed body can hold millions."""

_MIN_PLAIN = 4
"""Events from which on it pays to try decoding them as text alone."""
_DONE_END = b"[DONE]\n\n"


class _Events(NamedTuple):
    """Whole events, in groups that arrived together."""

    wholes: Sequence[bytes]
    data: Sequence[bytes] | None
    """What follows ``data:`` in each group; None if it is unknown whether all begin with it."""
    arrivals: Sequence[int]
    ends_read: Sequence[bool]
    """Whether nothing follows the group in its read."""

    def part(self, start: int, stop: int | None = None) -> _Events:
        """Return some of the groups."""
        wholes = self.wholes[start:stop]
        data = self.data[start:stop] if self.data is not None else data_of(wholes)
        return _Events(wholes, data, self.arrivals[start:stop], self.ends_read[start:stop])


class StreamFold(Answer):
    """Takes reads with their arrival times, and keeps what the result needs of them."""

    def __init__(self) -> None:
        super().__init__()
        self._framer = Framer()
        self.times = array("q")
        """Arrival of each event with content, reasoning, a tool call, a refusal, or audio."""
        self.first_output_ns: int | None = None
        self.coalesced = 0
        self.first_token_coalesced: bool | None = None
        """Whether the first of those events is among the coalesced ones. None before it arrives."""
        self.other_events = 0
        self.done = False
        self.events_after_done = 0
        self.no_answer: Any = None
        """First JSON that is neither a chunk with choices nor an error: the server's words without answer."""
        self.bad_event: bytes | None = None
        self._bad_events = 0
        self.finished_ns: int | None = None
        """Arrival of the latest event since every choice has a finish reason, or of ``[DONE]``."""

    def take_pieces(self, pieces: Sequence[bytes], arrivals: array[int]) -> None:
        """Fold reads as the HTTP parser split them: ``pieces[i]`` arrived at ``arrivals[i]``.

        The pieces of one read have the same arrival.
        """
        if not pieces:
            return
        ends_read = [*map(ne, arrivals[1:], arrivals), True]
        data = self._framer.whole_data(pieces)
        if data is not None:
            events = _Events(pieces, data, arrivals, ends_read)
        else:
            events = self._framed(zip(pieces, arrivals, ends_read, strict=True))
        count = len(events.wholes)
        if not count:
            return
        # The first event has the id and the model, and one of the first two usually begins a tool call. The
        # last ones have the finish reason, the usage, and [DONE].
        done = events.wholes[-1].endswith(_DONE_END)
        first = 0 if self._is_identified() else min(2, count - done)
        end = max(first, count - 3) if done else count
        self._take_groups(events.part(0, first))
        plain = events.part(first, end)
        if not self._take_plain(plain):
            self._take_groups(plain)
        self._take_groups(events.part(end, count - done))
        if done:
            self._take_done(events.wholes[-1], events.arrivals[-1], events.ends_read[-1])

    def _framed(self, pieces: Iterable[tuple[bytes, int, bool]]) -> _Events:
        """Return the whole events that pieces complete."""
        framer = self._framer
        wholes, arrivals, ends = [], array("q"), []
        for piece, arrival_ns, ends_read in pieces:
            whole = framer.feed(piece)
            if whole:
                wholes.append(whole)
                arrivals.append(arrival_ns)
                ends.append(ends_read and not framer.unfinished)
        return _Events(wholes, None, arrivals, ends)

    def take(self, data: bytes, arrival_ns: int) -> None:
        """Fold one read, event by event."""
        whole = self._framer.feed(data)
        self._take_events(whole, arrival_ns, ends_read=not self._framer.unfinished)

    def _take_plain(self, events: _Events) -> bool:
        """Fold whole events if each holds text, reasoning, or arguments of a tool call, and nothing else.

        Return whether they do, all of one kind or first reasoning and then text.
        """
        count = len(events.wholes)
        if count < _MIN_PLAIN or self.done or self._is_broken() or not self._is_identified():
            return False
        data = as_array(events.data)
        if data is None:
            return False
        chunks: Sequence[PlainChunk[Any]] | None
        first: int | None = 0
        if chunks := decode_array(data, decode_texts, count):
            self._text += [chunk.choices[0].delta.content for chunk in chunks]
        elif chunks := decode_array(data, decode_arguments, count):
            if not self._add_arguments([chunk.choices[0].delta.tool_calls[0] for chunk in chunks]):
                return False
        elif chunks := decode_array(data, decode_mixed, count):
            first = self._add_mixed([chunk.choices[0].delta for chunk in chunks])
        if chunks is None or first is None:
            return False
        if self.first_output_ns is None and first < count:
            self.first_output_ns = events.arrivals[first]
        for usage in [chunk.usage for chunk in chunks if chunk.usage is not None]:
            self._add_usage(usage)
        self._unfinished.add(0)
        if not self.times:
            self.first_token_coalesced = not events.ends_read[0]
        self.times.extend(events.arrivals)
        self.coalesced += count - sum(events.ends_read)
        return True

    def _is_identified(self) -> bool:
        return self.response_id is not None and self.model is not None

    def _take_groups(self, events: _Events) -> None:
        """Fold whole events, decoded in one batch if each is JSON in a line of its own."""
        wholes, arrivals, ends = events.wholes, events.arrivals, events.ends_read
        if not wholes:
            return
        counts = [whole.count(b"\n\n") for whole in wholes]
        data = None if self.done or self._is_broken() else as_array(events.data)
        chunks = decode_array(data, decode_chunks, sum(counts)) if data is not None else None
        if chunks is None:
            for whole, arrival_ns, ends_read in zip(wholes, arrivals, ends, strict=True):
                self._take_events(whole, arrival_ns, ends_read)
            return
        blocks: list[bytes] = []
        at = 0
        for arrival_ns, ends_read, count in zip(arrivals, ends, counts, strict=True):
            fresh, content = 0, False
            for chunk in chunks[at : at + count] if count > 1 else (chunks[at],):
                if chunk.error or not (chunk.choices or chunk.usage is not None):
                    blocks = blocks or b"".join(wholes).split(b"\n\n")
                    content = self._parse(blocks[at], arrival_ns)
                else:
                    content = self._add_chunk(chunk, arrival_ns)
                fresh += content
                at += 1
            if fresh:
                self._add_times(fresh, arrival_ns, alone=ends_read and content)

    def _take_done(self, whole: bytes, arrival_ns: int, ends_read: bool) -> None:
        """Fold whole events that end with ``[DONE]``."""
        cut = whole.rfind(b"\n\n", 0, -2)
        if cut >= 0:
            rest = [whole[: cut + 2]]
            self._take_groups(_Events(rest, data_of(rest), [arrival_ns], [False]))
            whole = whole[cut + 2 :]
        self._take_events(whole, arrival_ns, ends_read)

    def _take_events(self, whole: bytes, arrival_ns: int, ends_read: bool) -> None:
        """Fold whole events of one read, or of a part of it, one by one."""
        fresh, content, at = 0, False, 0
        while (stop := whole.find(b"\n\n", at)) >= 0:
            content = self._parse(whole[at:stop], arrival_ns)
            fresh += content
            at = stop + 2
        if fresh:
            self._add_times(fresh, arrival_ns, alone=ends_read and content and at == len(whole))

    def _add_times(self, fresh: int, arrival_ns: int, *, alone: bool) -> None:
        """Record the arrival of events with content. ``alone``: nothing follows the last one in its read.

        Otherwise the read's timestamp is that of later bytes, and so an upper bound.
        """
        if not self.times:
            self.first_token_coalesced = fresh > 1 or not alone
        if fresh == 1:
            self.times.append(arrival_ns)
        else:
            self.times.extend([arrival_ns] * fresh)
        self.coalesced += fresh - alone

    def overrun(self) -> Failure | None:
        """Return the limit that the stream exceeds, if any."""
        if len(self._framer.unfinished) > MAX_EVENT_BYTES:
            return Failure(Fault.EVENT_TOO_LARGE, f"an event of more than {MAX_EVENT_BYTES} bytes")
        if len(self.times) + self.other_events > MAX_EVENTS:
            return Failure(Fault.TOO_MANY_EVENTS, f"more than {MAX_EVENTS} events")
        return None

    def close(self, end_ns: int | None = None) -> None:
        """Handle the end of the stream at ``end_ns``, or None if it broke off.

        Some servers omit the blank line after the last event.
        """
        rest = bytes(self._framer.unfinished).strip(b"\n")
        event = parse_block(rest) if rest else None
        if event is not None and event.data.strip() == b"[DONE]":
            self.done = True
        elif event is not None and end_ns is not None and self._parse(rest, end_ns):
            self._add_times(1, end_ns, alone=True)

    def _parse(self, block: bytes, arrival_ns: int) -> bool:
        """Parse one event. Return whether it holds content."""
        event = None if self._is_broken() else parse_block(block)
        if event is None or self.done:
            if self.done:
                self.events_after_done += event is not None
            elif block.strip(b"\n"):
                self.other_events += 1
            return False
        name, data = event
        if data.strip() == b"[DONE]":
            self.finished_ns = arrival_ns
            self.done = True
            self.other_events += 1
            return False
        try:
            chunk = decode_chunk(data)
        except ValueError:
            self._add_other(name, data)
            return False
        if chunk.error or name == b"error":
            value = decode_or_none(data)
            self.error = self.error or error_in(value) or value
        if not chunk.choices and chunk.usage is None and self.error is None:
            self.add(chunk)
            self._add_other(name, data)
            return False
        return self._add_chunk(chunk, arrival_ns)

    def _add_chunk(self, chunk: Chunk, arrival_ns: int) -> bool:
        """Add a chunk. Return whether it holds content."""
        content, output = self.add(chunk)
        if self.finish_reason is not None and self.finished:
            self.finished_ns = arrival_ns
        if not content:
            self.other_events += 1
        elif output and self.first_output_ns is None:
            self.first_output_ns = arrival_ns
        return content

    def _is_broken(self) -> bool:
        """Return whether the rest of the stream can't change what is recorded."""
        return self._bad_events == MAX_BAD_EVENTS or self.other_events > MAX_EVENTS

    def _add_other(self, name: bytes, data: bytes) -> None:
        """Add an event that is not a chunk: an error in another form, a server's own event, or junk."""
        self.other_events += 1
        value = decode_or_none(data)
        if name == b"error":
            self.error = (
                self.error or error_in(value) or value or {"message": data.decode("utf-8", "replace")}
            )
        elif isinstance(value, dict | list):
            self.error = self.error or error_in(value)
            self.no_answer = self.no_answer or value
        elif name in {b"", b"message"}:
            self._bad_events += 1
            self.bad_event = data if self.bad_event is None else self.bad_event
