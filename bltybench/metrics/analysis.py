"""All tables of one run, computed once and shared by the page, the summary and the checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from bltybench.metrics import (
    ceiling,
    concurrency,
    latency,
    outcomes,
    quota,
    rates,
    steady,
    timeline,
    validity,
)
from bltybench.metrics.concurrency import InFlight
from bltybench.metrics.frame import LEFT_OUT, Bools, attempts_frame, calls_frame, ints, run_end_ns, to_frame
from bltybench.metrics.gaps import Gaps, kinds_of, tally_gaps
from bltybench.metrics.goodput import Goodput, good_calls, goodput
from bltybench.metrics.lengths import lengths
from bltybench.metrics.retries import Retries, retries
from bltybench.metrics.sample import Sample
from bltybench.metrics.spans import Spans, steady_spans
from bltybench.metrics.spend import Spent, spent
from bltybench.metrics.stages import by_stage
from bltybench.metrics.steady import WarmUp
from bltybench.metrics.validity import Finding
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Manifest
from bltybench.runs.store import attempt_columns, gap_batches, read_generator


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a run comes to. Frames as the functions of this package document them."""

    manifest: Manifest
    end_ns: int
    """End of what was observed, on the run's axis."""
    attempts: pd.DataFrame
    calls: pd.DataFrame
    generator: pd.DataFrame
    spans: Spans
    """The steady part, as the intervals take it apart."""
    samples: dict[str, Sample]
    """Latency samples in ms, by metric: those of ``latency.measures``."""
    gaps: Gaps
    percentiles: pd.DataFrame
    percentiles_by: pd.DataFrame
    best: pd.DataFrame
    minutes: pd.DataFrame
    timeline: pd.DataFrame
    rolling: pd.DataFrame
    steps: pd.DataFrame
    in_flight: InFlight
    outcomes: pd.DataFrame
    errors: pd.DataFrame
    refusals: pd.DataFrame
    retry_after: pd.DataFrame
    retries: Retries
    quota: pd.DataFrame
    findings: list[Finding]
    warm_up: WarmUp
    """What is left out of attempts, calls and what comes from them. The timeline, the minutes, what was in
    flight and the audit are of everything."""
    objectives: dict[str, float]
    goodput: Goodput
    stages: pd.DataFrame
    drift: pd.DataFrame
    lengths: pd.DataFrame
    spent: Spent

    @property
    def valid(self) -> bool:
        """Whether the generator kept up and the run was whole."""
        return all(finding.holds for finding in self.findings)

    def best_of(self, rate: str) -> float:
        """Return the best rolling 60 s of a rate (requests or tokens a minute)."""
        return float(self.best.loc[self.best["rate"] == rate, "per_min"].iloc[0])

    def count_of(self, rate: str) -> int:
        """Return how many requests or tokens of a rate the whole run had."""
        return int(self.best.loc[self.best["rate"] == rate, "count"].iloc[0])

    def timing(self, name: str) -> dict[str, float | None]:
        """Return n, p50 … p99 and max (ms) of a latency metric; None where the sample is too small."""
        row = self.percentiles[self.percentiles["name"] == name].iloc[0]
        return {column: None if pd.isna(row[column]) else float(row[column]) for column in latency.COLUMNS}


def load(folder: RunFolder) -> Analysis:
    """Read a run, sealed or not, and compute everything. Raises UserError where it cannot be read."""
    attempts = attempts_frame(attempt_columns(folder, without=LEFT_OUT))
    return _compute(attempts, gap_batches(folder), read_generator(folder), folder.manifest())


def analyse(attempts_table: pa.Table, generator_table: pa.Table, manifest: Manifest) -> Analysis:
    """Compute every table of a run from its two Arrow tables and its manifest."""
    return _compute(attempts_frame(attempts_table), attempts_table.to_batches(), generator_table, manifest)


def _compute(
    everything: pd.DataFrame,
    with_gaps: Iterable[pa.RecordBatch],
    generator_table: pa.Table,
    manifest: Manifest,
) -> Analysis:
    excluded, warm_up = steady.warm_up(everything, manifest)
    attempts = everything[~excluded].reset_index(drop=True) if excluded.any() else everything
    generator = to_frame(generator_table)
    calls = calls_frame(attempts)
    end_ns = run_end_ns(everything, manifest.ended_ns)
    spans = steady_spans(calls, manifest, end_ns)
    gaps = _gaps(with_gaps, everything, excluded, spans)
    measures = latency.measures(attempts, calls, gaps, spans)
    steps = concurrency.steps(everything)
    objectives = manifest.resolved.get("objectives") or {}
    good = good_calls(attempts, calls, objectives)
    refused = quota.refusals(attempts)
    tokens = rates.token_events(everything)
    return Analysis(
        manifest=manifest,
        end_ns=end_ns,
        attempts=attempts,
        calls=calls,
        generator=generator,
        spans=spans,
        samples={name: measure.sample for name, measure in measures.items()},
        gaps=gaps,
        percentiles=latency.table(measures),
        percentiles_by=latency.by_kind(attempts, calls, gaps, spans),
        best=rates.best(attempts, tokens if attempts is everything else None),
        minutes=rates.per_minute(everything, manifest.clock.wall_ns, end_ns, tokens),
        timeline=timeline.timeline(everything, steps, end_ns, tokens),
        rolling=timeline.rolling(everything, steps, end_ns, tokens),
        steps=steps,
        in_flight=concurrency.in_flight(steps, end_ns),
        outcomes=outcomes.by_outcome(attempts),
        errors=outcomes.errors(attempts),
        refusals=refused,
        retry_after=quota.retry_after(refused),
        retries=retries(calls),
        quota=quota.headers(attempts),
        findings=[*validity.audit(everything, generator, manifest), *ceiling.findings(generator, manifest)],
        warm_up=warm_up,
        objectives={name: bound for name, bound in objectives.items() if bound is not None},
        goodput=goodput(calls, good, steady.steady_s(manifest, end_ns)),
        stages=by_stage(attempts, calls, good, manifest.resolved, everything),
        drift=steady.drift(attempts, manifest),
        lengths=lengths(attempts),
        spent=spent(everything, manifest),
    )


def _gaps(batches: Iterable[pa.RecordBatch], attempts: pd.DataFrame, excluded: Bools, spans: Spans) -> Gaps:
    """Count the gaps of what is not warm-up. ``attempts`` are all of the run, as the batches have them."""
    group, kinds = kinds_of(attempts, (name for name in latency.KINDS if name != "stream"))
    group[excluded] = -1
    return tally_gaps(batches, group, spans.place(ints(attempts, "at_ns")), spans.count, kinds)
