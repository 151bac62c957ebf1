"""Sliding counter: the weighted counters of two windows, which approximate a sliding log."""

import math

from bltybench.limits.models.windows import Windowed


class SlidingCounter(Windowed):
    """A counter that adds the previous window, weighted by its overlap with the last period.

    With k = floor((t − phase) / W) and e = phase + (k+1)·W: x = previous·(e − t)/W + current. Accept iff
    floor(x) + cost ≤ limit, then current += cost. At the end of a window previous ← current, or 0 after a
    whole idle window. The weight assumes an evenly filled previous window, so a span of one period can
    contain more than ``limit``; a window [e − W, e) never does.
    Source: Cloudflare blog, "How we built rate limiting capable of scaling to millions of domains", 2017;
    the floor as in common Redis scripts.
    """

    _current = 0.0
    _previous = 0.0
    _end_s = -math.inf
    """End of the current window."""

    def take(self, t_s: float, cost: float = 1.0) -> bool:
        """Accept and charge, or refuse. Simulations need this to be fast."""
        if self.count_refused or not (self._last_s <= t_s < self._end_s and 0 <= cost < math.inf):
            return super().take(t_s, cost)
        self._last_s = t_s
        weight = (self._end_s - t_s) / self.period_s
        used = math.floor(self._previous * (weight if weight < 1 else 1.0) + self._current)
        if used + cost > self.limit:
            return False
        self._charge(t_s, cost)
        return True

    def _counters(self, window: float) -> tuple[float, float]:
        """Return (previous, current) as they will be in ``window`` if nothing is sent."""
        if window == self._window:
            return self._previous, self._current
        if window == self._window + 1:
            return self._current, 0.0
        return 0.0, 0.0

    def _advance(self, t_s: float) -> None:
        if t_s >= self._end_s:
            window = self.window_of(t_s)
            self._previous, self._current = self._counters(window)
            self._window, self._end_s = window, self._edge(window + 1)

    def _estimate(self, t_s: float) -> float:
        window = self._window if t_s < self._end_s else self.window_of(t_s)
        previous, current = self._counters(window)
        weight = (self._edge(window + 1) - t_s) / self.period_s
        return math.floor(previous * min(1.0, max(0.0, weight)) + current)

    def _fits(self, t_s: float, cost: float) -> bool:
        return self._estimate(t_s) + cost <= self.limit

    def _free_at(self, t_s: float, cost: float) -> float:
        if cost > self.limit:
            return math.inf
        # floor(x) + cost <= limit if and only if x < bound.
        bound = math.floor(self.limit - cost) + 1
        for window in (self._window, self._window + 1, self._window + 2):
            previous, current = self._counters(window)
            if current < bound:
                weight = min(1.0, (bound - current) / previous) if previous else 1.0
                return max(t_s, self._edge(window + 1 - weight))
        raise AssertionError("any cost within the limit fits after an idle window")

    def _charge(self, t_s: float, cost: float) -> None:
        self._current += cost

    def _refund(self, charged_s: float, cost: float) -> None:
        window = self.window_of(charged_s)
        if window == self._window:
            self._current = max(0.0, self._current - cost)
        elif window == self._window - 1:
            self._previous = max(0.0, self._previous - cost)

    def remaining(self, t_s: float) -> float:
        """Return the cost that still fits with the weighted estimate."""
        return max(0.0, self.limit - self._estimate(t_s))


class FirstHitCounter(SlidingCounter):
    """A sliding counter whose windows start at the first request after an idle time.

    phase ← t if both counters are 0, otherwise like SlidingCounter.
    Source: the Redis storage of the Python package ``limits``, whose keys expire with their windows.
    """

    def __init__(self, limit: int, period_s: float, *, count_refused: bool = False) -> None:
        super().__init__(limit, period_s, count_refused=count_refused)

    def _charge(self, t_s: float, cost: float) -> None:
        if self._current == 0 and self._previous == 0 and cost > 0:
            self.phase_s = t_s
            self._window = self.window_of(t_s)
            self._end_s = self._edge(self._window + 1)
        super()._charge(t_s, cost)
