"""Live counts of the last minute for the progress line and the web tab. Reports never use them."""

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from bltybench.percentiles import percentile
from bltybench.runs.attempt import Attempt, Outcome

T = TypeVar("T")

WINDOW_S = 60.0
MAX_TTFTS = 200
"""Maximum number of TTFTs kept per tick, so that sorting a minute's takes a few milliseconds at most."""
MAX_POINTS = 300
"""Points kept for charts. With one per second, they cover five minutes."""


class Tick(msgspec.Struct, kw_only=True):
    """Counts of one process for about a second, or of all processes for a minute."""

    at_s: float = 0.0
    """End of that time, on the run's axis."""
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    in_flight: int = 0
    ttft_ms: list[float] = []
    """The first MAX_TTFTS values of each second."""
    retry_after_s: float | None = None
    """Last value reported in that time, as for the two below."""
    remaining_requests: int | None = None
    remaining_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens of both directions."""
        return self.input_tokens + self.output_tokens

    def add(self, attempt: Attempt, refused: bool, ttft_ms: float | None) -> None:
        """Count an attempt, and remember what its response reported about the server's limits."""
        if attempt.outcome is Outcome.OK:
            self.accepted += 1
            self.input_tokens += attempt.prompt_tokens or 0
            self.output_tokens += attempt.completion_tokens or 0
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


class Point(msgspec.Struct, kw_only=True):
    """A point of the charts: the counts of the minute up to ``at_s`` on the run's axis."""

    at_s: float
    accepted: int
    refused: int
    failed: int
    tokens: int
    input_tokens: int
    output_tokens: int
    in_flight: int
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None


class Live:
    """The ticks of the last minute of all processes."""

    def __init__(self) -> None:
        self.activity = ""
        """Current step of a run that consists of steps."""
        self.points: deque[Point] = deque(maxlen=MAX_POINTS)
        """Former points of the charts, if something keeps them."""
        self._ticks: deque[Tick] = deque()
        self._in_flight: dict[str, int] = {}

    def show(self, activity: str) -> None:
        """Show a step of the run from now on."""
        self.activity = activity

    def add(self, worker: str, tick: Tick) -> None:
        """Add a tick of ``worker``."""
        self._ticks.append(tick)
        self._in_flight[worker] = tick.in_flight

    def snapshot(self, now_s: float) -> Tick:
        """Return the counts of the minute up to ``now_s`` on the run's axis. Its TTFTs are sorted."""
        # Ticks of several processes arrive almost in order, so an outdated one can stay for a second.
        while self._ticks and self._ticks[0].at_s <= now_s - WINDOW_S:
            self._ticks.popleft()
        ticks = self._ticks
        return Tick(
            at_s=now_s,
            accepted=sum(tick.accepted for tick in ticks),
            refused=sum(tick.refused for tick in ticks),
            failed=sum(tick.failed for tick in ticks),
            input_tokens=sum(tick.input_tokens for tick in ticks),
            output_tokens=sum(tick.output_tokens for tick in ticks),
            in_flight=sum(self._in_flight.values()),
            ttft_ms=sorted(ttft_ms for tick in ticks for ttft_ms in tick.ttft_ms),
            retry_after_s=_last(tick.retry_after_s for tick in ticks),
            remaining_requests=_last(tick.remaining_requests for tick in ticks),
            remaining_tokens=_last(tick.remaining_tokens for tick in ticks),
        )

    def point(self, now_s: float) -> Point:
        """Return the point of the charts at ``now_s``."""
        counts = self.snapshot(now_s)
        return Point(
            at_s=now_s,
            accepted=counts.accepted,
            refused=counts.refused,
            failed=counts.failed,
            tokens=counts.tokens,
            input_tokens=counts.input_tokens,
            output_tokens=counts.output_tokens,
            in_flight=counts.in_flight,
            ttft_p50_ms=percentile(counts.ttft_ms, 0.5),
            ttft_p95_ms=percentile(counts.ttft_ms, 0.95),
        )

    def line(self, now_s: float, total_s: float | None) -> str:
        """Return the progress line at ``now_s`` seconds into a run of ``total_s``, or without a time limit.

        A run that consists of steps ends with its last one, so its activity replaces the duration.
        """
        counts, activity = self.snapshot(now_s), self.activity
        elapsed = f"{max(0.0, now_s):3.0f}"
        if total_s is not None and not activity:
            elapsed += f"/{total_s:.0f}"
        tokens = f"{counts.tokens / 1000:.1f}K" if counts.tokens >= 10_000 else str(counts.tokens)
        failed = f" {counts.failed} failed," if counts.failed else ""
        parts = [
            f"{elapsed} s  {activity}" if activity else f"{elapsed} s",
            f"last {min(WINDOW_S, max(0.0, now_s)):.0f} s: {counts.accepted} ok, {counts.refused} refused,"
            f"{failed} {tokens} tokens",
            f"{counts.in_flight} in flight",
        ]
        if counts.ttft_ms:
            p50_ms, p95_ms = percentile(counts.ttft_ms, 0.5), percentile(counts.ttft_ms, 0.95)
            parts.append(f"TTFT p50 {p50_ms:.0f} p95 {p95_ms:.0f} ms")
        return "  ".join(parts)


def _last(values: Iterable[T | None]) -> T | None:
    """Return the last value that is not None."""
    return next((value for value in reversed([*values]) if value is not None), None)
