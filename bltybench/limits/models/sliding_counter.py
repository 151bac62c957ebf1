"""Weighted sliding counter: two counters that imitate a log."""

from __future__ import annotations

import math

from bltybench.limits.models.windows import Windowed


class SlidingCounter(Windowed):
    """Weighs the previous window by the share of it that a sliding window would still see.

    With k = floor((t − phase) / W) and e = phase + (k+1)·W: x = previous·(e − t)/W + current; accept iff
    floor(x) + cost ≤ limit, then current += cost. When the window turns, previous ← current (0 after a whole
    idle window). It assumes that the previous window was filled evenly, so a span of one period may see more
    than ``limit``; an aligned window never does.
    Source: Cloudflare blog, "How we built rate limiting capable of scaling to millions of domains", 2017;
    the floor as in common Redis scripts.
    """

    def __init__(
        self, limit: int, period_s: float, phase_s: float = 0.0, *, count_refused: bool = False
    ) -> None:
        super().__init__(limit, period_s, phase_s, count_refused=count_refused)
        self._current = 0.0
        self._previous = 0.0

    def _counters(self, window: float) -> tuple[float, float]:
        """Return (previous, current) as they will stand in ``window`` if nobody sends."""
        if window == self._window:
            return self._previous, self._current
        if window == self._window + 1:
            return self._current, 0.0
        return 0.0, 0.0

    def _advance(self, t_s: float) -> None:
        window = self.window_of(t_s)
        self._previous, self._current = self._counters(window)
        self._window = window

    def _estimate(self, t_s: float) -> float:
        window = self.window_of(t_s)
        previous, current = self._counters(window)
        share = (self._edge(window + 1) - t_s) / self.period_s
        return math.floor(previous * min(1.0, max(0.0, share)) + current)

    def _fits(self, t_s: float, cost: float) -> bool:
        return self._estimate(t_s) + cost <= self.limit

    def _free_at(self, t_s: float, cost: float) -> float:
        if cost > self.limit:
            return math.inf
        # floor(x) + cost <= limit means x < room, with:
        room = math.floor(self.limit - cost) + 1
        for window in (self._window, self._window + 1, self._window + 2):
            previous, current = self._counters(window)
            if current < room:
                share = min(1.0, (room - current) / previous) if previous else 1.0
                return max(t_s, self._edge(window + 1 - share))
        raise AssertionError("an idle window leaves room for any cost within the limit")

    def _charge(self, t_s: float, cost: float) -> None:
        self._current += cost

    def _refund(self, charged_s: float, cost: float) -> None:
        window = self.window_of(charged_s)
        if window == self._window:
            self._current = max(0.0, self._current - cost)
        elif window == self._window - 1:
            self._previous = max(0.0, self._previous - cost)

    def remaining(self, t_s: float) -> float:
        """Cost that would still fit beside the weighted estimate."""
        return max(0.0, self.limit - self._estimate(t_s))

    def reset_s(self, t_s: float) -> float:
        """Seconds until the current window ends."""
        return self._edge(self._window + 1) - t_s


class FirstHitCounter(SlidingCounter):
    """A weighted counter whose windows follow each other from the first request after an idle time.

    phase ← t when a request comes and neither counter holds anything; from there on as SlidingCounter.
    Source: the Redis storage of the Python package ``limits``, whose keys live as long as their windows.
    """

    def __init__(self, limit: int, period_s: float, *, count_refused: bool = False) -> None:
        super().__init__(limit, period_s, count_refused=count_refused)

    def _charge(self, t_s: float, cost: float) -> None:
        if self._current == 0 and self._previous == 0 and cost > 0:
            self.phase_s = t_s
            self._window = self.window_of(t_s)
        super()._charge(t_s, cost)
