"""Which requests were charged: known from decisions, and assumed for lost responses.

Arrays of charges hold one code per request: charged, not charged, or unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import product

import numpy as np

from bltybench.limits.fit.thresholds import SCORING, SEARCH
from bltybench.limits.observations.observation import (
    ACCEPTED,
    REFUSED,
    UNKNOWN,
    Bools,
    Floats,
    Ints,
    Observations,
)


@dataclass(frozen=True, slots=True)
class Charged:
    """The requests that were charged, at least or at most."""

    which: Bools
    total: Floats
    """Prefix sums."""
    reordered: Ints
    """What the unknown order of requests in flight can take away from the minimum, or add to the maximum."""


class ChargeBounds:
    """The minimum and maximum charges, and the requests to compute the occupancy for."""

    def __init__(self, observations: Observations, *, count_refused: bool) -> None:
        self.observations = observations
        self._count_refused = count_refused
        codes = observations.codes
        self.lost = np.flatnonzero(codes == UNKNOWN)
        self.latest: Floats = np.maximum.accumulate(observations.hi) if len(observations) else observations.hi
        self.middle = (observations.lo + observations.hi) / 2
        self.every = np.arange(len(observations))
        self.informative = _informative(observations)
        self.columns = self.every
        if count_refused:
            codes = np.where(codes == REFUSED, ACCEPTED, codes)
        self.charge(_assume_accepted(codes, observations.beside_removed))

    def charge(self, charges: Ints) -> None:
        """Set which requests are charged (ACCEPTED), not charged (REFUSED), or either (UNKNOWN)."""
        self.charges = charges
        # If refused requests count too, every request that arrived is charged.
        self.never_arrived = int(np.sum(charges[self.lost] == REFUSED)) if self._count_refused else 0
        least, most = charges == ACCEPTED, charges != REFUSED
        self.least = Charged(least, _prefix_sums(least), self.observations.overtaken(least))
        self.most = Charged(most, _prefix_sums(most), self.observations.overtaking(most))
        self._extremes: tuple[ChargeBounds, ChargeBounds] | None = None
        self.select(self.columns)

    def select(self, columns: Ints) -> None:
        """Compute the occupancy for these requests from now on."""
        self.columns = columns
        self.accepted = columns[self.observations.accepted[columns]]
        self.refused = columns[self.observations.refused[columns]]
        # A charge shows an acceptance, unless refused requests are charged too.
        lost = columns[:0] if self._count_refused else columns[self.observations.codes[columns] == UNKNOWN]
        self._lost_accepted = lost[self.charges[lost] == ACCEPTED]
        self._lost_refused = lost[self.charges[lost] == REFUSED]
        self._strict: tuple[Side, Side] | None = None
        self._exact: tuple[Side, Side] | None = None
        self._lenient: tuple[Side, Side] | None = None

    @property
    def assigns_lost(self) -> bool:
        """Whether a lost response has an assumed outcome, which a model can contradict."""
        return bool(len(self._lost_accepted) or len(self._lost_refused) or self.never_arrived)

    @property
    def lenient(self) -> tuple[Side, Side]:
        """The minimum before acceptances and the maximum before refusals, which contradict fewest limits.

        Lost responses that are assumed to be the same come last.
        """
        if self._lenient is None:
            accepted = np.concatenate([self.accepted, self._lost_accepted])
            refused = np.concatenate([self.refused, self._lost_refused])
            self._lenient = Side(self, accepted, least=True), Side(self, refused, least=False)
        return self._lenient

    @property
    def strict(self) -> tuple[Side, Side]:
        """The maximum before acceptances and the minimum before refusals, as far as timing leaves them open.

        An unknown outcome is not ambiguous: each decision is compared with the outcome that fits it.
        """
        if self._strict is None:
            none, every = self._filled if np.any(self.charges == UNKNOWN) else (self, self)
            self._strict = Side(none, self.accepted, least=False), Side(every, self.refused, least=True)
        return self._strict

    @property
    def exact(self) -> tuple[Side, Side]:
        """The occupancy before acceptances and refusals, if each decision was in the middle of its bounds."""
        if self._exact is None:
            accepted = Side(self, self.accepted, least=True, times=self.middle)
            self._exact = accepted, Side(self, self.refused, least=False, times=self.middle)
        return self._exact

    @property
    def _filled(self) -> tuple[ChargeBounds, ChargeBounds]:
        """The same requests with no unknown one charged, and with all of them charged."""
        if self._extremes is None:
            none, every = copy(self), copy(self)
            for other, code in ((none, REFUSED), (every, ACCEPTED)):
                other.charge(np.where(self.charges == UNKNOWN, code, self.charges))
            self._extremes = none, every
        return self._extremes


class Side:
    """One bound of the occupancy before some requests: what all families need to compute it.

    The minimum uses the latest time of a decision. The maximum uses the earliest, and counts every request
    that may have been decided on before.
    """

    def __init__(
        self, bounds: ChargeBounds, columns: Ints, *, least: bool, times: Floats | None = None
    ) -> None:
        lo, hi = bounds.observations.lo, bounds.observations.hi
        if times is not None:
            lo = hi = times
        self.bounds, self.is_least = bounds, least
        self.columns = columns
        self.at = (hi if least else lo)[columns]
        """The times of the decisions on the requests."""
        self.since, self.until = (lo, hi) if least else (hi, lo)
        """The times of all decisions, by which most time has passed, and the other ones."""
        self.ascending = lo if least else bounds.latest
        self.charged = bounds.least if least else bounds.most
        self.total = self.charged.total[columns]
        more = bounds.most.reordered[columns]
        # Acceptances in flight with a refusal came before it, if they can have.
        fewer = np.where(bounds.observations.refused[columns], more, -bounds.least.reordered[columns])
        self._reordered = np.zeros_like(more) if times is not None else fewer if least else more

    def charged_since(self, earlier: Floats) -> Floats:
        """Return what was charged before the requests but not in ``earlier``, which is changed in place."""
        np.subtract(self.total + self._reordered, earlier, out=earlier)
        return np.maximum(earlier, np.maximum(self._reordered, 0), out=earlier)

    def reordered(self, used: Floats) -> Floats:
        """Widen a bound by the unknown order of requests in flight, in place."""
        used += self._reordered
        return np.maximum(used, 0.0, out=used)


def _prefix_sums(counted: Bools) -> Floats:
    return np.concatenate([[0.0], np.cumsum(counted)])


def _assume_accepted(charges: Ints, beside_removed: Bools) -> Ints:
    """Charge lost responses between acceptances. Next to a refusal, a bucket accepts single requests."""
    known = np.flatnonzero(charges != UNKNOWN)
    count, filled = SEARCH.accepted_neighbors, charges.copy()
    for lost in np.flatnonzero((charges == UNKNOWN) & ~beside_removed):
        place = int(np.searchsorted(known, lost))
        # Fewer before the first requests are enough: nothing was refused yet.
        before, after = known[max(0, place - count) : place], known[place : place + count]
        neighbors = charges[np.concatenate([before, after])]
        if len(after) == count and np.all(neighbors == ACCEPTED):
            filled[lost] = ACCEPTED
    return filled


def _informative(observations: Observations) -> Ints:
    """Return the requests at which refusals begin or end, and an even sample of the others."""
    n, max_count = len(observations), SCORING.informative_requests
    if n <= max_count:
        return np.arange(n)
    known = np.flatnonzero(observations.codes != UNKNOWN)
    turns = np.flatnonzero(np.diff(observations.codes[known])) + 1
    # Random refusals begin and end all the time. A part of them shows that no candidate fits.
    turns = turns[:: -(-len(turns) // max_count)] if len(turns) else turns
    sample = np.linspace(0, n - 1, max_count // 4).astype(np.int64)
    return np.unique(np.concatenate([known[turns - 1], known[turns], sample]))


def impute_greedy(bounds: ChargeBounds, cost: Callable[[], int]) -> Ints:
    """Assign each lost response the outcome that costs less, one after the other.

    ``cost`` returns the cost of the current charges. If both cost the same, the outcome stays unknown. A
    response that is assumed to be an acceptance is changed only if that saves a contradiction.
    """
    before = charges = bounds.charges
    unknown_first = sorted(bounds.lost.tolist(), key=lambda lost: bool(before[lost] != UNKNOWN))
    for lost in unknown_first:
        costs = {}
        for code in (REFUSED, ACCEPTED):
            bounds.charge(_replaced(charges, [lost], code))
            costs[code] = cost()
        saved = costs[ACCEPTED] - costs[REFUSED]
        if before[lost] == ACCEPTED:
            code = REFUSED if saved >= SCORING.hard_weight else ACCEPTED
        else:
            code = UNKNOWN if not saved else REFUSED if saved > 0 else ACCEPTED
        charges = _replaced(charges, [lost], code)
    bounds.charge(charges)
    return charges


def enumerate_assignments(unassigned: Ints, own: Ints) -> list[Ints]:
    """Return alternatives to the charges ``own`` for the lost responses that ``unassigned`` leaves unknown.

    For a few, these are all combinations. For more, they are all accepted, all refused, and ``own`` with one
    changed: the greedy assignment can get stuck if no response can change alone, but all can together.
    """
    lost = np.flatnonzero(unassigned == UNKNOWN)
    if len(lost) <= SEARCH.max_enumerated:
        return [
            _replaced(unassigned, lost, codes) for codes in product((ACCEPTED, REFUSED), repeat=len(lost))
        ]
    uniform = [_replaced(unassigned, lost, code) for code in (ACCEPTED, REFUSED)]
    return uniform + [_replaced(own, [one], code) for one in lost.tolist() for code in (ACCEPTED, REFUSED)]


def _replaced(charges: Ints, which: Sequence[int] | Ints, codes: int | Sequence[int]) -> Ints:
    changed = charges.copy()
    changed[which] = codes
    return changed
