"""What a plan of the probe keeps: what it may spend, what it has seen, and what that implies so far."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from bltybench.limits.fit.queueing import FEWEST_HELD, HELD, REGULAR
from bltybench.limits.fit.select import Fit, Verdict, fit
from bltybench.limits.observations.observation import Observation

QUICK_BUDGET = 160


@dataclass(frozen=True, slots=True)
class Burst:
    """Send from ``at_s`` until the first refusal, or ``cap`` times; then once more after ``confirm_s``."""

    at_s: float
    """Unix time; in the past means at once."""
    cap: int
    width: int = 1
    """How many may be in flight at a time."""
    confirm_s: float | None = None
    says: str = ""
    """What it is for, for who watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """What the probe may spend, and what is known beforehand."""

    budget: int = 600
    """Requests."""
    quick: bool = False
    """Limit, period and class of algorithm only: two periods and 160 requests."""
    period_s: float | None = None
    """Documented or announced."""
    limit: int | None = None
    longest_wait_s: float = 300.0
    """How long it waits at most for a refusal to end."""
    rounds: int = 3
    earlier: tuple[Observation, ...] = ()
    """What an interrupted probe of the same limit had seen."""

    @property
    def most(self) -> int:
        """Return the most requests that will be sent."""
        return min(self.budget, QUICK_BUDGET) if self.quick else self.budget


Plan = Generator[Burst, Sequence[Observation], Verdict]


class Planner:
    """The state of one plan."""

    def __init__(self, aims: Aims, now_s: float) -> None:
        self.aims = aims
        self.seen: list[Observation] = list(aims.earlier)
        self.now_s = now_s
        self.left = aims.most
        self.width = 1
        self._known: tuple[int, Verdict] | None = None

    def send(
        self, at_s: float, cap: int, says: str, *, confirm_s: float | None = None
    ) -> Generator[Burst, Sequence[Observation], Sequence[Observation]]:
        """Send a burst within what is left."""
        cap = min(cap, self.left - (confirm_s is not None))
        if cap <= 0:
            return ()
        got = yield Burst(max(at_s, self.now_s), cap, self.width, confirm_s, says)
        self.seen += got
        self.left -= len(got)
        self.now_s = max([self.now_s, *(sight.answered_s or sight.decided_s for sight in got)])
        return got

    def waits(self) -> bool:
        """Return whether nothing was refused and the last answers came as if each had waited its turn.

        All of them took much longer than the quickest, and about as long as each other: a busy server's vary.
        Where the very first was lost, none may have been quick, and a silence will tell.
        """
        if any(sight.accepted is False for sight in self.seen):
            return False
        took = [sight.answered_s - sight.sent_s for sight in self.seen if sight.accepted and sight.answered_s]
        if len(took) <= FEWEST_HELD:
            return False
        low, middle, high = np.percentile(took[-FEWEST_HELD:], [25, 50, 75])
        slow = self.seen[0].accepted is None or middle > HELD * min(took)
        return bool(slow and high - low < REGULAR * middle)

    def latency_s(self) -> float:
        """Return the median time of an answer."""
        return float(np.median([sight.decided_s - sight.sent_s for sight in self.seen]))

    def verdict(self, among: Sequence[Fit] | None = None) -> Verdict:
        """Fit all that was seen; to save time, with the families of ``among`` only."""
        hint = self.aims.period_s
        kinds = None if among is None else [(each.family, bool(each.count_refused)) for each in among]
        if among is None and self._known is not None and self._known[0] == len(self.seen):
            return self._known[1]
        found = fit(self.seen, hints_s=(hint,) if hint else (), among=kinds)
        if among is None:
            self._known = len(self.seen), found
        return found
