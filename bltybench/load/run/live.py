"""What the last minute looked like, for people who watch. The report never uses these figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from bltybench.percentiles import percentile
from bltybench.runs.attempt import Attempt

T = TypeVar("T")

WINDOW_S = 60.0
TTFT_KEPT = 2_000


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What one process saw within about a second."""

    at_s: float
    """End of the tick, on the run's axis."""
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    tokens: int = 0
    in_flight: int = 0
    ttft_ms: tuple[float, ...] = ()
    retry_after_s: float | None = None
    """The last that a server named in this tick; so with the two below."""
    remaining_requests: int | None = None
    remaining_tokens: int | None = None


class Snapshot(NamedTuple):
    """The last minute: sums over it, and what was last seen in it. None: nothing of the kind."""

    accepted: int
    refused: int
    failed: int
    tokens: int
    in_flight: int
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    retry_after_s: float | None
    remaining_requests: int | None
    remaining_tokens: int | None


class Counter:
    """Counts one process's attempts and hands them over as a tick, once a second."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.accepted = self.refused = self.failed = self.tokens = 0
        self._ttft_ms: list[float] = []
        self._retry_after_s: float | None = None
        self._remaining_requests: int | None = None
        self._remaining_tokens: int | None = None

    def add_ttft(self, ttft_ms: float) -> None:
        """Note a TTFT; of very many within a second only the first are kept."""
        if len(self._ttft_ms) < TTFT_KEPT:
            self._ttft_ms.append(ttft_ms)

    def note_quota(self, attempt: Attempt) -> None:
        """Remember what an answer said about the server's limits."""
        if attempt.retry_after_s is not None:
            self._retry_after_s = attempt.retry_after_s
        if attempt.remaining_requests is not None:
            self._remaining_requests = attempt.remaining_requests
        if attempt.remaining_tokens is not None:
            self._remaining_tokens = attempt.remaining_tokens

    def take(self, at_s: float, in_flight: int) -> Tick:
        """Return what was counted since the last call."""
        tick = Tick(
            at_s=at_s,
            accepted=self.accepted,
            refused=self.refused,
            failed=self.failed,
            tokens=self.tokens,
            in_flight=in_flight,
            ttft_ms=tuple(self._ttft_ms),
            retry_after_s=self._retry_after_s,
            remaining_requests=self._remaining_requests,
            remaining_tokens=self._remaining_tokens,
        )
        self._clear()
        return tick


class Live:
    """The ticks of the last minute of all processes."""

    def __init__(self) -> None:
        self._ticks: deque[Tick] = deque()
        self._in_flight: dict[str, int] = {}

    def add(self, worker: str, ticks: Iterable[Tick]) -> None:
        """Take in what ``worker`` saw."""
        for tick in ticks:
            self._ticks.append(tick)
            self._in_flight[worker] = tick.in_flight

    def snapshot(self, now_s: float) -> Snapshot:
        """Return the minute up to ``now_s`` on the run's axis."""
        # Ticks of several processes come nearly, not wholly, in order: one too old may stay for a second.
        while self._ticks and self._ticks[0].at_s <= now_s - WINDOW_S:
            self._ticks.popleft()
        ticks = self._ticks
        ttft = sorted(ms for tick in ticks for ms in tick.ttft_ms)
        return Snapshot(
            accepted=sum(tick.accepted for tick in ticks),
            refused=sum(tick.refused for tick in ticks),
            failed=sum(tick.failed for tick in ticks),
            tokens=sum(tick.tokens for tick in ticks),
            in_flight=sum(self._in_flight.values()),
            ttft_p50_ms=percentile(ttft, 0.5),
            ttft_p95_ms=percentile(ttft, 0.95),
            retry_after_s=_last(tick.retry_after_s for tick in ticks),
            remaining_requests=_last(tick.remaining_requests for tick in ticks),
            remaining_tokens=_last(tick.remaining_tokens for tick in ticks),
        )

    def line(self, now_s: float, total_s: float, doing: str = "") -> str:
        """Return the progress line at ``now_s`` seconds into a run of ``total_s``.

        A run that is made of steps is over when the last one is, so it says what it is ``doing`` instead.
        """
        seen = self.snapshot(now_s)
        parts = [
            f"{max(0.0, now_s):3.0f} s  {doing}" if doing else f"{max(0.0, now_s):3.0f}/{total_s:.0f} s",
            f"{seen.accepted} ok/min  {seen.refused} 429/min",
            *([f"{seen.failed} failed/min"] if seen.failed else []),
            f"{_short(seen.tokens)} tok/min",
            f"{seen.in_flight} in flight",
        ]
        if seen.ttft_p50_ms is not None and seen.ttft_p95_ms is not None:
            parts.append(f"TTFT p50 {seen.ttft_p50_ms:.0f} p95 {seen.ttft_p95_ms:.0f} ms")
        return "  ".join(parts)


def _last(values: Iterable[T | None]) -> T | None:
    """Return the last value that is there."""
    found: T | None = None
    for value in values:
        found = found if value is None else value
    return found


def _short(count: int) -> str:
    return f"{count / 1000:.1f}K" if count >= 10_000 else str(count)


def encode_ticks(ticks: list[Tick]) -> list[dict[str, Any]]:
    """Return ticks as plain values that Locust's messages can carry."""
    return [msgspec.to_builtins(tick) for tick in ticks]


def decode_ticks(values: Any) -> list[Tick]:
    """Return ticks from a message. Raises msgspec.ValidationError on anything else."""
    return msgspec.convert(values, list[Tick])
