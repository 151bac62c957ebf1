"""A sample of measurements in order, small even where millions of them are alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bltybench.metrics.frame import Floats, Ints

COUNTED_US = 1 << 22
"""Gaps below this (4.2 s) are counted by the microsecond; longer ones, which are few, are kept one by one."""


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
        # The product is rounded first: 0.95 × 200 must be rank 190, whatever floating point makes of it.
        rank = int(np.ceil(round(share * len(self), 9)))
        return float(self.at_ranks(np.array([max(rank, 1)]))[0])


def tally_gaps(batches: Iterable[pa.RecordBatch]) -> Sample:
    """Return every inter-token gap (ms) of the ok attempts as one sample, exact to the microsecond.

    ``batches`` have the columns ``outcome`` and ``gaps_us``. They are looked at one by one, so a run of any
    length takes as much memory as its longest batch.
    """
    counts = np.zeros(COUNTED_US, dtype=np.int64)
    rest: list[Ints] = []
    for batch in batches:
        ok = pc.equal(batch.column("outcome"), "ok")
        gaps = batch.column("gaps_us").filter(ok).flatten().to_numpy(zero_copy_only=False)
        usual = (gaps >= 0) & (gaps < COUNTED_US)
        if not usual.all():
            rest.append(gaps[~usual])
            gaps = gaps[usual]
        found = np.bincount(gaps)
        counts[: len(found)] += found
    present = np.flatnonzero(counts)
    others, times = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *rest]), return_counts=True)
    values = np.concatenate((present, others))
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(np.concatenate((counts[present], times))[order])
    return Sample(values[order] / 1000.0, upto.astype(np.int64))
