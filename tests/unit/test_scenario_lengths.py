from __future__ import annotations

from random import Random
from statistics import fmean, median, pstdev, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.scenario.prompts.lengths import draw
from bltybench.scenario.workload import Empirical, Fixed, Lengths, Lognormal, Normal, Uniform


def sample(lengths: Lengths, n: int = 20_000) -> list[int]:
    rng = Random(7)
    return [draw(lengths, rng) for _ in range(n)]


def test_fixed_length_is_constant() -> None:
    assert set(sample(Fixed(tokens=12), 100)) == {12}


def test_uniform_values_are_equally_frequent() -> None:
    values = sample(Uniform(kind="uniform", min=3, max=7))
    counts = [values.count(value) for value in range(3, 8)]
    assert sum(counts) == len(values)
    # 4,000 each; the standard deviation of such a count is 57
    assert all(abs(count - 4_000) < 5 * 57 for count in counts)


def test_normal_has_its_mean_and_standard_deviation() -> None:
    values = sample(Normal(kind="normal", mean=500, sd=50))
    assert fmean(values) == pytest.approx(500, abs=5 * 50 / 20_000**0.5)
    assert pstdev(values) == pytest.approx(50, rel=0.03)


def test_truncated_normal_does_not_pile_up_at_its_bounds() -> None:
    values = sample(Normal(kind="normal", mean=100, sd=50, min=100, max=1_000))
    # Half of a normal distribution: 0.5 / 50 · φ(0) · 2 of the values lie in the bin of the bound, 0.8%.
    assert values.count(100) / len(values) < 0.02
    assert min(values) == 100


def test_lognormal_has_its_median_and_p95() -> None:
    values = sample(Lognormal(kind="lognormal", median=120, p95=400))
    assert median(values) == pytest.approx(120, rel=0.03)
    assert quantiles(values, n=20)[-1] == pytest.approx(400, rel=0.05)


def test_empirical_draws_only_observed_values() -> None:
    values = sample(Empirical(kind="empirical", values=(1, 1, 1, 9)))
    assert set(values) == {1, 9}
    assert values.count(9) / len(values) == pytest.approx(0.25, abs=0.02)


def test_zero_spread_and_distant_bounds_are_handled() -> None:
    assert set(sample(Normal(kind="normal", mean=40, sd=0), 50)) == {40}
    assert set(sample(Normal(kind="normal", mean=40, sd=0, min=50), 50)) == {50}
    assert set(sample(Lognormal(kind="lognormal", median=30, p95=30), 50)) == {30}
    assert set(sample(Normal(kind="normal", mean=10, sd=1, min=900, max=910), 50)) == {900}
    assert set(sample(Normal(kind="normal", mean=9_000, sd=1, min=900, max=910), 50)) == {910}


bounds = st.tuples(st.integers(1, 5_000), st.integers(0, 5_000)).map(lambda pair: (pair[0], sum(pair)))
positive = st.floats(0.01, 1e5)


@given(st.integers(0, 2**32), bounds, positive, st.floats(0, 1e5))
def test_draws_stay_within_the_bounds(
    seed: int, limits: tuple[int, int], middle: float, spread: float
) -> None:
    low, high = limits
    kinds: list[Lengths] = [
        Uniform(kind="uniform", min=low, max=high),
        Normal(kind="normal", mean=middle, sd=spread, min=low, max=high),
        Lognormal(kind="lognormal", median=middle, p95=middle + spread, min=low, max=high),
    ]
    for lengths in kinds:
        assert low <= draw(lengths, Random(seed)) <= high
        assert draw(lengths, Random(seed)) == draw(lengths, Random(seed))


def test_every_kind_consumes_one_random_number() -> None:
    kinds: list[Lengths] = [
        Fixed(tokens=1),
        Uniform(kind="uniform", min=1, max=9),
        Normal(kind="normal", mean=5, sd=2),
        Normal(kind="normal", mean=5, sd=0),
        Lognormal(kind="lognormal", median=5, p95=9),
        Empirical(kind="empirical", values=(4, 5)),
    ]
    after = set()
    for lengths in kinds:
        rng = Random(3)
        draw(lengths, rng)
        after.add(rng.random())
    assert len(after) == 1
