"""Nearest-rank percentiles: a percentile is always a value that was measured."""

import math
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T", int, float)


def nearest_rank(fraction: float, n: int) -> int:
    """Return the rank (1 … n) of a percentile: ⌈fraction · n⌉, and at least 1."""
    # Rounded first: 0.95 × 200 is rank 190, despite floating point.
    return max(1, math.ceil(round(fraction * n, 9)))


def percentile(ordered: Sequence[T], fraction: float) -> T | None:
    """Return a percentile of ascending values; None if there are none."""
    return ordered[nearest_rank(fraction, len(ordered)) - 1] if ordered else None
