"""Samples in order, and the gaps of all streams counted into one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_runs import S, attempt, table

from bltybench.metrics.sample import COUNTED_US, Sample, tally_gaps
from bltybench.runs.attempt import Attempt, Outcome


def stream(number: int, gaps_us: list[int], outcome: Outcome = Outcome.OK) -> Attempt:
    return attempt(
        call_id=f"c{number}", stream=True, first_token_ns=S, end_ns=9 * S, gaps_us=gaps_us, outcome=outcome
    )


def test_gaps_are_those_of_successes() -> None:
    rows = table(
        attempt(), stream(1, [5], Outcome.BROKEN_STREAM), stream(2, [100_000, 200_000]), stream(3, [])
    )
    found = tally_gaps(rows.to_batches())
    assert found.values.tolist() == [100.0, 200.0]
    assert len(found) == 2
    assert len(tally_gaps(table().to_batches())) == 0


def test_batches_add_up_and_gaps_of_any_length_are_exact() -> None:
    gaps = [20_000, 20_000, COUNTED_US - 1, COUNTED_US, 7 * COUNTED_US + 1, 0]
    batches = [*table(stream(1, gaps)).to_batches(), *table(stream(2, gaps[:1])).to_batches()]
    found = tally_gaps(batches)
    assert found.values.tolist() == sorted({gap / 1000 for gap in gaps})
    assert found.upto.tolist() == [1, 4, 5, 6, 7]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.floats(0, 1))
def test_a_counted_sample_has_the_quantiles_of_the_values_themselves(gaps: list[int], share: float) -> None:
    counted = tally_gaps(table(stream(1, gaps)).to_batches())
    plain = Sample.of(np.array(gaps, dtype=np.float64) / 1000)
    assert len(counted) == len(plain) == len(gaps)
    assert counted.quantile(share) == plain.quantile(share)
    assert counted.at_ranks(np.arange(1, len(gaps) + 1)).tolist() == plain.values.tolist()


@pytest.mark.parametrize("order", [[3.0, 1.0, np.nan, 2.0], [np.nan, 1.0, 2.0, 3.0]])
def test_a_sample_is_in_order_and_without_what_is_missing(order: list[float]) -> None:
    assert Sample.of(np.array(order)).values.tolist() == [1.0, 2.0, 3.0]
