"""The part of a run that comparisons need: small, whatever the run's size."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import ACCEPTED, REFUSED, Floats, Ints, bools, cut_off, floats, ints
from bltybench.metrics.grading import Finding
from bltybench.metrics.outcomes import ERRORS
from bltybench.metrics.rates import request_times, token_events
from bltybench.metrics.sample import Sample
from bltybench.runs.manifest import Manifest

MIN_SPAN_S = 10
"""Minimum length of a resampled span: shorter spans of the steady part are merged."""
MIN_SPANS = 6
"""Minimum number of spans: a run with fewer is not resampled."""
BINS = 2000
"""Steps of rank in which a span's timings are counted."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A run reduced to what comparisons need."""

    manifest: Manifest
    load: dict[str, Any]
    """The scenario as it ran, as in scenarios.toml."""
    faults: list[Finding]
    """Findings of the audit that do not hold; empty if the run is valid."""
    samples: dict[str, Sample]
    span_s: float
    """Length of a span. Spans don't include the warm-up."""
    timings: dict[str, Ints]
    """By sample: the number of values by span (row) and by BINS steps of rank (column)."""
    counts: dict[str, Ints]
    """Attempts, calls, and tokens in each span."""


def outline(run: Analysis) -> Outline:
    """Reduce a run, without its warm-up."""
    attempts, calls = run.attempts, run.calls
    spans = run.spans
    merged = max(1, -int(-MIN_SPAN_S // spans.span_s)) if spans.span_s else 1
    number = max(1, spans.count // merged)

    def place(at_ns: Ints) -> Ints:
        return np.minimum(spans.place(at_ns) // merged, number - 1)

    def count(at_ns: Ints, weight: Floats | None = None) -> Ints:
        return np.bincount(place(at_ns), weights=weight, minlength=number).astype(np.int64)

    at, due = ints(attempts, "at_ns"), ints(calls, "first_due_ns")
    events = token_events(attempts)
    tokens = floats(events, "prompt_tokens") + floats(events, "completion_tokens")
    json_valid, schema_valid = floats(attempts, "json_valid"), floats(attempts, "schema_valid")
    return Outline(
        manifest=run.manifest,
        load=run.scenario.model_dump(mode="json"),
        faults=[finding for finding in run.findings if not finding.holds],
        samples=run.samples,
        span_s=spans.steady_s / number,
        timings={"itl": _by_rank_of_steps(np.add.reduceat(run.gaps.of(), np.arange(number) * merged))}
        | {
            name: _by_rank(floats(frame, column), place(times), number)
            for name, frame, column, times in (
                ("ttft", attempts, "ttft_ms", at),
                ("tpot", attempts, "tpot_ms", at),
                ("attempt_latency", attempts, "latency_ms", at),
                ("latency", calls, "latency_ms", due),
            )
        },
        counts={
            "attempts": count(at),
            "accepted": count(request_times(attempts, ACCEPTED)),
            "ok": count(ints(attempts, "end_ns")[bools(attempts, "ok")]),
            "refused": count(request_times(attempts, REFUSED)),
            "errors": count(at[attempts["outcome"].isin(ERRORS).to_numpy(dtype=np.bool_)]),
            "calls": count(due[~cut_off(calls)]),
            "calls_ok": count(due[bools(calls, "ok")]),
            "tokens": count(ints(events, "at_ns"), tokens),
            "json_valid": count(at[json_valid == 1]),
            "answers in JSON": count(at[~np.isnan(json_valid)]),
            "schema_valid": count(at[schema_valid == 1]),
            "answers with a schema": count(at[~np.isnan(schema_valid)]),
        },
    )


def _by_rank(values: Floats, span: Ints, spans: int) -> Ints:
    """Count the values of each span by their rank in the whole sample, in BINS steps."""
    known = ~np.isnan(values)
    values, span = values[known], span[known]
    if len(values) == 0:
        return np.zeros((spans, BINS), dtype=np.int64)
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    step = rank * BINS // len(values)
    return np.bincount(span * BINS + step, minlength=spans * BINS).reshape(spans, BINS).astype(np.int64)


def _by_rank_of_steps(counts: Ints) -> Ints:
    """Do the same for counts by span and step of value. All values of a step get the rank of its middle."""
    steps = counts.sum(axis=0)
    n = int(steps.sum())
    by_rank = np.zeros((BINS, len(counts)), dtype=np.int64)
    if n:
        middle = np.cumsum(steps) - steps / 2
        np.add.at(by_rank, np.minimum(middle * BINS / n, BINS - 1).astype(np.int64), counts.T)
    return np.ascontiguousarray(by_rank.T)
