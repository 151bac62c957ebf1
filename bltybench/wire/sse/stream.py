"""The state of an event stream, folded from its bytes in bounded slices."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from bltybench.wire.fault import Failure, Fault
from bltybench.wire.sse.answer import Answer
from bltybench.wire.sse.chunk import decode_chunk, decode_or_none
from bltybench.wire.sse.error_shapes import error_in
from bltybench.wire.sse.event_template import NO_TEMPLATE, learn_template
from bltybench.wire.sse.framing import Framer, parse_block

MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 500_000
MAX_BAD_EVENTS = 1_000
"""Events that are not JSON after which a broken stream is not examined further. Each takes as long as several
good ones, and a small compressed body can hold millions."""

_MAX_TEMPLATES = 16
"""Templates to learn without using any. Then a stream whose events always differ costs only its parsing."""
_MAX_RUN_TRIES = 4
"""Tries per fold to take its remaining events as one run. Each costs as much as the fold is long."""


class StreamFold(Answer):
    """Takes reads with their arrival times, and keeps what the result needs of them."""

    def __init__(self) -> None:
        super().__init__()
        self._framer = Framer()
        self._template = NO_TEMPLATE
        self._tries = _MAX_TEMPLATES
        self._learned_at = 0
        self._raw: list[bytes] = []
        self.times = array("q")
        """Arrival of each event with content, reasoning, a tool call, a refusal, or audio."""
        self.first_output_ns: int | None = None
        self.coalesced = 0
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

        The pieces of one read have the same arrival. Most servers write each event as a chunk of its own;
        consecutive pieces of that kind that match the template are folded in one batch.
        """
        at, tries = 0, _MAX_RUN_TRIES
        while at < len(pieces):
            before = self._template.before
            if tries and before and pieces[at].startswith(before) and self._framer.between_events:
                tries -= 1
                until = self._take_run(pieces, at)
                if until > at:
                    self._record_run(at, until, arrivals)
                    at = until
                    continue
            arrival_ns = arrivals[at]
            at += 1
            last = at == len(pieces) or arrivals[at] != arrival_ns
            self.take(pieces[at - 1], arrival_ns, last=last)

    def _take_run(self, pieces: Sequence[bytes], at: int) -> int:
        """Take the run of pieces from ``at`` on that match the template. Return the index after it."""
        template = self._template
        until = len(pieces)
        while until > at and not pieces[until - 1].startswith(template.before):
            until -= 1
        while until > at:
            run = pieces[at:until]
            texts, rebuilt = template.rebuild(run, 2)
            if texts and rebuilt == b"".join(run):
                self._raw.append(texts)
                return until
            # One of them differs, but perhaps not one of the first.
            until = at + (until - at) // 4
        return at

    def _record_run(self, at: int, until: int, arrivals: array[int]) -> None:
        """Record the arrivals of pieces that are one event each."""
        times = arrivals[at:until]
        self.times.extend(times)
        # In each read, another event followed all but the last one, and that one too if the read continues.
        reads = 1 if times[0] == times[-1] else len(set(times))
        continues = until < len(arrivals) and arrivals[until] == times[-1]
        self.coalesced += len(times) - reads + continues

    def take(self, data: bytes, arrival_ns: int, *, last: bool = True) -> None:
        """Fold a read, or a part of one; ``last`` is whether nothing follows in the same read."""
        framer = self._framer
        whole = framer.feed(data)
        raw = self._raw
        at = fresh = 0
        last_is_content, runs = False, True
        before, after, _, start, end, overhead, _ = self._template
        while (stop := whole.find(b"\n\n", at)) >= 0:
            if runs and before and whole.startswith(before, stop + 2) and whole.startswith(before, at):
                texts, run_end = self._run(whole, at)
                if texts:
                    raw.append(texts)
                    fresh += texts.count(b'"') + 1
                    at, last_is_content = run_end, True
                    continue
                runs = False  # one try per read: it costs as much as the read is long
            block = whole[at:stop]
            at, size = stop + 2, stop - at
            if (
                size > overhead
                and block.startswith(before)
                and block.endswith(after)
                and block.find(b'"', start) == size + end
                and block[end - 1] != 0x5C
                and b"\n" not in block
            ):
                last_is_content = True
                raw.append(block[start:end])
            else:
                last_is_content = self._parse(block, arrival_ns)
                before, after, _, start, end, overhead, _ = self._template
            fresh += last_is_content
        if fresh == 1:
            self.times.append(arrival_ns)
        elif fresh:
            self.times.extend([arrival_ns] * fresh)
        if fresh:
            # If bytes of another event were in the same read, the timestamp is theirs: an upper bound.
            alone = last and last_is_content and not framer.unfinished
            self.coalesced += fresh - 1 if alone else fresh

    def _run(self, whole: bytes, at: int) -> tuple[bytes, int]:
        """Return the texts of matching events from ``at`` on, and their end. No texts: one may not match."""
        blocks = whole[at:].split(b"\n\n")
        while not blocks[-1].startswith(self._template.before):
            blocks.pop()
        texts, run = self._template.rebuild(blocks, 0)
        return (texts, at + len(run)) if whole.startswith(run, at) else (b"", at)

    def settle(self) -> None:
        """Join the texts since the last call. One object per token would take ten times the memory."""
        self._flush()
        super().settle()

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
            self.times.append(end_ns)
        self._flush()

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
            self._flush()
            self.finished_ns = arrival_ns
            self.done, self._template = True, NO_TEMPLATE  # later events are parsed one by one, and ignored
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
        self._flush()
        content, output = self.add(chunk)
        self.finished_ns = arrival_ns if self.finish_reason and self.finished else self.finished_ns
        if not content:
            if chunk.choices or chunk.usage is not None or self.error is not None:
                self.other_events += 1
            else:
                self._add_other(name, data)
            return False
        if output and self.first_output_ns is None:
            self.first_output_ns = arrival_ns
        if len(self.times) > self._learned_at + 1:
            self._tries = _MAX_TEMPLATES  # the current template has matched
        if self._tries:
            self._tries -= 1
            self._learned_at = len(self.times)
            self._template = learn_template(block, chunk)
        return True

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

    def _flush(self) -> None:
        """Add the texts found without parsing, before the template that they match changes."""
        if self._raw:
            (self._reasoning if self._template.reasoning else self._text).append(b'"'.join(self._raw))
            self._raw.clear()
