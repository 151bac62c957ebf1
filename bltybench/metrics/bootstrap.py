"""Bootstrap confidence intervals: how far a number could have come out otherwise, from the sample itself.

B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), ch. 13: the percentile interval. Draws are
seeded, so the same run gives the same interval.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bltybench.metrics.frame import Floats, Ints
from bltybench.metrics.sample import Sample

DRAWS = 2000
LEVEL = 0.95

NORMAL = 1.96
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5% point of Student's t with 1, 2, … 30 degrees of freedom; NORMAL is that of the normal."""

MIN_BLOCKS = 3


class Interval(NamedTuple):
    """Bounds that hold LEVEL of the draws."""

    low: float
    high: float


def quantile_draws(
    sample: Sample, share: float, rng: np.random.Generator, independent: int | None = None
) -> Floats:
    """Return what the nearest-rank quantile would be in each of DRAWS resamples.

    Nothing is resampled for it: of n values drawn with replacement, the one at rank k lies at rank ⌈n·U⌉ of
    the sample, U being the k-th smallest of n uniform numbers, which is Beta(k, n − k + 1). That is exact.

    ``independent`` is how many of the values count as independent, where that is not all of them.
    """
    n = independent if independent is not None else len(sample)
    rank = max(int(np.ceil(round(share * n, 9))), 1)
    places = rng.beta(rank, n - rank + 1, DRAWS)
    return sample.at_ranks(np.clip(np.ceil(places * len(sample)), 1, len(sample)).astype(np.int64))


def effective_size(below: Ints, total: Ints) -> int | None:
    """Return how many independent values say as much of a quantile as a sample taken in blocks does.

    ``total`` is how many values each block has, ``below`` how many of them lie at or below the quantile. The
    variance of the share Σ below / Σ total between blocks, over what it would be were all values independent,
    is the design effect; n over it is the effective size (L. Kish, Survey Sampling, 1965), smaller again by
    how much Student's t with that few blocks is wider than the normal (E. L. Korn, B. I. Graubard, Survey
    Methodology 24 (1998), 193). It is never more than n. None where there are fewer than MIN_BLOCKS blocks
    with values: they show nothing of how blocks differ.
    """
    there = total > 0
    below, total = below[there], total[there]
    blocks, n = len(total), int(total.sum())
    if blocks < MIN_BLOCKS:
        return None
    share = float(below.sum() / n)
    independent = share * (1 - share) / n
    if independent == 0:
        return n
    apart = below - share * total
    between = blocks / (blocks - 1) * float(np.sum(apart**2)) / n**2
    few = STUDENT[min(blocks - 1, len(STUDENT)) - 1] / NORMAL
    return max(round(n / max(between / independent * few**2, 1.0)), 1)


def share_draws(count: Ints, total: Ints, rng: np.random.Generator) -> Floats:
    """Return DRAWS shares that ``count`` in ``total`` may stand for: Beta(count + ½, total − count + ½).

    Each is a number, or one for each draw.

    Resamples of a sample without a single one would have none either, as if that were certain. This is
    Jeffreys' interval instead (Brown, Cai, DasGupta, Interval Estimation for a Binomial Proportion, 2001).
    """
    return rng.beta(count + 0.5, total - count + 0.5, DRAWS)


def mean_draws(blocks: Ints, rng: np.random.Generator) -> Floats:
    """Return the mean of ``blocks`` (sums over successive spans of time) in each of DRAWS resamples."""
    return np.asarray(span_weights(len(blocks), rng) @ blocks / len(blocks), dtype=np.float64)


def span_weights(spans: int, rng: np.random.Generator) -> Ints:
    """Return how often each span is in each of DRAWS resamples of them: a row a draw."""
    return rng.multinomial(spans, np.full(spans, 1 / spans), DRAWS)


def interval(draws: Floats) -> Interval:
    """Return the percentile interval of draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
