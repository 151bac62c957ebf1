"""Interval refill: a bucket that a timer refills, several tokens per tick."""

import math

from bltybench.limits.models.bucket import Bucket
from bltybench.limits.models.windows import edge_s, index_at

ROUNDING = 1e-9
"""Tolerance, in tokens: with fractional tokens per tick, four ticks of 2.5 must make ten."""


class IntervalRefill(Bucket):
    """Refills limit/n tokens at each of n ticks per period, up to the limit; a request takes its cost.

    With T = W/n and k(t) = floor((t − phase) / T): level(t) = min(limit, level(t₀) + (k(t) − k(t₀))·limit/n),
    where t₀ is the last charge. Accept iff cost ≤ level(t). With n = 1 it is a fixed window that keeps unused
    tokens, up to the limit.
    Source: Bucket4j reference, "Refill intervally"; servers that enforce 60 per minute as 10 per 10 s.
    """

    def __init__(self, limit: int, period_s: float, ticks: int = 4, phase_s: float = 0.0) -> None:
        super().__init__(limit, period_s, limit)
        if ticks < 1:
            raise ValueError(f"ticks must be 1 or more: {ticks}")
        self.ticks = ticks
        self.phase_s = phase_s
        self._tick_s = period_s / ticks
        self._tokens_per_tick = limit / ticks
        self._charged_tick: float | None = None
        # The tick that was last needed, and its time until the next one. Simulations need it often.
        self._known_tick, self._known_from_s, self._known_until_s = -math.inf, math.inf, -math.inf

    def take(self, t_s: float, cost: float = 1.0) -> bool:
        """Accept and charge, or refuse. Simulations need this to be fast."""
        if not (self._last_s <= t_s < math.inf and 0 <= cost < math.inf):
            return super().take(t_s, cost)
        self._last_s = t_s
        level = self._level_at(t_s)
        if cost > level + ROUNDING:
            return False
        self._level, self._charged_tick = level - cost, self._tick_at(t_s)
        return True

    def _tick_at(self, t_s: float) -> float:
        if not self._known_from_s <= t_s < self._known_until_s:
            tick = self._known_tick = index_at(t_s, self._tick_s, self.phase_s)
            self._known_from_s, self._known_until_s = (
                edge_s(number, self._tick_s, self.phase_s) for number in (tick, tick + 1)
            )
        return self._known_tick

    def _level_at(self, t_s: float) -> float:
        if self._charged_tick is None:
            return self._level
        refilled = (self._tick_at(t_s) - self._charged_tick) * self._tokens_per_tick
        level = self._level + refilled
        return level if level < self.limit else float(self.limit)

    def _fits(self, t_s: float, cost: float) -> bool:
        return cost <= self._level_at(t_s) + ROUNDING

    def _free_at(self, t_s: float, cost: float) -> float:
        if cost > self.limit:
            return math.inf
        ticks = math.ceil((cost - self._level_at(t_s) - ROUNDING) / self._tokens_per_tick)
        return edge_s(self._tick_at(t_s) + ticks, self._tick_s, self.phase_s)

    def _charge(self, t_s: float, cost: float) -> None:
        self._level = self._level_at(t_s) - cost
        self._charged_tick = self._tick_at(t_s)

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the bucket is full; 0 if it is."""
        ticks = math.ceil((self.limit - self._level_at(t_s)) / self._tokens_per_tick - ROUNDING)
        full_s = edge_s(self._tick_at(t_s) + ticks, self._tick_s, self.phase_s)
        return full_s - t_s if ticks > 0 else 0.0
