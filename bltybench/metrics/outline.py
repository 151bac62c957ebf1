"""What comparing needs of a run: small, whatever the run's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import ACCEPTED, NS_PER_S, REFUSED, Floats, Ints, floats, ints
from bltybench.metrics.outcomes import ERRORS
from bltybench.metrics.rates import request_times, token_events
from bltybench.metrics.sample import Sample
from bltybench.runs.manifest import Manifest

SPANS = 30
"""A run is cut into so many spans of equal length, which are resampled whole: what lies close together in
time (a full window, a slow minute) is not independent."""

MIN_SPAN_S = 10
MIN_SPANS = 6

BINS = 2000
"""Steps of rank in which a span's timings are counted."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A run, boiled down."""

    manifest: Manifest
    reasons: list[str]
    """Why the run is INVALID; empty where it is valid."""
    samples: dict[str, Sample]
    span_s: float
    timings: dict[str, Ints]
    """Of a sample: how many values of each span (row) lie in each of BINS steps of rank (column)."""
    counts: dict[str, Ints]
    """Attempts and calls by what became of them, and tokens, in each span."""


def outline(run: Analysis) -> Outline:
    """Keep of a run what comparing needs."""
    attempts, calls = run.attempts, run.calls
    load_ns = run.manifest.ended_ns if run.manifest.ended_ns is not None else run.end_ns
    spans = min(SPANS, int(load_ns // (MIN_SPAN_S * NS_PER_S)))
    # What ends after the load has stopped belongs to the last span.
    edges = np.linspace(0, load_ns, max(spans, 1) + 1)[1:-1]

    def place(at_ns: Ints) -> Ints:
        return np.searchsorted(edges, at_ns, side="right").astype(np.int64)

    def count(at_ns: Ints, weight: Floats | None = None) -> Ints:
        return np.bincount(place(at_ns), weights=weight, minlength=len(edges) + 1).astype(np.int64)

    at, due = ints(attempts, "at_ns"), ints(calls, "first_due_ns")
    ok, calls_ok = attempts["ok"].to_numpy(dtype=np.bool_), calls["ok"].to_numpy(dtype=np.bool_)
    events = token_events(attempts)
    tokens = floats(events, "prompt_tokens") + floats(events, "completion_tokens")
    return Outline(
        manifest=run.manifest,
        reasons=[finding.says for finding in run.findings if not finding.holds],
        samples=run.samples,
        span_s=load_ns / NS_PER_S / spans if spans else 0.0,
        timings={
            name: _by_rank(floats(frame, column), place(times), len(edges) + 1)
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
            "ok": count(ints(attempts, "end_ns")[ok]),
            "refused": count(request_times(attempts, REFUSED)),
            "errors": count(at[attempts["outcome"].isin(ERRORS).to_numpy(dtype=np.bool_)]),
            "calls": count(due),
            "calls_ok": count(due[calls_ok]),
            "tokens": count(ints(events, "at_ns"), tokens),
        },
    )


def _by_rank(values: Floats, span: Ints, spans: int) -> Ints:
    """Count the values of each span by their rank in the whole sample, in BINS steps."""
    there = ~np.isnan(values)
    values, span = values[there], span[there]
    if len(values) == 0:
        return np.zeros((spans, BINS), dtype=np.int64)
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    step = rank * BINS // len(values)
    return np.bincount(span * BINS + step, minlength=spans * BINS).reshape(spans, BINS).astype(np.int64)
