"""Inter-token gaps: counted while they are read, for a run has a hundred times more of them than attempts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bltybench.metrics.frame import Ints
from bltybench.metrics.sample import Sample

COUNTED_US = 1 << 22
"""Gaps below this (4.2 s) are counted by the microsecond; longer ones, which are few, are kept one by one."""

SUB = 128
"""Steps that a doubling is cut into where gaps are counted by kind and span: each is 0.8% wide at most."""

LONGEST = 1 << 32

MAX_GROUPS = 256
"""Kinds that are counted apart: what they take in memory does not depend on the run's length."""


def step_of(gaps_us: Ints) -> Ints:
    """Return the step that each gap is counted in: by the microsecond up to 2·SUB, then by SUB a doubling."""
    gaps = np.clip(gaps_us, 0, LONGEST - 1)
    power = np.frexp(np.maximum(gaps, 2 * SUB).astype(np.float64))[1] - 1
    shift = power - (SUB.bit_length() - 1)
    wide = 2 * SUB + (shift - 1) * SUB + ((gaps >> shift) - SUB)
    return np.where(gaps < 2 * SUB, gaps, wide).astype(np.int64)


def widths() -> Ints:
    """Return how many microseconds each step is wide, as far as gaps are counted by the microsecond too."""
    shift = np.maximum((np.arange(STEPS) - 2 * SUB) // SUB + 1, 0)
    width = 1 << shift
    return np.where(np.cumsum(width) - width < COUNTED_US, width, 0)


STEPS = int(step_of(np.array([LONGEST - 1]))[0]) + 1


def middle_us(steps: Ints) -> npt.NDArray[np.float64]:
    """Return the gap in the middle of each step (µs)."""
    shift = np.maximum((steps - 2 * SUB) // SUB + 1, 0)
    low = np.where(steps < 2 * SUB, steps, ((steps - 2 * SUB) % SUB + SUB) << shift)
    return np.asarray(low + ((1 << shift) - 1) / 2, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Every gap of the ok attempts of a run."""

    pooled: Sample
    """All of them (ms), exact to the microsecond."""
    counts: npt.NDArray[np.int32]
    """How many each group has in each span and each step: groups × spans × STEPS."""
    kinds: pd.DataFrame
    """What each group is: a row a group, in columns the kinds that tell them apart."""

    def of(self, chosen: npt.NDArray[np.bool_] | None = None) -> Ints:
        """Return the counts of the chosen groups together: spans × STEPS."""
        counts = self.counts if chosen is None else self.counts[chosen]
        return np.asarray(counts.sum(axis=0, dtype=np.int64))


def tally_gaps(
    batches: Iterable[pa.RecordBatch],
    group: Ints | None = None,
    span: Ints | None = None,
    spans: int = 1,
    kinds: pd.DataFrame | None = None,
) -> Gaps:
    """Count the gaps of the ok attempts; batches are looked at one by one, so memory does not grow with them.

    ``batches`` have the columns ``outcome`` and ``gaps_us``, row by row as in ``group`` (a row of ``kinds``;
    −1: left out) and ``span`` (0 … spans − 1). Without them all are of one group and span.
    """
    kinds = pd.DataFrame(index=[0]) if kinds is None else kinds
    exact = np.zeros(COUNTED_US, dtype=np.int64)
    rest: list[Ints] = []
    counts = np.zeros((len(kinds) * spans, STEPS), dtype=np.int32)
    usual_steps = np.repeat(np.arange(STEPS, dtype=np.int16), widths())[:COUNTED_US]
    start = 0
    for batch in batches:
        rows = slice(start, start + len(batch))
        start += len(batch)
        lists = batch.column("gaps_us")
        there = pc.is_valid(lists).to_numpy(zero_copy_only=False)
        keep = pc.equal(batch.column("outcome"), "ok").to_numpy(zero_copy_only=False).astype(np.bool_) & there
        cell = np.zeros(len(batch), dtype=np.int64)
        if group is not None and span is not None:
            keep &= group[rows] >= 0
            cell = group[rows] * spans + span[rows]
        if not np.array_equal(keep, there):
            lists = lists.filter(pa.array(keep))
        gaps = lists.flatten().to_numpy(zero_copy_only=False)
        if len(gaps) == 0:
            continue
        lengths = pc.list_value_length(lists).drop_null().to_numpy(zero_copy_only=False)
        present, place = np.unique(cell[keep], return_inverse=True)
        if gaps.min() >= 0 and gaps.max() < COUNTED_US:
            steps = usual_steps.take(gaps)
            found = np.bincount(gaps)
            exact[: len(found)] += found
        else:
            usual = (gaps >= 0) & (gaps < COUNTED_US)
            rest.append(gaps[~usual])
            steps = step_of(gaps)
            found = np.bincount(gaps[usual])
            exact[: len(found)] += found
        # One batch is mostly of one or two spans: only the cells that it has are counted.
        where = np.repeat(place * STEPS, lengths) + steps
        counts[present] += (
            np.bincount(where, minlength=len(present) * STEPS).reshape(-1, STEPS).astype(np.int32)
        )
    return Gaps(_sample(exact, rest), counts.reshape(len(kinds), spans, STEPS), kinds)


def kinds_of(attempts: pd.DataFrame, columns: Iterable[str]) -> tuple[Ints, pd.DataFrame]:
    """Return the group that each attempt's gaps belong to, and what the groups are (``Gaps.kinds``).

    A group is a combination of the columns' values that occurs, of columns with two values or more. Where
    there are more than MAX_GROUPS of them the column with the most values is left out, until there are not.
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
    kinds = pd.DataFrame(
        {name: attempts[name].iloc[first].array for name in used},
        index=range(len(present)),
    )
    return group.astype(np.int64), kinds


def sample_of(counts: Ints) -> Sample:
    """Return counts by step (of one span or of all together) as a sample in ms, to the width of a step."""
    steps = np.flatnonzero(counts)
    return Sample(middle_us(steps) / 1000, np.cumsum(counts[steps]).astype(np.int64))


def _sample(exact: Ints, rest: list[Ints]) -> Sample:
    present = np.flatnonzero(exact)
    others, times = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *rest]), return_counts=True)
    values = np.concatenate((present, others))
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(np.concatenate((exact[present], times))[order])
    return Sample(values[order] / 1000.0, upto.astype(np.int64))
