"""Random token lengths."""

import math
from random import Random
from statistics import NormalDist
from typing import assert_never

from bltybench.scenario.workload import Empirical, Fixed, Lengths, Lognormal, Normal, Uniform

P95_Z = NormalDist().inv_cdf(0.95)
_STANDARD = NormalDist()

GRID = 2_000
"""Quantiles used to compute a distribution's mean, accurate to a fraction of a percent."""


def draw(lengths: Lengths, rng: Random) -> int:
    """Return a number of tokens, 1 or more.

    Every kind takes exactly one number from ``rng``, so changing one length does not change later draws.
    Normal and lognormal distributions are truncated to ``min`` … ``max`` instead of clamped, because clamped
    values would pile up at the bounds.
    """
    return at_quantile(lengths, rng.random())


def mean(lengths: Lengths) -> float:
    """Return the expected number of tokens: the mean of GRID equally likely quantiles."""
    return sum(at_quantile(lengths, (step + 0.5) / GRID) for step in range(GRID)) / GRID


def at_quantile(lengths: Lengths, u: float) -> int:
    """Return the ``u`` quantile, 0 ≤ u < 1."""
    match lengths:
        case Fixed():
            return lengths.tokens
        case Uniform():
            return lengths.min + int(u * (lengths.max - lengths.min + 1))
        case Normal():
            low, high = lengths.min - 0.5, lengths.max + 0.5
            value = _between(u, lengths.mean, lengths.sd, low, high)
            return _whole(value, lengths)
        case Lognormal():
            mu = math.log(lengths.median)
            sigma = (math.log(lengths.p95) - mu) / P95_Z
            low, high = math.log(lengths.min - 0.5), math.log(lengths.max + 0.5)
            return _whole(math.exp(_between(u, mu, sigma, low, high)), lengths)
        case Empirical():
            return lengths.values[int(u * len(lengths.values))]
    assert_never(lengths)


def _between(u: float, mean: float, sd: float, low: float, high: float) -> float:
    """Return the ``u`` quantile of a normal distribution truncated to ``low`` … ``high``."""
    if sd == 0:
        return mean
    bottom = _STANDARD.cdf((low - mean) / sd)
    top = _STANDARD.cdf((high - mean) / sd)
    p = bottom + u * (top - bottom)
    if not 0 < p < 1:  # the bounds are so far out that no probability is left between them
        return low if mean < low else high if mean > high else mean
    return mean + sd * _STANDARD.inv_cdf(p)


def _whole(value: float, bounds: Normal | Lognormal) -> int:
    return min(bounds.max, max(bounds.min, round(value)))
