"""Sliding log: a list of the accepted requests of the last period. Exact, but takes the most memory."""

import math
from collections import deque
from dataclasses import dataclass

from bltybench.limits.models.base import Model


@dataclass(slots=True)
class _Entry:
    at_s: float
    cost: float


class SlidingLog(Model):
    """At most ``limit`` in every span [t, t + W).

    An entry made at t_i counts while t < t_i + W. Accept iff the sum of the counting costs + cost ≤ limit,
    then append (t, cost). With ``count_refused``, refused requests are appended too.
    Source: Redis-based "rolling rate limiter" (a sorted set of timestamps), ClassDojo Engineering, 2015.
    """

    def __init__(self, limit: int, period_s: float, *, count_refused: bool = False) -> None:
        super().__init__(limit, period_s, count_refused=count_refused)
        self._log: deque[_Entry] = deque()
        self._total = 0.0
        """Sum of the log, exact as long as all costs are whole."""
        self._whole = True

    def take(self, t_s: float, cost: float = 1.0) -> bool:
        """Accept and charge, or refuse. Simulations need this to be fast."""
        if self.count_refused or not (
            self._whole and self._last_s <= t_s < math.inf and 0 <= cost < math.inf
        ):
            return super().take(t_s, cost)
        self._last_s = t_s
        if self._log and t_s >= self._log[0].at_s + self.period_s:
            self._advance(t_s)
        if self._total + cost > self.limit:
            return False
        self._charge(t_s, cost)
        return True

    def _advance(self, t_s: float) -> None:
        while self._log and t_s >= self._log[0].at_s + self.period_s:
            self._total -= self._log.popleft().cost

    def _used(self, t_s: float) -> float:
        if not self._whole:
            return math.fsum(entry.cost for entry in self._log if t_s < entry.at_s + self.period_s)
        used = self._total
        for entry in self._log:
            if t_s < entry.at_s + self.period_s:
                break
            used -= entry.cost
        return used

    def _fits(self, t_s: float, cost: float) -> bool:
        return self._used(t_s) + cost <= self.limit

    def _free_at(self, t_s: float, cost: float) -> float:
        if cost > self.limit:
            return math.inf
        excess = self._used(t_s) + cost - self.limit
        for entry in self._log:
            excess -= entry.cost
            if excess <= 0:
                return entry.at_s + self.period_s
        # Only rounding of the sum leads here: the log is empty by then.
        return self._log[-1].at_s + self.period_s

    def _charge(self, t_s: float, cost: float) -> None:
        self._log.append(_Entry(t_s, cost))
        self._total += cost
        self._whole = self._whole and cost % 1 == 0

    def _refund(self, charged_s: float, cost: float) -> None:
        for entry in reversed(self._log):
            if entry.at_s == charged_s:
                refunded = min(cost, entry.cost)
                entry.cost -= refunded
                cost -= refunded
                self._total -= refunded
                self._whole = self._whole and refunded % 1 == 0
            if entry.at_s < charged_s or cost <= 0:
                return

    def remaining(self, t_s: float) -> float:
        """Return the cost that still fits with the entries of the log."""
        return max(0.0, self.limit - self._used(t_s))

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the log is empty; 0 if it is."""
        return self._log[-1].at_s + self.period_s - t_s if self._log else 0.0
