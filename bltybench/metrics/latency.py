"""Latency percentiles with intervals, shown only if the sample is large enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from bltybench.metrics.bootstrap import effective_size, interval, quantile_draws
from bltybench.metrics.frame import Bools, Floats, Ints, first_token_coalesced, floats, ints
from bltybench.metrics.gaps import Gaps, sample_of, step_of
from bltybench.metrics.sample import Sample
from bltybench.metrics.spans import Spans

MIN_BEYOND = 10
"""Minimum number of values above a percentile for it to be shown."""

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

COLUMNS = ["n", *(name + end for name in PERCENTILES for end in ("", "_low", "_high")), "max"]

AT_MOST = "at_most"
"""Column of tables: whether the percentiles are upper bounds."""

KINDS = ("target", "key", "stream", "endpoint", "model", "stage", "name", "turn")
"""Columns of attempts and calls by which latencies are broken down."""

MAX_UNMARKED_SHARE = 0.001
"""Fraction of values that are upper bounds above which percentiles are, too. Fewer hardly move p99."""

MAX_VALUES = 200
"""Maximum rows per kind, largest first: a server can report any number of models."""

SEED = 1
"""Seed of the draws: the same run gives the same intervals."""


Spanned = npt.NDArray[np.int16]
"""The span of each value. There are few spans, and every measure keeps its own array."""


class Spread(NamedTuple):
    """The distribution of a sample over the spans of a run."""

    below: Callable[[float], Ints]
    """Returns the number of values at or below a limit, by span."""
    total: Ints
    """Number of values, by span."""


class Measure(NamedTuple):
    """A sample (ms), and its distribution over time."""

    sample: Sample
    spread: Spread
    upper_bounds: int = 0
    """Number of values that are upper bounds: TTFT of streams whose first token shared its read."""

    @property
    def at_most(self) -> bool:
        """Whether the percentiles are upper bounds."""
        return self.upper_bounds > MAX_UNMARKED_SHARE * len(self.sample)


def min_sample(name: str) -> int:
    """Return the smallest sample for which a percentile is shown: p50 20, p90 100, p95 200, p99 1,000."""
    return round(MIN_BEYOND / (1 - PERCENTILES[name]))


def shown(sample: Sample, name: str) -> float | None:
    """Return a percentile by its name, or None if the sample is too small for it."""
    return sample.quantile(PERCENTILES[name]) if len(sample) >= min_sample(name) else None


def describe(sample: Sample, spread: Spread | None = None) -> dict[str, float | None]:
    """Return n, p50, p90, p95, p99, and max; a percentile is None if the sample is too small for it.

    Each percentile has a 95% bootstrap interval (``p50_low``, ``p50_high``) for the effective size of the
    sample (``bootstrap.effective_size``). It is None if the sample has too few spans. Without a ``spread``,
    all values count as independent.
    """
    n = len(sample)
    row: dict[str, float | None] = {"n": float(n)}
    for name, fraction in PERCENTILES.items():
        value = row[name] = shown(sample, name)
        row[f"{name}_low"] = row[f"{name}_high"] = None
        if value is None:
            continue
        independent = n if spread is None else effective_size(spread.below(value), spread.total)
        if independent is not None:
            draws = quantile_draws(sample, fraction, np.random.default_rng(SEED), independent)
            row[f"{name}_low"], row[f"{name}_high"] = interval(draws)
    row["max"] = float(sample.values[-1]) if n else None
    return row


def table(measures: dict[str, Measure]) -> pd.DataFrame:
    """Return one row per sample: ``name``, the columns of ``describe`` in the sample's unit, and AT_MOST."""
    return _frame(["name"], [{"name": name, **_row(measure)} for name, measure in measures.items()])


def _row(measure: Measure) -> dict[str, Any]:
    return describe(measure.sample, measure.spread) | {AT_MOST: measure.at_most}


