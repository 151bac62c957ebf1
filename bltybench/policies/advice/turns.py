"""Clients that take turns by the clock."""

import math

from bltybench.limits.models import Model


class Turns(Model):
    """One request at each of a client's own times, phase + k·period. A time that was not used is lost."""

    counts_refused = False

    def __init__(self, period_s: float, phase_s: float) -> None:
        super().__init__(1, period_s)
        self._phase_s = phase_s
        self._due_s: float | None = None

    def _due(self, t_s: float) -> float:
        """Return the client's time for the next request: it stays the same until one is sent."""
        if self._due_s is None:
            turn = math.floor((t_s - self._phase_s) / self.period_s) + 1
            self._due_s = turn * self.period_s + self._phase_s
        return self._due_s

    def _fits(self, t_s: float, cost: float) -> bool:
        del cost
        return t_s >= self._due(self._last_s)

    def _free_at(self, t_s: float, cost: float) -> float:
        del cost
        return self._due(t_s)

    def _charge(self, t_s: float, cost: float) -> None:
        del t_s, cost
        self._due_s = None

    def _refund(self, charged_s: float, cost: float) -> None:
        """Leave the time lost."""

    def remaining(self, t_s: float) -> float:
        """Return 1 at a time of the client, else 0."""
        return float(self._fits(t_s, 1.0))

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the next time of the client."""
        return max(0.0, self._due(t_s) - t_s)
