"""Token bucket: a steady refill up to a burst. The generic cell rate algorithm in its readable form."""

from __future__ import annotations

import math

from bltybench.limits.models.base import Model


class TokenBucket(Model):
    """Refills at r = limit/W a second up to ``burst``; a request takes its cost or is refused.

    level(t) = min(burst, level(t₀) + (t − t₀)·r), where t₀ is the last charge; accept iff cost ≤ level(t),
    then level ← level(t) − cost. Any span of s seconds sees at most burst + s·r. GCRA decides the same: its
    theoretical arrival time is t + (burst − level)/r. The state is a level, because sums of cost/r would
    lose the last request of a full burst to rounding.
    Source: ITU-T I.371, annex A (GCRA, and its equal, the continuous-state leaky bucket).
    """

    counts_refused = False

    def __init__(self, limit: int, period_s: float, burst: int | None = None) -> None:
        super().__init__(limit, period_s)
        self.burst = limit if burst is None else burst
        if self.burst < 1:
            raise ValueError(f"burst must be 1 or more: {burst}")
        self._rate = limit / period_s
        self._level = float(self.burst)
        self._charged_s: float | None = None

    def _level_at(self, t_s: float) -> float:
        if self._charged_s is None:
            return self._level
        return min(float(self.burst), self._level + (t_s - self._charged_s) * self._rate)

    def _advance(self, t_s: float) -> None:
        """Nothing to forget: the level follows from the last charge."""

    def _fits(self, t_s: float, cost: float) -> bool:
        return cost <= self._level_at(t_s)

    def _free_at(self, t_s: float, cost: float) -> float:
        return t_s + (cost - self._level_at(t_s)) / self._rate if cost <= self.burst else math.inf

    def _charge(self, t_s: float, cost: float) -> None:
        self._level = self._level_at(t_s) - cost
        self._charged_s = t_s

    def _refund(self, charged_s: float, cost: float) -> None:
        # A bucket that has filled up since cannot be overfilled: level_at cuts it at the burst.
        self._level += cost

    def remaining(self, t_s: float) -> float:
        """Level of the bucket: a real number, it refills continuously."""
        return max(0.0, self._level_at(t_s))

    def reset_s(self, t_s: float) -> float:
        """Seconds until the bucket is full."""
        return (self.burst - self._level_at(t_s)) / self._rate
