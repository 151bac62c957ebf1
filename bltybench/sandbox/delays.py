"""Delays of one request: lognormal, seeded, and measured from fixed points, so errors don't add up."""

from __future__ import annotations

import math
import random

from bltybench.scenario.target import Delay

Z_95 = 1.6448536269514722
"""95th percentile of the standard normal distribution."""


class LognormalDelay:
    """A lognormal delay with median m and 95th percentile p: exp(N(ln m, (ln(p/m)/z95)²))."""

    def __init__(self, delay: Delay) -> None:
        self._median_s = delay.median_ms / 1000
        ratio = delay.p95_ms / delay.median_ms if delay.median_ms else 1.0
        self._sigma = math.log(ratio) / Z_95

    def draw_s(self, rng: random.Random) -> float:
        """Return a delay in seconds. Always the median if both percentiles are equal."""
        if self._sigma == 0:
            return self._median_s
        return self._median_s * math.exp(rng.gauss(0.0, self._sigma))


def request_rng(seed: int, ordinal: int) -> random.Random:
    """Return the random generator of the ``ordinal``-th admitted request, independent of all others."""
    return random.Random(f"{seed}/{ordinal}")
