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
