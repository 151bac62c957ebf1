"""A sample of measurements in order, small even where millions of them are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from bltybench.metrics.frame import Floats, Ints
from bltybench.percentiles import nearest_rank


@dataclass(frozen=True, slots=True)
class Sample:
    """Values in ascending order, and for each how many of the sample are at or below it."""

    values: Floats
    upto: Ints

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Take the values that are there (NaN is not)."""
        there = values[~np.isnan(values)]
        # A look at the order costs a fraction of sorting, and much comes in order already.
        ascending = there if bool(np.all(there[1:] >= there[:-1])) else np.sort(there)
        return cls(ascending, np.arange(1, len(ascending) + 1, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.upto[-1]) if len(self.upto) else 0

    def at_ranks(self, ranks: Ints) -> Floats:
        """Return the values at ranks (1 … n) of the sample in order."""
        return self.values[np.searchsorted(self.upto, ranks)]

    def quantile(self, share: float) -> float:
        """Return the nearest-rank quantile: the smallest value with at least ``share`` of all up to it."""
        return float(self.at_ranks(np.array([nearest_rank(share, len(self))]))[0])
