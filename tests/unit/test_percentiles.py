"""Nearest-rank percentiles."""

from __future__ import annotations

import pytest

from bltybench.percentiles import nearest_rank, percentile


@pytest.mark.parametrize(
    ("fraction", "n", "rank"),
    [(0.5, 1, 1), (0.5, 2, 1), (0.5, 3, 2), (0.95, 200, 190), (0.99, 100, 99), (1.0, 7, 7)],
)
def test_rank_is_the_smallest_with_the_fraction_at_or_below_it(fraction: float, n: int, rank: int) -> None:
    assert nearest_rank(fraction, n) == rank


def test_percentile_is_a_measured_value_and_none_without_values() -> None:
    assert percentile([1, 2, 3, 10], 0.5) == 2
    assert percentile([1, 2, 3, 10], 0.99) == 10
    assert percentile([], 0.5) is None