def _frame(keys: list[str], rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of ``keys`` and statistics. One frame for all is much faster than one per sample."""
    frame = pd.DataFrame(rows, columns=[*keys, *COLUMNS, AT_MOST])
    return frame.astype({"n": "int64", **dict.fromkeys(COLUMNS[1:], "Float64"), AT_MOST: "bool"})


def measures(attempts: pd.DataFrame, calls: pd.DataFrame, gaps: Gaps, spans: Spans) -> dict[str, Measure]:
    """Return the samples of all latency metrics, in ms.

    They contain successes only, except ``schedule_delay``, which has every attempt that was sent.
    """
    span, call_span = _spans_of(attempts, "at_ns", spans), _spans_of(calls, "first_due_ns", spans)
    late = first_token_coalesced(attempts)
    output_late = late & (floats(attempts, "first_output_ns") == floats(attempts, "first_token_ns"))
    return {
        "ttft": _measure_of(floats(attempts, "ttft_ms"), span, spans.count, late),
        "first_output": _measure_of(floats(attempts, "first_output_ms"), span, spans.count, output_late),
        "itl": Measure(gaps.pooled, _gap_spread(gaps.of())),
        "tpot": _measure_of(floats(attempts, "tpot_ms"), span, spans.count),
        "latency": _measure_of(floats(calls, "latency_ms"), call_span, spans.count),
        "attempt_latency": _measure_of(floats(attempts, "latency_ms"), span, spans.count),
        "schedule_delay": _measure_of(floats(attempts, "schedule_delay_ms"), span, spans.count),
    }


def by_kind(attempts: pd.DataFrame, calls: pd.DataFrame, gaps: Gaps, spans: Spans) -> pd.DataFrame:
    """Return latency by KINDS that have two or more values.

    Columns: ``metric`` (latency, attempt_latency, ttft, itl, tpot), ``by``, ``value``, and those of
    ``table`` (ms). ITL is exact to steps of at most 0.8%.
    """
    rows = [
        {"metric": metric, "by": by, "value": value, **_row(measure)}
        for metric, by, groups in _grouped(attempts, calls, gaps, spans)
        if len(groups) > 1
        for value, measure in groups.items()
    ]
    return _frame(["metric", "by", "value"], rows)


def _grouped(
    attempts: pd.DataFrame, calls: pd.DataFrame, gaps: Gaps, spans: Spans
) -> Iterator[tuple[str, str, dict[str, Measure]]]:
    """Yield each metric, each kind, and its measures by value."""
    for frame, at, metrics in (
        (calls, "first_due_ns", {"latency": "latency_ms"}),
        (attempts, "at_ns", {"attempt_latency": "latency_ms", "ttft": "ttft_ms", "tpot": "tpot_ms"}),
    ):
        span = _spans_of(frame, at, spans)
        kinds = {by: pd.factorize(frame[by], sort=True) for by in KINDS}
        for metric, column in metrics.items():
            values = floats(frame, column)
            late = first_token_coalesced(frame) if metric == "ttft" else None
            for by, (codes, names) in kinds.items():
                groups = _groups(codes, names, ~np.isnan(values))
                yield (
                    metric,
                    by,
                    {
                        _label(by, key): _measure_of(
                            values[rows], span[rows], spans.count, None if late is None else late[rows]
                        )
                        for key, rows in groups
                    },
                )
            if metric == "ttft":
                for by in gaps.kinds.columns:
                    yield "itl", str(by), _gap_groups(gaps, str(by))


def _groups(codes: Ints, names: Iterable[Any], known: Bools) -> Iterator[tuple[Any, Ints]]:
    """Yield each value of a kind, in order, with its rows; nothing if there is only one."""
    names = list(names)
    # Short integers are sorted ten times faster.
    codes = np.where(known, codes, -1).astype(np.int16 if len(names) < 1 << 15 else np.int64)
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
    groups: dict[str, Measure] = {}
    codes, names = pd.factorize(gaps.kinds[by], sort=True)
    for code, name in enumerate(names):
        counts = gaps.of(codes == code)
        if counts.any():
            groups[_label(by, name)] = Measure(sample_of(counts.sum(axis=0)), _gap_spread(counts))
    return groups


def _spans_of(frame: pd.DataFrame, at: str, spans: Spans) -> Spanned:
    return spans.place(ints(frame, at)).astype(np.int16)


def _measure_of(values: Floats, span: Spanned, count: int, late: Bools | None = None) -> Measure:
    """Return the measure of values. Those that are ``late`` are upper bounds."""
    sample, known = Sample.of(values), ~np.isnan(values)
    upper_bounds = 0 if late is None else int(np.count_nonzero(late & known))
    values, span = values[known], span[known]

    def below(limit: float) -> Ints:
        return np.bincount(span[values <= limit], minlength=count)

    return Measure(sample, Spread(below, np.bincount(span, minlength=count)), upper_bounds)


def _gap_spread(counts: Ints) -> Spread:
    """Return the distribution of gaps over time, from their counts by span and step."""
    cumulative = np.cumsum(counts, axis=1)

    def below(limit_ms: float) -> Ints:
        step = step_of(np.array([round(limit_ms * 1000)]))[0]
        return np.asarray(cumulative[:, step], dtype=np.int64)

    return Spread(below, np.asarray(cumulative[:, -1], dtype=np.int64))


def ecdf(sample: Sample, points: int = 400) -> pd.DataFrame:
    """Return the empirical distribution in up to ``points`` rows: ``value``, ``share`` at or below it."""
    n = len(sample)
    if n == 0:
        return pd.DataFrame({"value": np.zeros(0), "share": np.zeros(0)})
    # Even steps in rank, including the extremes, which show the tail.
    ranks = np.unique(np.round(np.linspace(1, n, min(n, points))).astype(np.int64))
    return pd.DataFrame({"value": sample.at_ranks(ranks), "share": ranks / n})


def histogram(sample: Sample, edges: Floats) -> Ints:
    """Return the number of values in each bin, above its lower edge up to its upper one."""
    below = np.concatenate(([0], sample.cumulative))[np.searchsorted(sample.values, edges, side="right")]
    return np.diff(below)


def _label(by: str, key: Any) -> str:
    if by == "stream":
        return "streaming" if key else "plain"
    return str(key)
