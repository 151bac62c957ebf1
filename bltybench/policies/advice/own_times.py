"""Limiters that clients keep for themselves: calls at a distance from each other, and turns by the clock."""

import math
from abc import abstractmethod

from bltybench.limits.models import Model

TURN_S = 0.05
"""Length of a turn after its first request, in seconds."""


class OwnTimes(Model):
    """Base class of limiters with a time for the next request, whatever it costs."""

    counts_refused = False

    @abstractmethod
    def _next_s(self, t_s: float) -> float:
        """Return the time of the next request."""

    def _fits(self, t_s: float, cost: float) -> bool:
        del cost
        return t_s >= self._next_s(self._last_s)

    def _free_at(self, t_s: float, cost: float) -> float:
        del cost
        return self._next_s(t_s)

    def _refund(self, charged_s: float, cost: float) -> None:
        """Leave the time of the next request as it is."""

    def remaining(self, t_s: float) -> float:
        """Return the limit if a request can be sent now, else 0."""
        return float(self.limit if self._fits(t_s, 1.0) else 0)

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the next request can be sent."""
        return max(0.0, self._next_s(t_s) - t_s)


class Spaced(OwnTimes):
    """A distance after each call that is proportional to its cost, so that they cost ``limit`` per period."""

    _free_s = -math.inf

    def _next_s(self, t_s: float) -> float:
        return self._free_s

    def _charge(self, t_s: float, cost: float) -> None:
        self._free_s = max(t_s, self._free_s) + cost * self.period_s / self.limit


class Turns(OwnTimes):
    """Some requests at each of a client's own times, phase + k·period. A time that was not used is lost."""

    def __init__(self, amount: int, period_s: float, phase_s: float) -> None:
        super().__init__(amount, period_s)
        self._phase_s = phase_s
        self._due_s: float | None = None
        self._left, self._until_s = amount, math.inf

    def _next_s(self, t_s: float) -> float:
        """Return the time of the next request, which stays the same until one is sent."""
        if self._due_s is None or t_s > self._until_s:
            turn = math.floor((t_s - self._phase_s) / self.period_s) + 1
            self._due_s = turn * self.period_s + self._phase_s
            self._left, self._until_s = self.limit, math.inf
        return self._due_s

    def _charge(self, t_s: float, cost: float) -> None:
        del cost
        self._left -= 1
        self._until_s = min(self._until_s, t_s + TURN_S)
        if self._left == 0:
            self._due_s = None
