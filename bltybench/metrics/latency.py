"""Percentiles that say so where their sample is too small, and the tables made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.bootstrap import effective_size, interval, quantile_draws
from bltybench.metrics.frame import Floats, Ints, floats, ints
from bltybench.metrics.gaps import Gaps, sample_of, step_of
from bltybench.metrics.sample import Sample
from bltybench.metrics.spans import Spans

BEYOND = 10
"""A percentile is shown from the sample on which at least so many values lie beyond it."""

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

COLUMNS = ["n", *(name + end for name in PERCENTILES for end in ("", "_low", "_high")), "max"]

KINDS = ("stream", "endpoint", "model", "stage", "name", "turn")
"""What latencies are told apart by: columns of attempts and of calls."""

MAX_VALUES = 200
"""Rows a kind may have, the largest first: a server can answer by as many models as it likes."""

SEED = 1


class Spread(NamedTuple):
    """How a sample lies in time."""

    below: Callable[[float], Ints]
    """How many values of each span of the run are at or below a value."""
    total: Ints
    """How many values each span has."""


class Measure(NamedTuple):
    """A sample (ms) and, where it is known, how it lies in time."""

    sample: Sample
    spread: Spread | None = None


def needed(name: str) -> int:
    """Return the smallest sample a percentile is shown for: p50 20, p90 100, p95 200, p99 1,000."""
    return round(BEYOND / (1 - PERCENTILES[name]))


def shown(sample: Sample, name: str) -> float | None:
    """Return a percentile by its name, None where the sample is too small for it."""
    return sample.quantile(PERCENTILES[name]) if len(sample) >= needed(name) else None


def describe(sample: Sample, spread: Spread | None = None) -> dict[str, float | None]:
    """Return n, p50, p90, p95, p99 and max; a percentile of too small a sample is None.

    Beside each percentile stands its 95% bootstrap interval (``p50_low``, ``p50_high``): of as many values as
    count as independent (``bootstrap.effective_size``), given how the sample lies in time; None where it lies
    in too few spans to say. Without a ``spread`` all values count as independent.
    """
    n = len(sample)
    row: dict[str, float | None] = {"n": float(n)}
    for name, share in PERCENTILES.items():
        value = row[name] = shown(sample, name)
        row[f"{name}_low"] = row[f"{name}_high"] = None
        if value is None:
            continue
        independent = n if spread is None else effective_size(spread.below(value), spread.total)
        if independent is not None:
            draws = quantile_draws(sample, share, np.random.default_rng(SEED), independent)
            row[f"{name}_low"], row[f"{name}_high"] = interval(draws)
    row["max"] = float(sample.values[-1]) if n else None
    return row


def table(measures: dict[str, Measure]) -> pd.DataFrame:
    """Return one row a sample, by its name: the columns of ``describe``, in the sample's unit."""
    frame = pd.DataFrame([describe(*each) for each in measures.values()], columns=COLUMNS)
    frame.insert(0, "name", list(measures))
    return frame.astype({"n": "int64", **dict.fromkeys(COLUMNS[1:], "Float64")})


def measures(
    attempts: pd.DataFrame, calls: pd.DataFrame, gaps: Gaps, spans: Spans | None = None
) -> dict[str, Measure]:
    """Return the samples behind every latency metric, in ms, successes only.

    ``schedule_delay`` alone is of every attempt that was sent, whatever became of it.
    """
    tries = spans.place(ints(attempts, "at_ns")) if spans is not None else None
    begun = spans.place(ints(calls, "first_due_ns")) if spans is not None else None
    count = spans.count if spans is not None else 0

    def measure(frame: pd.DataFrame, column: str, span: Ints | None) -> Measure:
        return _measure(floats(frame, column), span, count)

    return {
        "ttft": measure(attempts, "ttft_ms", tries),
        "first_output": measure(attempts, "first_output_ms", tries),
        "itl": Measure(gaps.pooled, _binned(gaps.of()) if spans is not None else None),
        "tpot": measure(attempts, "tpot_ms", tries),
        "latency": measure(calls, "latency_ms", begun),
        "attempt_latency": measure(attempts, "latency_ms", tries),
        "schedule_delay": measure(attempts, "schedule_delay_ms", tries),
    }


