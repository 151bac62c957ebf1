"""Fixed window: a counter that starts at zero whenever the window turns."""

from __future__ import annotations

import math

from bltybench.limits.models.windows import Windowed


class FixedWindow(Windowed):
    """At most ``limit`` in each window [phase + k·W, phase + (k+1)·W).

    k = floor((t − phase) / W); used ← 0 when k changes; accept iff used + cost ≤ limit, then used += cost.
    With ``phase_s`` 0 the windows are aligned to the axis: on Unix time and 60 s, to the clock's minutes.
    Two full windows can meet at an edge, so any span of one period may see up to 2·limit.
    Source: Redis documentation, INCR, "Pattern: Rate limiter 1".
    """

    def __init__(
        self, limit: int, period_s: float, phase_s: float = 0.0, *, count_refused: bool = False
    ) -> None:
        super().__init__(limit, period_s, phase_s, count_refused=count_refused)
        self._used = 0.0

    def _advance(self, t_s: float) -> None:
        window = self.window_of(t_s)
        if window != self._window:
            self._window = window
            self._used = 0.0

    def _fits(self, t_s: float, cost: float) -> bool:
        used = self._used if t_s < self._edge(self._window + 1) else 0.0
        return used + cost <= self.limit

    def _free_at(self, t_s: float, cost: float) -> float:
        return self._edge(self._window + 1) if cost <= self.limit else math.inf

    def _charge(self, t_s: float, cost: float) -> None:
        self._used += cost

    def _refund(self, charged_s: float, cost: float) -> None:
        if self.window_of(charged_s) == self._window:
            self._used = max(0.0, self._used - cost)

    def remaining(self, t_s: float) -> float:
        """Cost that would still fit in the current window."""
        return max(0.0, self.limit - self._used)

    def reset_s(self, t_s: float) -> float:
        """Seconds until the window ends."""
        return self._edge(self._window + 1) - t_s


class FirstHitWindow(FixedWindow):
    """A fixed window that begins with the first request after the last one has ended.

    phase ← t when a request comes and nothing counts in its window; from there on as FixedWindow. It is what
    a counter with an expiry does, and the common one in libraries.
    Source: Redis documentation, INCR, "Pattern: Rate limiter 2"; express-rate-limit's memory store.
    """

    def __init__(self, limit: int, period_s: float, *, count_refused: bool = False) -> None:
        super().__init__(limit, period_s, count_refused=count_refused)

    def _charge(self, t_s: float, cost: float) -> None:
        if self._used == 0 and cost > 0:
            self.phase_s = t_s
            self._window = self.window_of(t_s)
        super()._charge(t_s, cost)

    def reset_s(self, t_s: float) -> float:
        """Seconds until the window ends; a whole period where none has begun."""
        return super().reset_s(t_s) if self._used else self.period_s
