"""Whether who is refused is kept out for a fixed time, whatever else he does: a ban.

Firewalls and some limiters answer so: with r the first refusal after an acceptance, nothing is let in before
r + b, however much of the limit has come back by then. No family of ours does, but a window looks much alike
where it is used up as soon as it has turned.
"""

from __future__ import annotations

import numpy as np

from bltybench.limits.observations.observation import ACCEPTED, REFUSED, UNKNOWN, Observations

FEWEST = 4
"""Refusals must have ended so often, each after a time that one ban allows."""
TIGHT = 0.5
"""Of the longest ban that explains it, the shortest: else nearly any refusals would do."""


def ban_s(sights: Observations) -> tuple[float, float] | None:
    """Return between which lengths, in seconds, a ban explains when each row of refusals ended; else None."""
    low, high, ended = 0.0, float("inf"), 0
    first: int | None = None
    last = 0
    for i in np.flatnonzero(sights.seen != UNKNOWN).tolist():
        if sights.seen[i] == REFUSED:
            first = i if first is None else first
            last = i
        elif sights.seen[i] == ACCEPTED and first is not None:
            low = max(low, float(sights.lo[last] - sights.hi[first]))
            high = min(high, float(sights.hi[i] - sights.lo[first]))
            first, ended = None, ended + 1
    return (low, high) if ended >= FEWEST and TIGHT * high <= low <= high else None
