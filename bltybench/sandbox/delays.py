"""Delays of one request: lognormal, seeded, and measured from fixed points, so errors don't add up."""

import math
import random

from bltybench.scenario.target import Delay

Z_95 = 1.6448536269514722
"""95th percentile of the standard normal distribution."""


def draw_s(delay: Delay, rng: random.Random) -> float:
    """Return a delay in seconds. Always the median if both percentiles are equal.

    With median m and 95th percentile p, it is m·exp(N(0, (ln(p/m)/z95)²)).
    """
    median_s = delay.median_ms / 1000
    if delay.p95_ms == delay.median_ms:
        return median_s
    sigma = math.log(delay.p95_ms / delay.median_ms) / Z_95
    return median_s * math.exp(rng.gauss(0.0, sigma))


def request_rng(seed: int, ordinal: int) -> random.Random:
    """Return the random generator of the ``ordinal``-th admitted request, independent of all others."""
    return random.Random(f"{seed}/{ordinal}")
