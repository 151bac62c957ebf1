"""Token buckets: a steady refill up to a burst, with fractions of tokens or without."""

import math

from bltybench.limits.models.bucket import Bucket


class TokenBucket(Bucket):
    """The generic cell rate algorithm (GCRA) as a bucket of fractional tokens.

    It refills r = limit/W tokens per second up to ``burst``; a request takes its cost or is refused.
    level(t) = min(burst, level(t₀) + (t − t₀)·r), where t₀ is the last charge. Accept iff cost ≤ level(t),
    then level ← level(t) − cost. Any span of s seconds contains at most burst + s·r. GCRA decides the
    same: its theoretical arrival time is t + (burst − level)/r. The state is a level because sums of
    cost/r would lose the last request of a full burst to rounding.
    Source: ITU-T I.371, annex A (GCRA, and the equivalent continuous-state leaky bucket).
    """

    def __init__(self, limit: int, period_s: float, burst: int | None = None) -> None:
        self.burst = limit if burst is None else burst
        if self.burst < 1:
            raise ValueError(f"burst must be 1 or more: {burst}")
        super().__init__(limit, period_s, self.burst)
        self._rate = limit / period_s
        self._charged_s: float | None = None

    def take(self, t_s: float, cost: float = 1.0) -> bool:
        """Accept and charge, or refuse. Simulations need this to be fast."""
        if not (self._last_s <= t_s < math.inf and 0 < cost < math.inf):
            return super().take(t_s, cost)
        self._last_s = t_s
        level = self._level_at(t_s)
        if cost > level:
            return False
        self._level, self._charged_s = level - cost, t_s
        return True

    def _level_at(self, t_s: float) -> float:
        if self._charged_s is None:
            return self._level
        level = self._level + (t_s - self._charged_s) * self._rate
        return level if level < self.burst else float(self.burst)

    def _fits(self, t_s: float, cost: float) -> bool:
        return cost <= self._level_at(t_s)

    def _free_at(self, t_s: float, cost: float) -> float:
        return t_s + (cost - self._level_at(t_s)) / self._rate if cost <= self.burst else math.inf

    def _charge(self, t_s: float, cost: float) -> None:
        self._level = self._level_at(t_s) - cost
        self._charged_s = t_s

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the bucket is full."""
        return (self.burst - self._level_at(t_s)) / self._rate


class WholeTokenBucket(TokenBucket):
    """A token bucket that stores whole tokens, and loses a partly refilled one with each acceptance.

    level(t) = min(burst, level(t₀) + floor((t − t₀)·r)), where t₀ is the last charge. Accept iff
    cost ≤ level(t), then level ← level(t) − cost and t₀ ← t. A client that sends more often than every 1/r
    gets less than the rate: a request every 1.9/r takes as much as one every 1/r.
    Source: Varnish vmod_vsthrottle, calc_tokens.
    """

    def _level_at(self, t_s: float) -> float:
        if self._charged_s is None:
            return self._level
        level = self._level + math.floor((t_s - self._charged_s) * self._rate)
        return level if level < self.burst else float(self.burst)

    def _charge(self, t_s: float, cost: float) -> None:
        # What costs nothing takes no token, and so does not restart the refill.
        if cost > 0:
            super()._charge(t_s, cost)

    def _free_at(self, t_s: float, cost: float) -> float:
        return self._gained_at(cost) if cost <= self.burst else math.inf

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the bucket is full."""
        return max(0.0, self._gained_at(self.burst) - t_s)

    def _gained_at(self, level: float) -> float:
        """Return when the bucket holds ``level``, if nothing is sent before."""
        charged_s = 0.0 if self._charged_s is None else self._charged_s
        return charged_s + math.ceil(max(0.0, level - self._level)) / self._rate
