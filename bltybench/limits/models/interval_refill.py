"""Interval refill: a bucket that a timer fills in lumps."""

from __future__ import annotations

import math

from bltybench.limits.models.base import Model


class IntervalRefill(Model):
    """Gives back limit/n at each tick, n ticks a period, up to the limit; a request takes its cost.

    With T = W/n and k(t) = floor((t − phase) / T): level(t) = min(limit, level(t₀) + (k(t) − k(t₀))·limit/n),
    where t₀ is the last charge; accept iff cost ≤ level(t). With n = 1 it is a fixed window that keeps
    what was not used, cut at the limit.
    Source: Bucket4j reference, "Refill intervally"; servers that check 60 a minute as 10 in each 10 s.
    """

    counts_refused = False

    def __init__(self, limit: int, period_s: float, ticks: int = 4, phase_s: float = 0.0) -> None:
        super().__init__(limit, period_s)
        if ticks < 1:
            raise ValueError(f"ticks must be 1 or more: {ticks}")
        self.ticks = ticks
        self.phase_s = phase_s
        self._tick_s = period_s / ticks
        self._lump = limit / ticks
        self._level = float(limit)
        self._tick: float | None = None

    def _tick_of(self, t_s: float) -> float:
        tick = float(math.floor((t_s - self.phase_s) / self._tick_s))
        # The division may round over an edge; the edges themselves decide.
        if t_s >= self._edge(tick + 1):
            return tick + 1
        if t_s < self._edge(tick):
            return tick - 1
        return tick

    def _edge(self, tick: float) -> float:
        return self.phase_s + tick * self._tick_s

    def _level_at(self, t_s: float) -> float:
        if self._tick is None:
            return self._level
        return min(float(self.limit), self._level + (self._tick_of(t_s) - self._tick) * self._lump)

    def _advance(self, t_s: float) -> None:
        """Nothing to forget: the level follows from the last charge."""

    def _fits(self, t_s: float, cost: float) -> bool:
        # Lumps may be fractions: four of 2.5 must make ten.
        return cost <= self._level_at(t_s) + 1e-9

    def _free_at(self, t_s: float, cost: float) -> float:
        if cost > self.limit:
            return math.inf
        lumps = math.ceil((cost - self._level_at(t_s) - 1e-9) / self._lump)
        return self._edge(self._tick_of(t_s) + lumps)

    def _charge(self, t_s: float, cost: float) -> None:
        self._level = self._level_at(t_s) - cost
        self._tick = self._tick_of(t_s)

    def _refund(self, charged_s: float, cost: float) -> None:
        # A bucket that has filled up since cannot be overfilled: level_at cuts it at the limit.
        self._level += cost

    def remaining(self, t_s: float) -> float:
        """Level of the bucket."""
        return max(0.0, self._level_at(t_s))

    def reset_s(self, t_s: float) -> float:
        """Seconds until the bucket is full; 0 if it is."""
        missing = math.ceil((self.limit - self._level_at(t_s)) / self._lump - 1e-9)
        return self._edge(self._tick_of(t_s) + missing) - t_s if missing > 0 else 0.0
