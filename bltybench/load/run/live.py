"""Live counts of the last minute for the progress line and the web tab. Reports never use them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec

from bltybench.percentiles import percentile
from bltybench.runs.attempt import Attempt, Outcome

T = TypeVar("T")

WINDOW_S = 60.0
MAX_TTFTS = 2_000
"""Maximum number of TTFTs kept per tick."""


class Tick(msgspec.Struct, kw_only=True):
    """Counts of one process for about a second."""

    at_s: float = 0.0
    """End of the tick, on the run's axis."""
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    tokens: int = 0
    in_flight: int = 0
    ttft_ms: list[float] = []
    """The first MAX_TTFTS values."""
    retry_after_s: float | None = None
    """Last value reported in this tick, as for the two below."""
    remaining_requests: int | None = None
    remaining_tokens: int | None = None

    def add(self, attempt: Attempt, refused: bool, ttft_ms: float | None) -> None:
        """Count an attempt, and remember what its response reported about the server's limits."""
        if attempt.outcome is Outcome.OK:
            self.accepted += 1
            self.tokens += (attempt.prompt_tokens or 0) + (attempt.completion_tokens or 0)
        elif refused:
            self.refused += 1
        elif attempt.outcome is not Outcome.CANCELLED:
            self.failed += 1
        if ttft_ms is not None and len(self.ttft_ms) < MAX_TTFTS:
            self.ttft_ms.append(ttft_ms)
        if attempt.retry_after_s is not None:
            self.retry_after_s = attempt.retry_after_s
        if attempt.remaining_requests is not None:
            self.remaining_requests = attempt.remaining_requests
        if attempt.remaining_tokens is not None:
            self.remaining_tokens = attempt.remaining_tokens


class Snapshot(NamedTuple):
    """Sums over the last minute, and the last values reported in it. None: no such value."""

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


class Live:
    """The ticks of the last minute of all processes."""

    def __init__(self) -> None:
        self._ticks: deque[Tick] = deque()
        self._in_flight: dict[str, int] = {}

    def add(self, worker: str, ticks: Iterable[Tick]) -> None:
        """Add ticks of ``worker``."""
        for tick in ticks:
            self._ticks.append(tick)
            self._in_flight[worker] = tick.in_flight

    def snapshot(self, now_s: float) -> Snapshot:
        """Return the counts of the minute up to ``now_s`` on the run's axis."""
        # Ticks of several processes arrive almost in order, so an outdated one can stay for a second.
        while self._ticks and self._ticks[0].at_s <= now_s - WINDOW_S:
            self._ticks.popleft()
        ticks = self._ticks
        ttft_ms = sorted(ms for tick in ticks for ms in tick.ttft_ms)
        return Snapshot(
            accepted=sum(tick.accepted for tick in ticks),
            refused=sum(tick.refused for tick in ticks),
            failed=sum(tick.failed for tick in ticks),
            tokens=sum(tick.tokens for tick in ticks),
            in_flight=sum(self._in_flight.values()),
            ttft_p50_ms=percentile(ttft_ms, 0.5),
            ttft_p95_ms=percentile(ttft_ms, 0.95),
            retry_after_s=_last(tick.retry_after_s for tick in ticks),
            remaining_requests=_last(tick.remaining_requests for tick in ticks),
            remaining_tokens=_last(tick.remaining_tokens for tick in ticks),
        )

    def line(self, now_s: float, total_s: float, activity: str = "") -> str:
        """Return the progress line at ``now_s`` seconds into a run of ``total_s``.

        A run that consists of steps ends with its last one, so its ``activity`` replaces the duration.
        """
        counts = self.snapshot(now_s)
        parts = [
            f"{max(0.0, now_s):3.0f} s  {activity}"
            if activity
            else f"{max(0.0, now_s):3.0f}/{total_s:.0f} s",
            f"{counts.accepted} ok/min  {counts.refused} 429/min",
            *([f"{counts.failed} failed/min"] if counts.failed else []),
            f"{_short(counts.tokens)} tok/min",
            f"{counts.in_flight} in flight",
        ]
        if counts.ttft_p50_ms is not None and counts.ttft_p95_ms is not None:
            parts.append(f"TTFT p50 {counts.ttft_p50_ms:.0f} p95 {counts.ttft_p95_ms:.0f} ms")
        return "  ".join(parts)


def _last(values: Iterable[T | None]) -> T | None:
    """Return the last value that is not None."""
    last: T | None = None
    for value in values:
        last = last if value is None else value
    return last


def _short(count: int) -> str:
    return f"{count / 1000:.1f}K" if count >= 10_000 else str(count)
