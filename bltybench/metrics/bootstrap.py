"""Bootstrap confidence intervals, from seeded draws: the same run gives the same interval.

Percentile intervals as in B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.
"""

import math
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from bltybench.metrics.frame import Floats, Ints
from bltybench.metrics.sample import Sample
from bltybench.percentiles import nearest_rank

DRAWS = 2000
"""Resamples per interval."""
LEVEL = 0.95
"""Fraction of the draws inside an interval."""
MIN_BLOCKS = 3
"""Minimum number of blocks with values: fewer say too little about how blocks differ."""


class Interval(NamedTuple):
    """Bounds that contain LEVEL of the draws."""

    low: float
    high: float


def quantile_draws(
    sample: Sample, fraction: float, rng: np.random.Generator, independent: int | None = None
) -> Floats:
    """Return the nearest-rank quantile of each of DRAWS resamples.

    Nothing is resampled: of n values drawn with replacement, the one at rank k is at rank ⌈n·U⌉ of the
    sample, where U is the k-th smallest of n uniform numbers and so Beta(k, n − k + 1). This is exact.

    ``independent`` is the effective sample size if it is smaller than the sample.
    """
    n = independent if independent is not None else len(sample)
    rank = nearest_rank(fraction, n)
    positions = rng.beta(rank, n - rank + 1, DRAWS)
    return sample.at_ranks(np.clip(np.ceil(positions * len(sample)), 1, len(sample)).astype(np.int64))


def effective_size(below: Ints, total: Ints) -> int | None:
    """Return how many independent values are worth as much as a sample taken in blocks, at a quantile.

    ``total`` counts the values of each block, ``below`` those at or below the quantile. The design effect is
    the variance of the fraction Σ below / Σ total between blocks, over its variance if all values were
    independent. The effective size is n over it (L. Kish, Survey Sampling, 1965), reduced again because
    Student's t with few blocks is wider than the normal (E. L. Korn, B. I. Graubard, Survey Methodology 24
    (1998), 193). It is at most n. Return None for fewer than MIN_BLOCKS blocks with values.
    """
    nonempty = total > 0
    below, total = below[nonempty], total[nonempty]
    blocks, n = len(total), int(total.sum())
    if blocks < MIN_BLOCKS:
        return None
    fraction = float(below.sum() / n)
    independent = fraction * (1 - fraction) / n
    if independent == 0:
        return n
    between = blocks / (blocks - 1) * float(np.sum((below - fraction * total) ** 2)) / n**2
    widening = student_t(blocks - 1) / NormalDist().inv_cdf((1 + LEVEL) / 2)
    return max(round(n / max(between / independent * widening**2, 1.0)), 1)


@cache
def student_t(freedom: int) -> float:
    """Return the bound of |T| with probability LEVEL, for Student's T with ``freedom`` degrees of freedom.

    Its distribution is a finite sum in the angle θ = atan(t / √freedom) (M. Abramowitz, I. A. Stegun,
    Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4).
    """
    odd = freedom % 2

    def probability(angle: float) -> float:
        term = math.cos(angle) if odd else 1.0
        total = 0.0
        for power in range(2 + odd, freedom + 1, 2):
            total += term
            term *= math.cos(angle) ** 2 * (power - 1) / power
        total *= math.sin(angle)
        return (angle + total) * 2 / math.pi if odd else total

    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if probability(middle) < LEVEL else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def fraction_draws(count: Ints, total: Ints, rng: np.random.Generator) -> Floats:
    """Return DRAWS plausible fractions for ``count`` of ``total``: Beta(count + ½, total − count + ½).

    Both are numbers, or one number per draw. Resampling would give certainty if ``count`` is 0, so this is
    Jeffreys' interval (Brown, Cai, DasGupta, Interval Estimation for a Binomial Proportion, 2001).
    """
    return rng.beta(count + 0.5, total - count + 0.5, DRAWS)


def mean_draws(blocks: Ints, rng: np.random.Generator) -> Floats:
    """Return the mean of ``blocks`` (sums over successive spans of time) in each of DRAWS resamples."""
    return np.asarray(span_weights(len(blocks), rng) @ blocks / len(blocks), dtype=np.float64)


def span_weights(spans: int, rng: np.random.Generator) -> Ints:
    """Return how often each span occurs in each of DRAWS resamples of the spans, one row per draw."""
    return rng.multinomial(spans, np.full(spans, 1 / spans), DRAWS)


def interval(draws: Floats) -> Interval:
    """Return the percentile interval of draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
