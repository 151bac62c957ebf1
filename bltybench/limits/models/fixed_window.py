"""Fixed window: a counter that is reset at the start of every window."""

import math

from bltybench.limits.models.windows import Windowed


class FixedWindow(Windowed):
    """At most ``limit`` in each window [phase + k·W, phase + (k+1)·W).

    k = floor((t − phase) / W). When k changes, used ← 0. Accept iff used + cost ≤ limit, then used += cost.
    With ``phase_s`` 0 the windows are aligned to the axis: to the minutes of Unix time if W is 60 s. Two full
    windows can meet at an edge, so any span of one period can contain up to 2·limit.
    Source: Redis documentation, INCR, "Pattern: Rate limiter 1".
    """

    _used = 0.0
    _end_s = -math.inf
    """End of the current window."""

    def take(self, t_s: float, cost: float = 1.0) -> bool:
        """Accept and charge, or refuse. Simulations need this to be fast."""
        if (
            not (self._last_s <= t_s < self._end_s and self._used > 0 <= cost < math.inf)
            or self.count_refused
        ):
            return super().take(t_s, cost)
        self._last_s = t_s
        if self._used + cost > self.limit:
            return False
        self._used += cost
        return True

    def wait_s(self, t_s: float, cost: float) -> float:
        """Return the wait of a refused request, in seconds. Simulations need this to be fast."""
        wait_s = self._end_s - t_s
        return wait_s if cost <= self.limit and t_s + wait_s >= self._end_s else super().wait_s(t_s, cost)

    def _advance(self, t_s: float) -> None:
        if t_s >= self._end_s:
            self._begin(self.window_of(t_s))

    def _begin(self, window: float) -> None:
        self._window, self._end_s, self._used = window, self._edge(window + 1), 0.0

    def _fits(self, t_s: float, cost: float) -> bool:
        used = self._used if t_s < self._end_s else 0.0
        return used + cost <= self.limit

    def _free_at(self, t_s: float, cost: float) -> float:
        return self._end_s if cost <= self.limit else math.inf

    def _charge(self, t_s: float, cost: float) -> None:
        self._used += cost

    def _refund(self, charged_s: float, cost: float) -> None:
        if self.window_of(charged_s) == self._window:
            self._used = max(0.0, self._used - cost)

    def remaining(self, t_s: float) -> float:
        """Return the cost that still fits in the current window."""
        return max(0.0, self.limit - self._used)


class FirstHitWindow(FixedWindow):
    """A fixed window that starts at the first request after the previous window.

    phase ← t if the current window counts nothing yet, otherwise like FixedWindow. Counters that expire work
    this way; it is the most common fixed window in libraries.
    Source: Redis documentation, INCR, "Pattern: Rate limiter 2"; express-rate-limit's memory store.

    With ``spread``, accepted requests count on arrival, but all except the first of a window are delayed. Let
    n be the number accepted in the window, with this one, E its end, and m = W / limit. The delay is
    d = (E − t) / (limit − n + 2) if d ≥ m, else n·m.
    Source: rate-limiter-flexible, ``execEvenly`` (RateLimiterMemory.consume).
    """

    def __init__(
        self, limit: int, period_s: float, *, spread: bool = False, count_refused: bool = False
    ) -> None:
        super().__init__(limit, period_s, count_refused=count_refused)
        self.spread = spread
        self._first_cost = 0.0

    def _charge(self, t_s: float, cost: float) -> None:
        if self._used == 0 and cost > 0:
            self.phase_s = t_s
            self._begin(self.window_of(t_s))
            self._first_cost = cost
        super()._charge(t_s, cost)

    def delay_s(self, t_s: float) -> float:
        """Return the seconds for which a request that was charged at ``t_s`` is delayed."""
        if not self.spread or self._used <= self._first_cost:
            return 0.0
        shortest_s = self.period_s / self.limit
        delay_s = (self._end_s - t_s) / max(2.0, self.limit - self._used + 2)
        return delay_s if delay_s >= shortest_s else self._used * shortest_s

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the window ends, or a whole period if none has started."""
        return super().reset_s(t_s) if self._used else self.period_s
