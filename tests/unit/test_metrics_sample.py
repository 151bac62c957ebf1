"""Sorted samples, and counts of inter-token gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_runs import S, attempt, frame, table

from bltybench.metrics.gaps import (
    MAX_COUNTED_US,
    MAX_GROUPS,
    kinds_of,
    middle_us,
    sample_of,
    step_of,
    tally_gaps,
)
from bltybench.metrics.sample import Sample
from bltybench.runs.attempt import Attempt, Outcome


def stream(number: int, gaps_us: list[int], outcome: Outcome = Outcome.OK) -> Attempt:
    return attempt(
        call_id=f"c{number}", stream=True, first_token_ns=S, end_ns=9 * S, gaps_us=gaps_us, outcome=outcome
    )


def test_gaps_exclude_failed_streams() -> None:
    rows = table(
        attempt(), stream(1, [5], Outcome.BROKEN_STREAM), stream(2, [100_000, 200_000]), stream(3, [])
    )
    found = tally_gaps(rows.to_batches()).pooled
    assert found.values.tolist() == [100.0, 200.0]
    assert len(found) == 2
    assert len(tally_gaps(table().to_batches()).pooled) == 0


def test_gaps_of_several_batches_are_exact() -> None:
    gaps = [20_000, 20_000, MAX_COUNTED_US - 1, MAX_COUNTED_US, 7 * MAX_COUNTED_US + 1, 0]
    batches = [*table(stream(1, gaps)).to_batches(), *table(stream(2, gaps[:1])).to_batches()]
    found = tally_gaps(batches).pooled
    assert found.values.tolist() == sorted({gap / 1000 for gap in gaps})
    assert found.cumulative.tolist() == [1, 4, 5, 6, 7]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.floats(0, 1))
def test_counted_sample_has_the_quantiles_of_its_values(gaps: list[int], share: float) -> None:
    counted = tally_gaps(table(stream(1, gaps)).to_batches()).pooled
    plain = Sample.of(np.array(gaps, dtype=np.float64) / 1000)
    assert len(counted) == len(plain) == len(gaps)
    assert counted.quantile(share) == plain.quantile(share)
    assert counted.at_ranks(np.arange(1, len(gaps) + 1)).tolist() == plain.values.tolist()


@pytest.mark.parametrize("order", [[3.0, 1.0, np.nan, 2.0], [np.nan, 1.0, 2.0, 3.0]])
def test_sample_is_sorted_without_missing_values(order: list[float]) -> None:
    assert Sample.of(np.array(order)).values.tolist() == [1.0, 2.0, 3.0]


@given(st.integers(0, 2**32 - 1))
def test_step_is_at_most_0_8_percent_wide(gap: int) -> None:
    step = step_of(np.array([gap]))
    assert abs(middle_us(step)[0] - gap) <= (0 if gap < 256 else 0.004 * gap)
    assert step_of(np.array([gap + 1]))[0] - step[0] in {0, 1}


def test_gaps_are_counted_by_kind_and_span_in_any_batches() -> None:
    made = [stream(number, [1000 * (number % 2 + 1)] * 3) for number in range(40)]
    rows = table(*made)
    group, kinds = kinds_of(
        frame(*made).assign(model=["a" if number % 2 == 0 else "b" for number in range(40)]),
        ["model", "stage"],
    )
    group[:2] = -1
    span = np.arange(40) // 10
    for batches in (rows.to_batches(), rows.to_batches(7)):
        found = tally_gaps(batches, group, span, 4, kinds)
        assert list(found.kinds.columns) == ["model"]
        assert found.of().sum(axis=1).tolist() == [24, 30, 30, 30]
        for name, ms in (("a", 1.0), ("b", 2.0)):
            sample = sample_of(found.of((kinds["model"] == name).to_numpy()).sum(axis=0))
            assert len(sample) == 57
            assert sample.quantile(0.5) == pytest.approx(ms, rel=0.004)


def test_kind_with_too_many_values_is_dropped() -> None:
    made = frame(*(stream(number, [5]) for number in range(MAX_GROUPS + 5)))
    many = made.assign(model=[f"m{number}" for number in range(len(made))], turn=np.arange(len(made)) % 3)
    group, kinds = kinds_of(many, ["model", "turn"])
    assert list(kinds.columns) == ["turn"]
    assert group.max() == 2
