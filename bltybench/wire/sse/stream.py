"""The state of an event stream, folded from its bytes in bounded slices."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from bltybench.wire.fault import Failure, Fault
from bltybench.wire.sse.chunk import Chunk, Delta, decode_any, decode_chunk, decode_or_none, join_surrogates
from bltybench.wire.sse.delta import finish_reason_in, has_audio, merge_tool_call, reasoning_in, text_in
from bltybench.wire.sse.error_shapes import error_in
from bltybench.wire.sse.event_template import NO_TEMPLATE, learn_template
from bltybench.wire.sse.framing import Framer, parse_block

MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 500_000

_MAX_TEMPLATES = 16
"""Templates to learn without using any. Then a stream whose events always differ costs only its parsing."""
_MAX_RUN_TRIES = 4
"""Tries per fold to take its remaining events as one run. Each costs as much as the fold is long."""


class StreamFold:
    """Takes reads with their arrival times, and keeps what the result needs of them."""

    def __init__(self, *, keep_text: bool) -> None:
        self._keep_text = keep_text
        self._framer = Framer()
        self._template = NO_TEMPLATE
        self._tries = _MAX_TEMPLATES
        self._learned_at = 0
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._raw: list[bytes] = []
        self._settled = (0, 0)
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self.times = array("q")
        """Arrival of each event with content, reasoning, a tool call, a refusal, or audio."""
        self.first_output_ns: int | None = None
        self.coalesced = 0
        self.other_events = 0
        self.done = False
        self.events_after_done = 0
        self.error: Any = None
        self.no_answer: Any = None
        """First JSON that is neither a chunk with choices nor an error: the server's words without answer."""
        self.bad_event: bytes | None = None
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.response_id: str | int | None = None
        self.model: str | int | None = None

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
                if self._keep_text:
                    self._raw.extend(texts)
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
        raw = self._raw if self._keep_text else None
        at = fresh = 0
        last_is_content, runs = False, True
        before, after, _, start, end, overhead, _ = self._template
        while (stop := whole.find(b"\n\n", at)) >= 0:
            if runs and before and whole.startswith(before, stop + 2) and whole.startswith(before, at):
                texts, run_end = self._run(whole, at)
                if texts:
                    if raw is not None:
                        raw.extend(texts)
                    fresh += len(texts)
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
                if raw is not None:
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

    def _run(self, whole: bytes, at: int) -> tuple[list[bytes], int]:
        """Return the texts of matching events from ``at`` on, and their end. No texts: one may not match."""
        blocks = whole[at:].split(b"\n\n")
        while not blocks[-1].startswith(self._template.before):
            blocks.pop()
        texts, run = self._template.rebuild(blocks, 0)
        return (texts, at + len(run)) if whole.startswith(run, at) else ([], at)

    def settle(self) -> None:
        """Join the texts since the last call. One string per token would take ten times the memory."""
        if not self._keep_text:
            return
        self._flush()
        for parts, start in ((self._text, self._settled[0]), (self._reasoning, self._settled[1])):
            if len(parts) > start + 1:
                parts[start:] = ["".join(parts[start:])]
        self._settled = (len(self._text), len(self._reasoning))

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
        self.settle()

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return join_surrogates("".join(self._text))

    @property
    def reasoning(self) -> str:
        """Reasoning of the first choice."""
        return join_surrogates("".join(self._reasoning))

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """Tool calls of the first choice, with their arguments joined."""
        return [self._tool_calls[index] for index in sorted(self._tool_calls)]

    def add(self, chunk: Chunk) -> tuple[bool, bool]:
        """Add a decoded chunk. Return whether it holds content, and whether it holds more than reasoning."""
        self._flush()  # keeps the order, and uses the template that these texts matched
        if self.response_id is None and isinstance(chunk.id, str | int):
            self.response_id = chunk.id
        if self.model is None and isinstance(chunk.model, str | int):
            self.model = chunk.model
        if chunk.usage is not None:
            self._add_usage(chunk.usage)
        elif isinstance(chunk.x_groq, dict):
            self._add_usage(chunk.x_groq.get("usage"))
        return self._add_choices(chunk)

    def _add_usage(self, usage: Any) -> None:
        """Keep the newest usage. One that is all zeros does not replace another: some servers end with it."""
        if isinstance(usage, dict) and (self.usage is None or usage.get("completion_tokens")):
            self.usage = usage

    def _parse(self, block: bytes, arrival_ns: int) -> bool:
        """Parse one event. Return whether it holds content."""
        event = parse_block(block)
        if self.done:
            self.events_after_done += event is not None
            return False
        if event is None:
            if block.strip(b"\n"):
                self.other_events += 1
            return False
        name, data = event
        if data.strip() == b"[DONE]":
            self._flush()
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
        content, output = self.add(chunk)
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
        elif self.bad_event is None and name in {b"", b"message"}:
            self.bad_event = data

    def _add_choices(self, chunk: Chunk) -> tuple[bool, bool]:
        content = output = False
        for choice in chunk.choices or ():
            first = choice.index in (0, None)
            delta = choice.delta or choice.message
            if delta is not None:
                has_output = self._add_delta(delta, keep=first and self._keep_text)
                output = output or has_output
                content = content or has_output or bool(reasoning_in(delta))
            if choice.text and isinstance(choice.text, str):
                content = output = True
                if first and self._keep_text:
                    self._text.append(choice.text)
            if choice.error is not None or choice.usage is not None:
                self.error = self.error or ({"error": choice.error} if choice.error else None)
                self._add_usage(choice.usage)
            if first and choice.finish_reason:
                self.finish_reason = finish_reason_in(choice.finish_reason) or self.finish_reason
        return content, output

    def _add_delta(self, delta: Delta, *, keep: bool) -> bool:
        text = text_in(delta.content) or text_in(delta.refusal)
        if keep:
            if text:
                self._text.append(text)
            if reasoning := reasoning_in(delta):
                self._reasoning.append(reasoning)
            if isinstance(delta.tool_calls, list):
                for call in delta.tool_calls:
                    if isinstance(call, dict):
                        merge_tool_call(self._tool_calls, call)
        return bool(text or delta.tool_calls or delta.function_call or has_audio(delta))

    def _flush(self) -> None:
        """Decode the texts found without parsing, all as one JSON string."""
        raw = self._raw
        if not raw:
            return
        joined = b'"' + b"".join(raw) + b'"'
        raw.clear()
        try:
            text = decode_any(joined)
        except ValueError:
            text = joined[1:-1].decode("utf-8", "replace")
        (self._reasoning if self._template.reasoning else self._text).append(text)
