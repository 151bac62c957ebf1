"""The state of an event stream, folded from its bytes in bounded slices."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import ne
from typing import Any

from bltybench.wire.fault import Failure, Fault
from bltybench.wire.sse.answer import Answer
from bltybench.wire.sse.chunk import (
    Chunk,
    decode_batch,
    decode_chunk,
    decode_chunks,
    decode_or_none,
    decode_text_chunks,
)
from bltybench.wire.sse.error_shapes import error_in
from bltybench.wire.sse.framing import Framer, parse_block

MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 500_000
MAX_BAD_EVENTS = 1_000
"""Events that are not JSON after which a broken stream is not examined further. Each takes as long as several
good ones, and a small compressed body can hold millions."""

_MIN_TEXTS = 4
"""Events from which on it pays to try decoding them as text alone."""
_DONE_END = b"[DONE]\n\n"

_Group = tuple[bytes, int, bool]
"""Whole events of one piece, their arrival, and whether nothing follows the last one in its read."""


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
        if self._framer.are_whole(pieces):
            groups = list(zip(pieces, arrivals, ends_read, strict=True))
        else:
            groups = self._framed(zip(pieces, arrivals, ends_read, strict=True))
        done: list[_Group] = []
        if groups and groups[-1][0].endswith(_DONE_END):
            whole, arrival_ns, ends = groups.pop()
            cut = whole.rfind(b"\n\n", 0, -2)
            if cut >= 0:
                groups.append((whole[: cut + 2], arrival_ns, False))
                whole = whole[cut + 2 :]
            done = [(whole, arrival_ns, ends)]
        # The first event has the id and the model, and one of the first two usually begins a tool call. The
        # last two have the finish reason and the usage.
        first = 0 if self._is_identified() else 2
        end = max(first, len(groups) - 2 if done else len(groups))
        self._take_groups(groups[:first])
        if not self._take_texts(groups[first:end]):
            self._take_groups(groups[first:end])
        self._take_groups(groups[end:])
        for group in done:
            self._take_events(*group)

    def _framed(self, pieces: Iterable[_Group]) -> list[_Group]:
        """Return the whole events that pieces complete."""
        framer = self._framer
        groups: list[_Group] = []
        for data, arrival_ns, ends_read in pieces:
            whole = framer.feed(data)
            if whole:
                groups.append((whole, arrival_ns, ends_read and not framer.unfinished))
        return groups

    def take(self, data: bytes, arrival_ns: int) -> None:
        """Fold one read, event by event."""
        whole = self._framer.feed(data)
        self._take_events(whole, arrival_ns, ends_read=not self._framer.unfinished)

    def _take_texts(self, groups: list[_Group]) -> bool:
        """Fold whole events if each holds text, reasoning, or arguments of a tool call, and nothing else.

        Return whether they do, all of one kind or first reasoning and then text.
        """
        if len(groups) < _MIN_TEXTS or self.done or self._is_broken() or not self._is_identified():
            return False
        wholes, arrivals, ends_read = zip(*groups, strict=True)
        chunks = decode_batch(wholes, decode_text_chunks)
        if chunks is None or len(chunks) != len(groups):
            return False
        deltas = [chunk.choices[0].delta for chunk in chunks]
        first = self._add_arguments(deltas) if deltas[0].tool_calls else self._add_texts(deltas)
        if first is None:
            return False
        if self.first_output_ns is None and first < len(deltas):
            self.first_output_ns = arrivals[first]
        for usage in [chunk.usage for chunk in chunks if chunk.usage is not None]:
            self._add_usage(usage)
        self._unfinished.add(0)
        if not self.times:
            self.first_token_coalesced = not ends_read[0]
        self.times.extend(arrivals)
        self.coalesced += len(groups) - sum(ends_read)
        return True

    def _is_identified(self) -> bool:
        return self.response_id is not None and self.model is not None

    def _take_groups(self, groups: list[_Group]) -> None:
        """Fold whole events, decoded in one batch if each is JSON in a line of its own."""
        if not groups:
            return
        wholes = [group[0] for group in groups]
        chunks = None if self.done or self._is_broken() else decode_batch(wholes, decode_chunks)
        counts = [whole.count(b"\n\n") for whole in wholes]
        if chunks is None or len(chunks) != sum(counts):
            for group in groups:
                self._take_events(*group)
            return
        blocks: list[bytes] = []
        at = 0
        for (_, arrival_ns, ends_read), count in zip(groups, counts, strict=True):
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
