"""Token bucket, written as GCRA: one number of state, the same decisions."""

from __future__ import annotations

import math

from bltybench.limits.base import Model


class TokenBucket(Model):
    """Refills at limit/W a second up to ``burst``; a request takes its cost or is refused.

    T = W / limit; accept iff max(tat, t) + (cost − burst)·T ≤ t, then tat ← max(tat, t) + cost·T, where tat
    is the theoretical arrival time. The bucket's level is burst − max(0, tat − t)/T. Any span of s seconds
    sees at most burst + s/T.
    Source: ITU-T I.371 (generic cell rate algorithm, virtual scheduling).
    """

    def __init__(self, limit: int, period_s: float, burst: int | None = None) -> None:
        super().__init__(limit, period_s)
        self.burst = limit if burst is None else burst
        if self.burst < 1:
            raise ValueError(f"burst must be 1 or more: {burst}")
        self._interval_s = period_s / limit
        self._tat_s = -math.inf

    def _advance(self, t_s: float) -> None:
        """Nothing to forget: an old tat means a full bucket."""

    def _fits(self, t_s: float, cost: float) -> bool:
        if cost > self.burst:
            return False
        return t_s >= self._tat_s + (cost - self.burst) * self._interval_s

    def _free_at(self, t_s: float, cost: float) -> float:
        return self._tat_s + (cost - self.burst) * self._interval_s if cost <= self.burst else math.inf

    def _charge(self, t_s: float, cost: float) -> None:
        self._tat_s = max(self._tat_s, t_s) + cost * self._interval_s

    def _refund(self, charged_s: float, cost: float) -> None:
        # Below the current time is a full bucket, so a late refund cannot overfill it.
        self._tat_s -= cost * self._interval_s

    def remaining(self, t_s: float) -> float:
        """Level of the bucket: a real number, it refills continuously."""
        return max(0.0, self.burst - max(0.0, self._tat_s - t_s) / self._interval_s)

    def reset_s(self, t_s: float) -> float:
        """Seconds until the bucket is full."""
        return max(0.0, self._tat_s - t_s)
