"""The result of a limiter model, and the base class of the time-based models."""

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
    """Shortest wait, in seconds, after which a refused request fits if nothing else is sent. Infinite if it
    never fits. None if it was accepted, or if the wait does not depend on the clock (concurrency)."""
    limit: int
    remaining: float
    """Cost that still fits, after this request."""
    reset_s: float
    """Seconds until the window ends or, in models without windows, until the full limit is available."""
    delay_s: float = 0.0
    """Seconds for which an accepted request is queued."""


class Limiter(Protocol):
    """Anything that decides on a request by its time and cost."""

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Accept and charge, or refuse."""
        ...


class Model(ABC):
    """A time-based limiter. Each family implements the hooks below.

    Times are seconds on any axis and must not decrease: an earlier time raises ValueError, because clamping
    it would hide an error of the caller. Refused requests are charged only with ``count_refused``. A client
    that keeps retrying then keeps being refused.
    """

    counts_refused: ClassVar[bool] = True
    """Whether limiters of this family can count refused requests."""

    def __init__(self, limit: int, period_s: float, *, count_refused: bool = False) -> None:
        if limit < 1:
            raise ValueError(f"limit must be 1 or more: {limit}")
        if not (period_s > 0 and math.isfinite(period_s)):
            raise ValueError(f"period_s must be positive: {period_s}")
        if count_refused and not self.counts_refused:
            raise ValueError(f"{type(self).__name__} never counts refused requests")
        self.limit = limit
        self.period_s = period_s
        self.count_refused = count_refused
        self._last_s = -math.inf

    def _advance(self, t_s: float) -> None:
        """Drop the state that no longer counts at ``t_s``."""
        del t_s

    @abstractmethod
    def _fits(self, t_s: float, cost: float) -> bool:
        """Return whether a request fits at ``t_s``. It must then also fit later if nothing is sent."""

    @abstractmethod
    def _free_at(self, t_s: float, cost: float) -> float:
        """Return when a request that does not fit now will fit: exact except for rounding, or infinite."""

    @abstractmethod
    def _charge(self, t_s: float, cost: float) -> None:
        """Count a request."""

    def _refuse(self, t_s: float, cost: float) -> None:
        """Count a request that was refused, by this limit or by another one."""
        if self.count_refused:
            self._charge(t_s, cost)

    @abstractmethod
    def _refund(self, charged_s: float, cost: float) -> None:
        """Refund cost that was charged at ``charged_s``, if it still counts."""

    @abstractmethod
    def remaining(self, t_s: float) -> float:
        """Return the cost that still fits at ``t_s``."""

    @abstractmethod
    def reset_s(self, t_s: float) -> float:
        """Return the seconds from ``t_s`` until the window ends or the full limit is available."""

    def delay_s(self, t_s: float) -> float:
        """Return the seconds for which a request that was charged at ``t_s`` is queued."""
        del t_s
        return 0.0

    def peek(self, t_s: float, cost: float = 1.0) -> Admission:
        """Return the decision without charging; ``remaining`` is the cost that fits before the request."""
        return self._admission(t_s, cost, accepted=self.accepts(t_s, cost))

    def charge(self, t_s: float, cost: float = 1.0) -> None:
        """Count a request, even if it does not fit."""
        self._move_to(t_s)
        self._charge(t_s, cost)

    def refuse(self, t_s: float, cost: float = 1.0) -> None:
        """Count a refused request, if the model counts those."""
        self._move_to(t_s)
        self._refuse(t_s, cost)

    def refund(self, t_s: float, charged_s: float, cost: float) -> None:
        """Refund at ``t_s`` at most the cost that was charged at ``charged_s``."""
        self._move_to(t_s)
        if not cost >= 0:
            raise ValueError(f"a refund must be 0 or more: {cost}")
        self._refund(charged_s, cost)

    def take(self, t_s: float, cost: float = 1.0) -> bool:
        """Accept and charge, or refuse. A refused request is charged too if the model counts refused ones."""
        accepted = self.accepts(t_s, cost)
        (self._charge if accepted else self._refuse)(t_s, cost)
        return accepted

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Return the decision of ``take`` with its reasons."""
        accepted = self.take(t_s, cost)
        return self._admission(t_s, cost, accepted=accepted, delay_s=self.delay_s(t_s) if accepted else 0.0)

    def accepts(self, t_s: float, cost: float) -> bool:
        """Return whether a request fits, without charging."""
        self._move_to(t_s)
        if not 0 <= cost < math.inf:
            raise ValueError(f"cost must be 0 or more: {cost}")
        return self._fits(t_s, cost)

    def _admission(self, t_s: float, cost: float, *, accepted: bool, delay_s: float = 0.0) -> Admission:
        wait_s = None if accepted else self.wait_s(t_s, cost)
        return Admission(accepted, wait_s, self.limit, self.remaining(t_s), self.reset_s(t_s), delay_s)

    def _move_to(self, t_s: float) -> None:
        if not self._last_s <= t_s < math.inf or t_s == -math.inf:
            raise ValueError(f"time must not go back: {t_s} after {self._last_s}")
        self._last_s = t_s
        self._advance(t_s)

    def wait_s(self, t_s: float, cost: float) -> float:
        """Return the wait of a request that was refused at ``t_s``, in seconds; infinite if it never fits."""
        free_at_s = self._free_at(t_s, cost)
        if free_at_s == math.inf:
            return math.inf
        wait_s = max(free_at_s - t_s, 0.0)
        if self._fits(t_s + wait_s, cost):
            return wait_s
        return shortest_wait(t_s, wait_s, lambda at_s: self._fits(at_s, cost))


def shortest_wait(t_s: float, guess_s: float, fits: Callable[[float], bool]) -> float:
    """Return a wait near ``guess_s`` for which ``fits(t_s + wait)`` holds in floating point.

    The algebra is exact except for rounding. A client that waits exactly this long must not be refused
    because of the last bit, so the wait grows from the guess, in doubling steps, until it fits.
    """
    wait_s = max(guess_s, 0.0)
    step_s = math.ulp(max(abs(t_s), abs(t_s + wait_s)))
    while not fits(t_s + wait_s):
        wait_s += step_s
        step_s *= 2
    return wait_s
