"""A sorted sample of measurements, compact if many values are equal."""

from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np

from bltybench.metrics.frame import Floats, Ints
from bltybench.percentiles import nearest_rank


@cache
def _ranks(count: int) -> Ints:
    """Return 1 … ``count``, which samples of similar size share."""
    return np.arange(1, count + 1, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Sample:
    """Ascending values, each with the number of measurements at or below it."""

    values: Floats
    cumulative: Ints

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Make a sample of values; NaN is ignored."""
        known = values[~np.isnan(values)]
        # Checking the order is much cheaper than sorting, and many columns are in order already.
        ascending = known if bool(np.all(known[1:] >= known[:-1])) else np.sort(known)
        return cls(ascending, _ranks(1 << len(ascending).bit_length())[: len(ascending)])

    def __len__(self) -> int:
        return int(self.cumulative[-1]) if len(self.cumulative) else 0

    def at_ranks(self, ranks: Ints) -> Floats:
        """Return the values at ranks (1 … n)."""
        return self.values[np.searchsorted(self.cumulative, ranks)]

    def quantile(self, fraction: float) -> float:
        """Return the nearest-rank quantile."""
        return float(self.at_ranks(np.array([nearest_rank(fraction, len(self))]))[0])