def by_kind(
    attempts: pd.DataFrame, calls: pd.DataFrame, gaps: Gaps | None = None, spans: Spans | None = None
) -> pd.DataFrame:
    """Return latency by each of KINDS, where there are two or more of a kind.

    Columns: ``metric`` (latency, attempt_latency, ttft, itl, tpot), ``by``, ``value``, those of ``describe``
    (ms). ITL is that of steps at most 0.8% wide.
    """
    sources = (
        ("latency", calls, "latency_ms", "first_due_ns"),
        ("attempt_latency", attempts, "latency_ms", "at_ns"),
        ("ttft", attempts, "ttft_ms", "at_ns"),
        ("tpot", attempts, "tpot_ms", "at_ns"),
    )
    parts: list[pd.DataFrame] = []

    def add(metric: str, by: str, groups: dict[str, Measure]) -> None:
        if len(groups) < 2:
            return
        part = table(groups).rename(columns={"name": "value"})
        part.insert(0, "by", by)
        part.insert(0, "metric", metric)
        parts.append(part)

    for metric, frame, column, at in sources:
        values = floats(frame, column)
        there = ~np.isnan(values)
        span = spans.place(ints(frame, at)) if spans is not None else None
        for by in KINDS:
            groups = {
                _label(by, key): _measure(
                    values[rows], span[rows] if span is not None else None, _count(spans)
                )
                for key, rows in _groups(frame[by], there)
            }
            add(metric, by, groups)
        if metric == "ttft" and gaps is not None:
            for by in gaps.kinds.columns:
                add("itl", str(by), _gap_groups(gaps, str(by)))
    if not parts:
        return pd.DataFrame({name: [] for name in ["metric", "by", "value", *COLUMNS]})
    return pd.concat(parts, ignore_index=True)


def _groups(kind: pd.Series[Any], there: np.ndarray[Any, Any]) -> Iterator[tuple[Any, Ints]]:
    """Yield each value of a kind, in order, with the rows that have it; nothing where there is but one."""
    codes, names = pd.factorize(kind, sort=True)
    codes = np.where(there, codes, -1)
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    kept = set(np.argsort(-sizes, kind="stable")[:MAX_VALUES])
    if np.count_nonzero(sizes) < 2:
        return
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.concatenate(([np.count_nonzero(codes < 0)], sizes)))
    for code, name in enumerate(names):
        if sizes[code] and code in kept:
            yield name, order[ends[code] : ends[code + 1]]


def _gap_groups(gaps: Gaps, by: str) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    codes, names = pd.factorize(gaps.kinds[by], sort=True)
    for code, name in enumerate(names):
        counts = gaps.of(codes == code)
        if counts.any():
            found[_label(by, name)] = Measure(sample_of(counts.sum(axis=0)), _binned(counts))
    return found


def _measure(values: Floats, span: Ints | None, spans: int) -> Measure:
    sample = Sample.of(values)
    if span is None:
        return Measure(sample)
    there = ~np.isnan(values)
    values, span = values[there], span[there]

    def below(limit: float) -> Ints:
        return np.bincount(span[values <= limit], minlength=spans)

    return Measure(sample, Spread(below, np.bincount(span, minlength=spans)))


def _binned(counts: Ints) -> Spread:
    """Return how gaps lie in time, from their counts by span and step."""
    upto = np.cumsum(counts, axis=1)

    def below(limit_ms: float) -> Ints:
        return np.asarray(upto[:, step_of(np.array([round(limit_ms * 1000)]))[0]], dtype=np.int64)

    return Spread(below, np.asarray(upto[:, -1], dtype=np.int64))


def _count(spans: Spans | None) -> int:
    return spans.count if spans is not None else 0


def ecdf(sample: Sample, points: int = 400) -> pd.DataFrame:
    """Return the empirical distribution in at most ``points`` rows: ``value``, ``share`` at or below it."""
    n = len(sample)
    if n == 0:
        return pd.DataFrame({"value": np.zeros(0), "share": np.zeros(0)})
    # Even steps in rank, and the extremes always: the tail is what people look for.
    ranks = np.unique(np.round(np.linspace(1, n, min(n, points))).astype(np.int64))
    return pd.DataFrame({"value": sample.at_ranks(ranks), "share": ranks / n})


def _label(by: str, key: Any) -> str:
    if by == "stream":
        return "streaming" if key else "plain"
    return str(key)
