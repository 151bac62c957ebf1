"""Outcomes of lost responses: the best ones greedily, or alternatives to try.

Arrays of charges hold one code per request: charged, not charged, or unknown.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from bltybench.limits.fit.occupancy import ChargeBounds
from bltybench.limits.fit.thresholds import SCORING, SEARCH
from bltybench.limits.observations.observation import ACCEPTED, REFUSED, UNKNOWN, Ints


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
