"""Inter-token gaps, counted while they are read: a run has about a hundred times more gaps than attempts."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bltybench.metrics.frame import Bools, Floats, Ints
from bltybench.metrics.sample import Sample

MAX_COUNTED_US = 1 << 22
"""Gaps below this (4.2 s) are counted per microsecond. Longer ones are rare and kept one by one."""

SUB = 128
"""Steps per doubling in counts by kind and span: a step is at most 0.8% wide."""

LONGEST_US = 1 << 32
"""Longer gaps count as this one."""

MAX_GROUPS = 256
"""Maximum number of groups that are counted separately, so that memory use doesn't depend on the run."""


_DOUBLINGS = range(LONGEST_US.bit_length() - (2 * SUB).bit_length())
EDGES_US = np.concatenate(
    [np.arange(2 * SUB), *(np.arange(SUB, 2 * SUB) << (shift + 1) for shift in _DOUBLINGS), [LONGEST_US]]
).astype(np.int64)
"""Edges of the steps: each microsecond up to 2·SUB, then SUB steps per doubling up to LONGEST_US."""
STEPS = len(EDGES_US) - 1


def step_of(gaps_us: Ints) -> Ints:
    """Return the step in which each gap is counted."""
    return np.clip(np.searchsorted(EDGES_US, gaps_us, side="right") - 1, 0, STEPS - 1)


def middle_us(steps: Ints) -> Floats:
    """Return the middle of each step, in microseconds."""
    return np.asarray((EDGES_US[steps] + EDGES_US[steps + 1] - 1) / 2, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Gaps:
    """All gaps of the ok attempts of a run."""

    pooled: Sample
    """All of them (ms), exact to the microsecond."""
    counts: npt.NDArray[np.int32]
    """Number of gaps by group, span, and step: groups × spans × STEPS."""
    kinds: pd.DataFrame
    """One row per group; its columns are the kinds that distinguish the groups."""

    def of(self, chosen: Bools | None = None) -> Ints:
        """Return the summed counts of the chosen groups: spans × STEPS."""
        counts = self.counts if chosen is None else self.counts[chosen]
        return np.asarray(counts.sum(axis=0, dtype=np.int64))


def tally_gaps(
    batches: Iterable[pa.RecordBatch],
    group: Ints | None = None,
    span: Ints | None = None,
    spans: int = 1,
    kinds: pd.DataFrame | None = None,
) -> Gaps:
    """Count the gaps of the ok attempts, batch by batch, so that memory doesn't grow with the run.

    ``batches`` have the columns ``outcome`` and ``gaps_us``. ``group`` (a row of ``kinds``, or −1 to exclude
    the attempt) and ``span`` (0 … spans − 1) are given per row. Without them there is one group and span.
    """
    kinds = pd.DataFrame(index=[0]) if kinds is None else kinds
    exact = np.zeros(MAX_COUNTED_US, dtype=np.int64)
    rest: list[Ints] = []
    counts = np.zeros((len(kinds) * spans, STEPS), dtype=np.int32)
    counted = EDGES_US[: int(np.searchsorted(EDGES_US, MAX_COUNTED_US)) + 1]
    counted_steps = np.repeat(np.arange(len(counted) - 1, dtype=np.int16), np.diff(counted))
    start = 0
    for batch in batches:
        rows = slice(start, start + len(batch))
        start += len(batch)
        lists = batch.column("gaps_us")
        valid = pc.is_valid(lists).to_numpy(zero_copy_only=False)
        keep = pc.equal(batch.column("outcome"), "ok").to_numpy(zero_copy_only=False).astype(np.bool_) & valid
        cell = np.zeros(len(batch), dtype=np.int64)
        if group is not None and span is not None:
            keep &= group[rows] >= 0
            cell = group[rows] * spans + span[rows]
        if not np.array_equal(keep, valid):
            lists = lists.filter(pa.array(keep))
        gaps = lists.flatten().to_numpy(zero_copy_only=False)
        if len(gaps) == 0:
            continue
        if gaps.min() >= 0 and gaps.max() < MAX_COUNTED_US:
            steps, exactly = counted_steps.take(gaps), gaps
        else:
            in_range = (gaps >= 0) & (gaps < MAX_COUNTED_US)
            rest.append(gaps[~in_range])
            steps, exactly = step_of(gaps), gaps[in_range]
        per_us = np.bincount(exactly)
        exact[: len(per_us)] += per_us
        # A batch has attempts of one or two spans: count only the cells that occur.
        lengths = pc.list_value_length(lists).drop_null().to_numpy(zero_copy_only=False)
        present, place = np.unique(cell[keep], return_inverse=True)
        found = np.bincount(np.repeat(place * STEPS, lengths) + steps, minlength=len(present) * STEPS)
        counts[present] += found.reshape(-1, STEPS).astype(np.int32)
    return Gaps(_sample(exact, rest), counts.reshape(len(kinds), spans, STEPS), kinds)


def kinds_of(attempts: pd.DataFrame, columns: Iterable[str]) -> tuple[Ints, pd.DataFrame]:
    """Return the group of each attempt's gaps, and the groups (``Gaps.kinds``).

    A group is a combination of values, over the columns with two values or more. The column with the most
    values is dropped until there are at most MAX_GROUPS groups.
    """
    coded = {name: pd.factorize(attempts[name]) for name in columns}
    used = {name: (codes, names) for name, (codes, names) in coded.items() if len(names) > 1}
    while True:
        joint = np.zeros(len(attempts), dtype=np.int64)
        for codes, names in used.values():
            joint = joint * (len(names) + 1) + codes + 1
        present, first, group = np.unique(joint, return_index=True, return_inverse=True)
        if len(present) <= MAX_GROUPS or not used:
            break
        del used[max(used, key=lambda name: len(used[name][1]))]
    kinds = pd.DataFrame({name: attempts[name].iloc[first].array for name in used}, index=range(len(present)))
    return group.astype(np.int64), kinds


def sample_of(counts: Ints) -> Sample:
    """Return counts by step as a sample in ms, exact to the width of a step."""
    steps = np.flatnonzero(counts)
    return Sample(middle_us(steps) / 1000, np.cumsum(counts[steps]).astype(np.int64))


def _sample(exact: Ints, rest: list[Ints]) -> Sample:
    present = np.flatnonzero(exact)
    others, times = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *rest]), return_counts=True)
    values = np.concatenate((present, others))
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(np.concatenate((exact[present], times))[order])
    return Sample(values[order] / 1000.0, cumulative.astype(np.int64))
