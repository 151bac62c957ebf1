"""Intervals: against resampling done the long way, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from bltybench.metrics.bootstrap import effective_size, interval, mean_draws, quantile_draws, share_draws
from bltybench.metrics.sample import Sample


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
def test_draws_are_distributed_like_the_quantiles_of_resamples(share: float) -> None:
    rng = np.random.default_rng(7)
    values = rng.lognormal(5, 0.6, 240)
    rank = int(np.ceil(round(share * 240, 9))) - 1
    resampled = np.sort(rng.choice(values, (20_000, 240)), axis=1)[:, rank]
    drawn = np.concatenate([quantile_draws(Sample.of(values), share, rng) for _ in range(10)])
    at = [0.025, 0.25, 0.5, 0.75, 0.975]
    # Compared by rank in the sample: neighbouring values lie far apart in its tail.
    ranks = [np.searchsorted(np.sort(values), np.quantile(found, at)) for found in (drawn, resampled)]
    assert np.abs(ranks[0] - ranks[1]).max() <= 1


def test_intervals_hold_the_true_median_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(600):
        found = interval(quantile_draws(Sample.of(rng.lognormal(0, 0.5, 100)), 0.5, rng))
        held += found.low <= 1.0 <= found.high
    assert 0.92 <= held / 600 <= 0.98


def test_shares_and_means_spread_as_theory_says() -> None:
    rng = np.random.default_rng(5)
    some = share_draws(np.array(30), np.array(100), rng)
    assert some.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 100), rel=0.1)
    # The rule of three: none in a hundred may well be up to three in a hundred.
    assert 0.015 < interval(share_draws(np.array(0), np.array(100), rng)).high < 0.03
    blocks = rng.poisson(9, 400)
    assert mean_draws(blocks, rng).std() == pytest.approx(blocks.std() / 20, rel=0.1)


def test_fewer_independent_values_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    sample = Sample.of(rng.normal(100, 10, 10_000))
    narrow = interval(quantile_draws(sample, 0.5, rng))
    wide = interval(quantile_draws(sample, 0.5, rng, independent=100))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def covered(
    hang: float, share: float, *, spans: int = 30, each: int = 40, runs: int = 400
) -> tuple[float, float]:
    """Return how often intervals hold the truth: with effective sizes, and as if all values were independent.

    ``hang``: how far a span shifts all of its values, in their own standard deviations.
    """
    rng = np.random.default_rng(11)
    many = rng.normal(0, 1, 400_000) + hang * rng.normal(0, 1, 400_000)
    truth = float(np.quantile(many, share))
    span = np.repeat(np.arange(spans), each)
    held = np.zeros(2)
    for _ in range(runs):
        values = rng.normal(0, 1, spans * each) + hang * np.repeat(rng.normal(0, 1, spans), each)
        sample = Sample.of(values)
        below = np.bincount(span[values <= sample.quantile(share)], minlength=spans)
        size = effective_size(below, np.full(spans, each))
        for place, n in enumerate((size, None)):
            found = interval(quantile_draws(sample, share, rng, n))
            held[place] += found.low <= truth <= found.high
    return float(held[0] / runs), float(held[1] / runs)


@pytest.mark.parametrize(("hang", "share"), [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5), (0.5, 0.95)])
def test_intervals_hold_the_truth_where_values_near_in_time_are_alike(hang: float, share: float) -> None:
    held, naive = covered(hang, share)
    assert 0.91 <= held <= 0.99
    assert hang == 0 or naive < held - 0.2


def test_so_few_spans_say_nothing_and_alike_values_are_all_independent() -> None:
    assert effective_size(np.array([5, 5]), np.array([10, 10])) is None
    assert effective_size(np.array([5, 0, 5]), np.array([10, 0, 10])) is None
    assert effective_size(np.array([5, 5, 5]), np.array([5, 5, 5])) == 15
    # Each span lies wholly on one side: as good as a value a span, and less for how few they are.
    assert effective_size(np.array([10, 0, 10, 0]), np.full(4, 10)) == 1
