"""What every limiter model gives back, and the frame that the time-based ones share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class Admission:
    """Result of a limiter model for one request."""

    accepted: bool
    retry_after_s: float | None
    """Refused: the shortest wait after which the same request fits if nobody else sends. Infinite where it
    can never fit; None where it was accepted, or where no clock decides (concurrency)."""
    limit: int
    remaining: float
    """Cost that would still fit at this moment, this request already counted."""
    reset_s: float
    """Seconds until the current window ends, or (models without windows) until the full limit is free."""
    delay_s: float = 0.0
    """Accepted, but served only after so many seconds (a queue)."""


class Limiter(Protocol):
    """Anything that decides on a request by the time it comes and what it costs."""

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Accept and charge, or refuse."""
        ...


class Model(ABC):
    """A time-based limiter. A family gives the five hooks below; deciding and checking is done here.

    Times are seconds on any axis that does not go back: an earlier time than the last one is a ValueError,
    because clamping it would hide a mistake of the caller. Refused requests are charged only where the model
    is made with ``count_refused``; a client that hammers such a limiter keeps itself out.
    """

    counts_refused: ClassVar[bool] = True
    """Whether limiters of this family are seen that count what they refuse."""

    def __init__(self, limit: int, period_s: float, *, count_refused: bool = False) -> None:
        if limit < 1:
            raise ValueError(f"limit must be 1 or more: {limit}")
        if not (period_s > 0 and math.isfinite(period_s)):
            raise ValueError(f"period_s must be positive: {period_s}")
        self.limit = limit
        if count_refused and not self.counts_refused:
            raise ValueError(f"{type(self).__name__} never counts what it refuses")
        self.period_s = period_s
        self.count_refused = count_refused
        self._last_s = -math.inf

    @abstractmethod
    def _advance(self, t_s: float) -> None:
        """Forget what no longer counts at ``t_s``."""

    @abstractmethod
    def _fits(self, t_s: float, cost: float) -> bool:
        """Whether a request fits at ``t_s``. Once it does it must go on to, as long as nobody sends."""

    @abstractmethod
    def _free_at(self, t_s: float, cost: float) -> float:
        """When a request that does not fit now will: within rounding, or infinite."""

    @abstractmethod
    def _charge(self, t_s: float, cost: float) -> None:
        """Count a request."""

    @abstractmethod
    def _refund(self, charged_s: float, cost: float) -> None:
        """Give back cost that was charged at ``charged_s``, where it still counts."""

    def delay_s(self, t_s: float) -> float:
        """Seconds that a request accepted at ``t_s``, and already counted, waits before it is served."""
        del t_s
        return 0.0

    @abstractmethod
    def remaining(self, t_s: float) -> float:
        """Cost that would still fit at ``t_s``."""

    @abstractmethod
    def reset_s(self, t_s: float) -> float:
        """Seconds from ``t_s`` until the window ends, or until the full limit is free."""

    def peek(self, t_s: float, cost: float = 1.0) -> Admission:
        """Decide without charging: ``remaining`` is that before the request."""
        self._to(t_s)
        if not (cost >= 0 and math.isfinite(cost)):
            raise ValueError(f"cost must be 0 or more: {cost}")
        accepted = self._fits(t_s, cost)
        wait_s = None if accepted else self._wait(t_s, cost)
        return Admission(accepted, wait_s, self.limit, self.remaining(t_s), self.reset_s(t_s))

    def charge(self, t_s: float, cost: float = 1.0) -> None:
        """Count a request without asking whether it fits."""
        self._to(t_s)
        self._charge(t_s, cost)

    def refund(self, t_s: float, charged_s: float, cost: float) -> None:
        """At ``t_s``, give back part of what was charged at ``charged_s``; no more than that."""
        self._to(t_s)
        if not cost >= 0:
            raise ValueError(f"a refund must be 0 or more: {cost}")
        self._refund(charged_s, cost)

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Accept and charge, or refuse; a refusal is charged too where the model counts them."""
        accepted = self.peek(t_s, cost).accepted
        if accepted or self.count_refused:
            self._charge(t_s, cost)
        wait_s = None if accepted else self._wait(t_s, cost)
        delay_s = self.delay_s(t_s) if accepted else 0.0
        return Admission(accepted, wait_s, self.limit, self.remaining(t_s), self.reset_s(t_s), delay_s)

    def _to(self, t_s: float) -> None:
        if not (t_s >= self._last_s and math.isfinite(t_s)):
            raise ValueError(f"time must not go back: {t_s} after {self._last_s}")
        self._last_s = t_s
        self._advance(t_s)

    def _wait(self, t_s: float, cost: float) -> float:
        free_at = self._free_at(t_s, cost)
        if math.isinf(free_at):
            return math.inf
        return shortest_wait(t_s, free_at - t_s, lambda at_s: self._fits(at_s, cost))


def shortest_wait(t_s: float, guess_s: float, fits: Callable[[float], bool]) -> float:
    """Return a wait near ``guess_s`` for which ``fits(t_s + wait)`` holds in floating point.

    The algebra gives the wait up to rounding, and a client that waits exactly as told must not be refused
    for one unit in the last place: step up from the guess, in doubling units, until it fits.
    """
    wait_s = max(guess_s, 0.0)
    step_s = math.ulp(max(abs(t_s), abs(t_s + wait_s)))
    while not fits(t_s + wait_s):
        wait_s += step_s
        step_s *= 2
    return wait_s
