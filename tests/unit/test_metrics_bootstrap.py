"""Bootstrap intervals: against plain resampling, and how often they contain the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bltybench.metrics.bootstrap import (
    effective_size,
    fraction_draws,
    interval,
    mean_draws,
    quantile_draws,
    student_t,
)
from bltybench.metrics.sample import Sample
from bltybench.percentiles import nearest_rank


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.95])
def test_draws_are_distributed_like_the_quantiles_of_resamples(fraction: float) -> None:
    rng = np.random.default_rng(7)
    values = rng.lognormal(5, 0.6, 240)
    rank = nearest_rank(fraction, 240) - 1
    resampled = np.sort(rng.choice(values, (20_000, 240)), axis=1)[:, rank]
    drawn = np.concatenate([quantile_draws(Sample.of(values), fraction, rng) for _ in range(10)])
    at = [0.025, 0.25, 0.5, 0.75, 0.975]
    # Compared by rank: neighboring values are far apart in the tail.
    ranks = [np.searchsorted(np.sort(values), np.quantile(found, at)) for found in (drawn, resampled)]
    assert np.abs(ranks[0] - ranks[1]).max() <= 1


def test_95_percent_of_intervals_contain_the_true_median() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(600):
        found = interval(quantile_draws(Sample.of(rng.lognormal(0, 0.5, 100)), 0.5, rng))
        hits += found.low <= 1.0 <= found.high
    assert 0.92 <= hits / 600 <= 0.98


def test_fractions_and_means_spread_as_in_theory() -> None:
    rng = np.random.default_rng(5)
    some = fraction_draws(np.array(30), np.array(100), rng)
    assert some.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 100), rel=0.1)
    # Rule of three: 0 of 100 is consistent with up to 3%.
    assert 0.015 < interval(fraction_draws(np.array(0), np.array(100), rng)).high < 0.03
    blocks = rng.poisson(9, 400)
    assert mean_draws(blocks, rng).std() == pytest.approx(blocks.std() / 20, rel=0.1)


def test_fewer_independent_values_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    sample = Sample.of(rng.normal(100, 10, 10_000))
    narrow = interval(quantile_draws(sample, 0.5, rng))
    wide = interval(quantile_draws(sample, 0.5, rng, independent=100))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def coverage(
    span_effect: float, fraction: float, *, runs: int, spans: int = 30, span_size: int = 40
) -> tuple[float, float]:
    """Return how often intervals contain the truth: with effective sizes, and as if values were independent.

    ``span_effect`` is how far a span shifts all of its values, in their own standard deviations.
    """
    rng = np.random.default_rng(11)
    many = rng.normal(0, 1, 400_000) + span_effect * rng.normal(0, 1, 400_000)
    truth = float(np.quantile(many, fraction))
    span = np.repeat(np.arange(spans), span_size)
    hits = np.zeros(2)
    for _ in range(runs):
        shifts = span_effect * np.repeat(rng.normal(0, 1, spans), span_size)
        values = rng.normal(0, 1, spans * span_size) + shifts
        sample = Sample.of(values)
        below = np.bincount(span[values <= sample.quantile(fraction)], minlength=spans)
        size = effective_size(below, np.full(spans, span_size))
        for index, n in enumerate((size, None)):
            found = interval(quantile_draws(sample, fraction, rng, n))
            hits[index] += found.low <= truth <= found.high
    return float(hits[0] / runs), float(hits[1] / runs)


@pytest.mark.parametrize(
    ("span_effect", "fraction", "runs"),
    [(0.0, 0.5, 400), (0.5, 0.5, 400), (1.0, 0.5, 400), (0.5, 0.95, 4000)],
)
def test_intervals_contain_the_truth_if_values_near_in_time_are_alike(
    span_effect: float, fraction: float, runs: int
) -> None:
    with_effective_size, naive = coverage(span_effect, fraction, runs=runs)
    assert 0.91 <= with_effective_size <= 0.99
    assert span_effect == 0 or naive < with_effective_size - 0.2


def test_student_t_agrees_with_closed_formulas_and_tables() -> None:
    # In closed form: Cauchy's distribution, and two degrees of freedom.
    assert student_t(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert student_t(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)
    tabulated = {3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 29: 2.045, 60: 2.000, 120: 1.980}
    assert {freedom: round(student_t(freedom), 3) for freedom in tabulated} == tabulated


def test_effective_size_is_unknown_for_few_spans_and_n_for_constant_values() -> None:
    assert effective_size(np.array([5, 5]), np.array([10, 10])) is None
    assert effective_size(np.array([5, 0, 5]), np.array([10, 0, 10])) is None
    assert effective_size(np.array([5, 5, 5]), np.array([5, 5, 5])) == 15
    # Each span is wholly on one side: it counts as one value, and less because spans are few.
    assert effective_size(np.array([10, 0, 10, 0]), np.full(4, 10)) == 1
