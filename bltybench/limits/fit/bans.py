"""Detect bans: a fixed time, from the first refusal, in which the server accepts nothing.

Firewalls and some limiters ban clients. No family does, but a window looks similar if it is exhausted as soon
as it resets.
"""

from __future__ import annotations

import math

import numpy as np

from bltybench.limits.fit.thresholds import BAN
from bltybench.limits.observations.observation import ACCEPTED, REFUSED, UNKNOWN, Observations


def detect_ban(observations: Observations) -> tuple[float, float] | None:
    """Return the range of lengths, in seconds, of a ban that explains every recovery; None if none does."""
    shortest_s, longest_s, recoveries = 0.0, math.inf, 0
    first: int | None = None
    last = 0
    for i in np.flatnonzero(observations.codes != UNKNOWN).tolist():
        if observations.codes[i] == REFUSED:
            first = i if first is None else first
            last = i
        elif observations.codes[i] == ACCEPTED and first is not None:
            shortest_s = max(shortest_s, float(observations.lo[last] - observations.hi[first]))
            longest_s = min(longest_s, float(observations.hi[i] - observations.lo[first]))
            first, recoveries = None, recoveries + 1
    tight = BAN.min_tightness * longest_s <= shortest_s <= longest_s
    return (shortest_s, longest_s) if recoveries >= BAN.min_recoveries and tight else None
