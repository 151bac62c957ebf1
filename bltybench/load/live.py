"""What the last minute looked like, for people who watch. The report never uses these figures."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

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


class Counter:
    """Counts one process's attempts and hands them over as a tick, once a second."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.accepted = self.refused = self.failed = self.tokens = 0
        self._ttft_ms: list[float] = []

    def add_ttft(self, ttft_ms: float) -> None:
        """Note a TTFT; of very many within a second only the first are kept."""
        if len(self._ttft_ms) < TTFT_KEPT:
            self._ttft_ms.append(ttft_ms)

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

    def line(self, now_s: float, total_s: float) -> str:
        """Return the progress line at ``now_s`` seconds into a run of ``total_s``."""
        while self._ticks and self._ticks[0].at_s <= now_s - WINDOW_S:
            self._ticks.popleft()
        per_min = (
            f"{sum(t.accepted for t in self._ticks)} ok/min  {sum(t.refused for t in self._ticks)} 429/min"
        )
        failed = sum(t.failed for t in self._ticks)
        parts = [
            f"{max(0.0, now_s):3.0f}/{total_s:.0f} s",
            per_min,
            *([f"{failed} failed/min"] if failed else []),
            f"{_short(sum(t.tokens for t in self._ticks))} tok/min",
            f"{sum(self._in_flight.values())} in flight",
        ]
        ttft = sorted(ms for tick in self._ticks for ms in tick.ttft_ms)
        if ttft:
            parts.append(f"TTFT p50 {_at(ttft, 0.5):.0f} p95 {_at(ttft, 0.95):.0f} ms")
        return "  ".join(parts)


def _at(ordered: list[float], share: float) -> float:
    """Nearest-rank percentile of a sorted list."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _short(count: int) -> str:
    return f"{count / 1000:.1f}K" if count >= 10_000 else str(count)


def encode_ticks(ticks: list[Tick]) -> list[dict[str, Any]]:
    """Return ticks as plain values that Locust's messages can carry."""
    return [msgspec.to_builtins(tick) for tick in ticks]


def decode_ticks(values: Any) -> list[Tick]:
    """Return ticks from a message. Raises msgspec.ValidationError on anything else."""
    return msgspec.convert(values, list[Tick])
