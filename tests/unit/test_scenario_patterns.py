"""Arrival patterns against theory: rates, variances, independence, seeds, and the union over workers."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev, pvariance

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bltybench.scenario.arrivals.arrivals import schedule
from bltybench.scenario.file.resolve import resolve
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.patterns import (
    Bursts,
    Constant,
    Gamma,
    Ladder,
    Poisson,
    Ramp,
    Spacing,
    Stage,
    Stairs,
    stage_at,
)
from bltybench.scenario.workload import Arrivals

HERE = Path()


def times(arrivals: Arrivals, duration_s: float, seed: int = 1) -> list[float]:
    return [arrival.at_s for arrival in schedule(arrivals, duration_s, seed, HERE)]


@pytest.mark.parametrize("burstiness", [0.2, 0.5, 1.0, 2.0])
def test_gamma_gaps_have_the_configured_mean_and_variation(burstiness: float) -> None:
    at = times(Gamma(kind="gamma", rate_per_min=600, burstiness=burstiness), 7200)
    gaps = [after - before for before, after in pairwise(at)]
    n = len(gaps)
    mean = fmean(gaps)
    assert mean == pytest.approx(0.1, rel=5 * burstiness / n**0.5)
    # Relative error of a sample variance: √((kurtosis − 1)/n); of a gamma variable: √((2 + 6c²)/n).
    assert pstdev(gaps) / mean == pytest.approx(burstiness, rel=5 * ((2 + 6 * burstiness**2) / n) ** 0.5)
    product = fmean((a - mean) * (b - mean) for a, b in pairwise(gaps))
    assert abs(product / pvariance(gaps)) < 5 / n**0.5


def counts(at: list[float], width_s: float, bins: int) -> list[int]:
    found = Counter(int(moment / width_s) for moment in at)
    return [found[number] for number in range(bins)]


def test_even_ramp_is_exact() -> None:
    at = times(Ramp(kind="ramp", from_per_min=60, to_per_min=180, spacing="even"), 60)
    # The expected number of arrivals by t is 1·t + t²/60.
    assert [moment + moment**2 / 60 for moment in at] == pytest.approx(range(len(at)), abs=1e-9)
    assert len(at) == 120


def test_ramp_down_and_ramp_from_zero_are_exact() -> None:
    up = times(Ramp(kind="ramp", from_per_min=0, to_per_min=120), 60)
    down = times(Ramp(kind="ramp", from_per_min=120, to_per_min=0), 60)
    assert len(up) == len(down) == 60
    assert up[0] == down[0] == 0
    assert counts(up, 30, 2) == [15, 45]
    assert counts(down, 30, 2) == [45, 15]
    flat = times(Ramp(kind="ramp", from_per_min=90, to_per_min=90), 60)
    assert flat == pytest.approx(times(Constant(kind="constant", rate_per_min=90), 60))


def test_random_ramp_has_the_ramps_rate_and_poisson_counts() -> None:
    ramp = Ramp(kind="ramp", from_per_min=0, to_per_min=1200, spacing="poisson")
    runs = [counts(times(ramp, 100, seed), 10, 10) for seed in range(200)]
    for number in range(10):
        expected = 100 * (number + 0.5) / 5
        found = [run[number] for run in runs]
        assert fmean(found) == pytest.approx(expected, abs=5 * (expected / 200) ** 0.5)
        assert pvariance(found) / expected == pytest.approx(1, abs=5 * (2 / 200) ** 0.5 + 0.05)


@pytest.mark.parametrize("spacing", ["even", "poisson"])
def test_stairs_keep_each_rate_equally_long(spacing: Spacing) -> None:
    stairs = Stairs(kind="stairs", rates_per_min=(600, 1200, 600), spacing=spacing)
    stages = stairs.stages(3000)
    assert stages == (
        Stage("600/min", 0, 1000),
        Stage("1200/min", 1000, 2000),
        Stage("600/min (2)", 2000, 3000),
    )
    found = list(schedule(stairs, 3000, 1, HERE))
    by_stage = Counter(arrival.stage for arrival in found)
    for stage, expected in zip(stages, (10_000, 20_000, 10_000), strict=True):
        slack = 0 if spacing == "even" else 5 * expected**0.5
        assert by_stage[stage.name] == pytest.approx(expected, abs=slack)
    for arrival in found:
        step = stage_at(stages, arrival.at_s)
        assert step is not None
        assert stages[step].name == arrival.stage


def test_token_rates_are_divided_by_tokens_per_request() -> None:
    stairs = Stairs(kind="stairs", rates_per_min=(6000,), unit="tokens", tokens_per_request=100)
    assert times(stairs, 60) == times(Constant(kind="constant", rate_per_min=60), 60)
    assert [stage.name for stage in stairs.stages(60)] == ["6000 tokens/min"]
    ramp = Ramp(kind="ramp", from_per_min=0, to_per_min=12_000, unit="tokens", tokens_per_request=100)
    assert len(times(ramp, 60)) == 60
    with pytest.raises(ValueError, match="needs tokens_per_request"):
        times(Stairs(kind="stairs", rates_per_min=(6000,), unit="tokens"), 60)


def test_tokens_per_request_default_to_the_mean_of_the_mix(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text("""
default_scenario = "q"
[targets.sandbox]
base_url = "http://127.0.0.1:8910/v1"
[scenarios.q]
title = "t"
model = "m"
duration_s = 60
users = 2
arrivals = { kind = "stairs", rates_per_min = [6000], unit = "tokens" }
[[scenarios.q.mix]]
name = "a"
weight = 3
prompt_tokens = { kind = "fixed", tokens = 100 }
max_tokens = { kind = "uniform", min = 10, max = 30 }
[[scenarios.q.mix]]
name = "b"
prompt_tokens = { kind = "fixed", tokens = 220 }
max_tokens = { kind = "fixed", tokens = 20 }
""")
    arrivals = resolve(load_book(path)).scenario.arrivals
    assert isinstance(arrivals, Stairs)
    assert arrivals.tokens_per_request == pytest.approx((3 * 120 + 240) / 4)
    assert len(times(arrivals, 60)) == 40


def test_bursts_arrive_together_or_spread() -> None:
    assert times(Bursts(kind="bursts", size=3, every_s=10), 25) == [0, 0, 0, 10, 10, 10, 20, 20, 20]
    spread = times(Bursts(kind="bursts", size=1000, every_s=10, spread_s=4), 100)
    assert len(spread) == 10_000
    late = [moment % 10 for moment in spread]
    assert max(late) < 4
    # Uniform on 0 … 4 has mean 2 and variance 16/12.
    assert fmean(late) == pytest.approx(2, abs=5 * (16 / 12 / 10_000) ** 0.5)
    assert pvariance(late) == pytest.approx(16 / 12, rel=0.05)


ANY = st.one_of(
    st.builds(Gamma, kind=st.just("gamma"), rate_per_min=st.floats(1, 600), burstiness=st.floats(0.1, 5)),
    st.builds(
        Ramp,
        kind=st.just("ramp"),
        from_per_min=st.floats(0, 600),
        to_per_min=st.floats(1, 600),
        spacing=st.sampled_from(["even", "poisson"]),
    ),
    st.builds(
        Stairs,
        kind=st.just("stairs"),
        rates_per_min=st.lists(st.floats(1, 600), min_size=1, max_size=5).map(tuple),
        spacing=st.sampled_from(["even", "poisson"]),
    ),
    st.builds(
        Bursts,
        kind=st.just("bursts"),
        size=st.integers(1, 20),
        every_s=st.floats(1, 30),
        spread_s=st.floats(0, 1),
    ),
    st.builds(Poisson, kind=st.just("poisson"), rate_per_min=st.floats(1, 600)),
)


@settings(deadline=None)
@given(ANY, st.integers(0, 2**32), st.floats(1, 90), st.integers(1, 7))
def test_pattern_schedule_is_ordered_repeatable_and_shared_by_workers(
    arrivals: Arrivals, seed: int, duration_s: float, workers: int
) -> None:
    whole = list(schedule(arrivals, duration_s, seed, HERE))
    assert [arrival.index for arrival in whole] == list(range(len(whole)))
    assert all(before.at_s <= after.at_s for before, after in pairwise(whole))
    assert all(0 <= arrival.at_s < duration_s for arrival in whole)
    parts = [
        arrival
        for worker in range(workers)
        for arrival in schedule(arrivals, duration_s, seed, HERE)
        if arrival.index % workers == worker
    ]
    assert sorted(parts, key=lambda arrival: arrival.index) == whole


def test_ladder_has_stages_and_no_schedule() -> None:
    ladder = Ladder(kind="ladder", users=(1, 2, 4, 2))
    stages = ladder.stages(8)
    assert [stage.name for stage in stages] == ["1 user", "2 users", "4 users", "2 users (2)"]
    assert [(stage.begin_s, stage.end_s, stage.users) for stage in stages] == [
        (0, 2, 1),
        (2, 4, 2),
        (4, 6, 4),
        (6, 8, 2),
    ]
    assert stage_at((), 1) is None
    assert [stage_at(stages, at_s) for at_s in (-1, 0, 1.99, 2, 5, 7.9, 8, 9)] == [0, 0, 0, 1, 2, 3, 3, 3]
    with pytest.raises(ValueError, match="closed loop has no schedule"):
        schedule(ladder, 8, 1, HERE)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("Ramp(kind='ramp', from_per_min=0, to_per_min=0)", "must not both be 0"),
        ("Ramp(kind='ramp', from_per_min=-1, to_per_min=9)", "greater than or equal to 0"),
        ("Stairs(kind='stairs', rates_per_min=())", "at least 1 item"),
        ("Stairs(kind='stairs', rates_per_min=(60, 0))", "greater than 0"),
        ("Stairs(kind='stairs', rates_per_min=(60,), tokens_per_request=5)", "requires unit"),
        ("Bursts(kind='bursts', size=5, every_s=1, spread_s=2)", "spread_s must not exceed every_s"),
        ("Gamma(kind='gamma', rate_per_min=60, burstiness=0)", "greater than"),
        ("Constant(kind='constant', rate_per_min=1e12)", "less than or equal to 6000000"),
    ],
)
def test_impossible_patterns_are_rejected(table: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        eval(table)  # noqa: S307 - the tables are the ones above
