"""How lost answers may have gone: as what explains more, or as far as it explains as much one way.

A reading says of each request whether it was charged, and goes to ``Counted.charge``. What it costs is asked
through ``cost``, which prices what is charged at the time.
"""

from __future__ import annotations

from collections.abc import Callable

from bltybench.limits.sights import ACCEPTED, REFUSED, UNKNOWN, Ints
from bltybench.limits.usage import Counted

Cost = Callable[[], int]


def likeliest(counted: Counted, cost: Cost, hard: int) -> Ints:
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


def read_for(counted: Counted, cost: Cost, hard: int, enough: int) -> bool:
    """Read lost answers otherwise, but as few as there must be, until it costs no more than ``enough``.

    What costs ``hard`` more is read otherwise first. Returns whether something is.
    """
    before = charged = counted.charged
    least = cost()
    for gain in (hard, hard, 1):
        for lost in counted.lost.tolist():
            if least <= enough:
                break
            other = _with(charged, lost, REFUSED if charged[lost] == ACCEPTED else ACCEPTED)
            counted.charge(other)
            if (costs := cost()) <= least - gain:
                charged, least = other, costs
    counted.charge(charged)
    return charged is not before


def _with(charged: Ints, which: int, code: int) -> Ints:
    changed = charged.copy()
    changed[which] = code
    return changed
