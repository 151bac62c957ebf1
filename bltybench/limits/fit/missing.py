"""How lost answers may have gone: as what explains more, or otherwise.

A reading says of each request whether it was charged, and goes to
``ChargeBounds.charge``. What it costs is asked through ``cost``, which prices what is charged at the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from bltybench.limits.fit.occupancy import ChargeBounds
from bltybench.limits.observations.observation import ACCEPTED, REFUSED, UNKNOWN, Ints

FEW = 4
"""Lost answers that may be either up to which all readings are tried."""
Cost = Callable[[], int]


def likeliest(counted: ChargeBounds, cost: Cost, hard: int) -> Ints:
    """Return each lost answer read as what explains more, one after the other; left open where both do.

    Among acceptances it was one, unless that costs ``hard`` more.
    """
    before = charged = counted.charged
    # Those of which nothing is known first.
    for lost in sorted(counted.lost.tolist(), key=lambda lost: bool(before[lost] != UNKNOWN)):
        costs = {}
        for code in (REFUSED, ACCEPTED):
            counted.charge(_with(charged, lost, code))
            costs[code] = cost()
        gain = costs[ACCEPTED] - costs[REFUSED]
        if before[lost] == ACCEPTED:
            code = REFUSED if gain >= hard else ACCEPTED
        else:
            code = UNKNOWN if not gain else REFUSED if gain > 0 else ACCEPTED
        charged = _with(charged, lost, code)
    counted.charge(charged)
    return charged


def otherwise(unread: Ints, own: Ints) -> list[Ints]:
    """Return readings of what ``unread`` leaves open: all that there are of few lost answers.

    Of more, all let in, all refused, and ``own`` but for one. Read one after the other, answers can get
    stuck: none can have gone otherwise alone, but all can.
    """
    lost = np.flatnonzero(unread == UNKNOWN)
    if len(lost) <= FEW:
        return [_filled(unread, lost, codes) for codes in product((ACCEPTED, REFUSED), repeat=len(lost))]
    alike = [_filled(unread, lost, (code,) * len(lost)) for code in (ACCEPTED, REFUSED)]
    return alike + [_with(own, each, code) for each in lost.tolist() for code in (ACCEPTED, REFUSED)]


def _filled(unread: Ints, lost: Ints, codes: Sequence[int]) -> Ints:
    filled = unread.copy()
    filled[lost] = codes
    return filled


def _with(charged: Ints, which: int, code: int) -> Ints:
    changed = charged.copy()
    changed[which] = code
    return changed
