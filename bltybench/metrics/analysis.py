"""All tables of one run, computed once and shared by the page, the summary, and the checks."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from bltybench.imports.record import ImportRecord, read_import
from bltybench.metrics import concurrency, latency, outcomes, quota, rates, steady, timeline, validity
from bltybench.metrics.concurrency import InFlight
from bltybench.metrics.documented import ComparedLimit, WholeRun, compare_scopes
from bltybench.metrics.failure import failure, main_target
from bltybench.metrics.frame import (
    UNUSED_COLUMNS,
    Bools,
    attempts_frame,
    calls_frame,
    in_one_read,
    ints,
    run_end_ns,
    to_frame,
)
from bltybench.metrics.gaps import Gaps, kinds_of, tally_gaps
from bltybench.metrics.goodput import Goodput, good_calls, goodput
from bltybench.metrics.grading import Finding
from bltybench.metrics.imported import audit_import
from bltybench.metrics.lengths import lengths
from bltybench.metrics.retries import RetryStats, retries
from bltybench.metrics.routes import by_route, scopes
from bltybench.metrics.sample import Sample
from bltybench.metrics.spans import Spans, steady_spans
from bltybench.metrics.spend import Spent, spent
from bltybench.metrics.stages import by_stage
from bltybench.metrics.steady import WarmUp
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Manifest, read_scenario
from bltybench.runs.store import attempt_columns, gap_batches, read_generator, readable
from bltybench.scenario.api.documented_limits import Limit, sum_limits
from bltybench.scenario.workload import Scenario


@dataclass(frozen=True, slots=True)
class Analysis:
    """All tables of a run. The functions of this package document the frames."""

    manifest: Manifest
    scenario: Scenario
    end_ns: int
    """End of the observed time, on the run's axis."""
    attempts: pd.DataFrame
    calls: pd.DataFrame
    generator: pd.DataFrame
    spans: Spans
    samples: dict[str, Sample]
    """Latency samples in ms, by metric (``latency.measures``)."""
    gaps: Gaps
    percentiles: pd.DataFrame
    percentiles_by: pd.DataFrame
    best: pd.DataFrame
    documented: list[ComparedLimit]
    """Those of each key, model, and target that has its own."""
    limits: list[Limit]
    """Documented limits of the whole run: those of several keys, models, or targets added up."""
    routes: pd.DataFrame
    minutes: pd.DataFrame
    timeline: pd.DataFrame
    rolling: pd.DataFrame
    steps: pd.DataFrame
    in_flight: InFlight
    outcomes: pd.DataFrame
    errors: pd.DataFrame
    finish_reasons: pd.DataFrame
    notes: pd.DataFrame
    answer_checks: pd.DataFrame
    refusals: pd.DataFrame
    refusal_messages: pd.DataFrame
    retry_after: pd.DataFrame
    retries: RetryStats
    quota: pd.DataFrame
    findings: list[Finding]
    failure: str | None
    """Why nothing succeeded in the whole run; None if something did."""
    warm_up: WarmUp
    """Excluded from attempts, calls, and all tables made of them. The timeline, the minutes, the number in
    flight, and the audit cover the whole run."""
    goodput: Goodput
    stages: pd.DataFrame
    drift: pd.DataFrame
    lengths: pd.DataFrame
    spent: Spent
    imported: ImportRecord | None
    """The log that an imported run is from; None for a run that sent its requests."""

    @property
    def valid(self) -> bool:
        """Whether all findings of the audit hold."""
        return all(finding.holds for finding in self.findings)

    def best_of(self, rate: str) -> float:
        """Return the best rolling 60 s of a rate (requests or tokens per minute)."""
        return float(self.best.loc[self.best["rate"] == rate, "per_min"].iloc[0])

    def count_of(self, rate: str) -> int:
        """Return the number of requests or tokens of a rate in the whole run."""
        return int(self.best.loc[self.best["rate"] == rate, "count"].iloc[0])

    def timing(self, name: str) -> dict[str, float | None]:
        """Return n, percentiles, and max (ms) of a latency metric; None if the sample is too small."""
        row = self.percentiles[self.percentiles["name"] == name].iloc[0]
        return {column: None if pd.isna(row[column]) else float(row[column]) for column in latency.COLUMNS}


def load(folder: RunFolder) -> Analysis:
    """Read a run, sealed or not, and compute everything. Raises UserError if it is active or damaged."""
    with readable(folder):
        attempts = attempts_frame(attempt_columns(folder, without=UNUSED_COLUMNS))
        # Return the memory of the columns, which Arrow would keep.
        pa.default_memory_pool().release_unused()
        return _compute(
            attempts, gap_batches(folder), read_generator(folder), folder.manifest(), read_import(folder)
        )


def analyze(attempts_table: pa.Table, generator_table: pa.Table, manifest: Manifest) -> Analysis:
    """Compute every table of a run from its two Arrow tables and its manifest."""
    return _compute(attempts_frame(attempts_table), attempts_table.to_batches(), generator_table, manifest)


def _compute(
    everything: pd.DataFrame,
    batches: Iterable[pa.RecordBatch],
    generator_table: pa.Table,
    manifest: Manifest,
    imported: ImportRecord | None = None,
) -> Analysis:
    scenario = read_scenario(manifest)
    if imported is not None:
        everything["schedule_delay_ms"] = pd.array([pd.NA] * len(everything), dtype="Float64")
    excluded, warm_up = steady.warm_up(everything, scenario)
    attempts = everything[~excluded].reset_index(drop=True) if excluded.any() else everything
    generator = to_frame(generator_table)
    calls = calls_frame(attempts)
    end_ns = run_end_ns(everything, manifest.ended_ns)
    load_ns = end_ns if manifest.ended_ns is None else manifest.ended_ns
    spans = steady_spans(calls, scenario, load_ns)
    gaps = _gaps(batches, everything, excluded, spans)
    samples, percentiles = _percentiles(latency.measures(attempts, calls, gaps, spans))
    steps = concurrency.steps(everything)
    good = good_calls(attempts, calls, scenario.objectives)
    refused = quota.refusals(attempts)
    tokens = rates.token_events(everything)
    counted = tokens if attempts is everything else rates.token_events(attempts)
    in_flight = concurrency.in_flight(steps, end_ns)
    whole = WholeRun(counted, in_flight)
    documented = compare_scopes(manifest.targets, attempts, everything, whole, end_ns)
    return Analysis(
        manifest=manifest,
        scenario=scenario,
        end_ns=end_ns,
        attempts=attempts,
        calls=calls,
        generator=generator,
        spans=spans,
        samples=samples,
        gaps=gaps,
        percentiles=percentiles,
        percentiles_by=latency.by_kind(attempts, calls, gaps, spans),
        best=rates.best(attempts, counted),
        documented=documented,
        limits=sum_limits([target.documented for target, _, _ in scopes(manifest.targets, attempts)]),
        routes=by_route(attempts, end_ns),
        minutes=rates.per_minute(everything, tokens, manifest.clock.wall_ns, end_ns),
        timeline=timeline.timeline(everything, tokens, steps, end_ns),
        rolling=timeline.rolling(everything, tokens, steps, end_ns),
        steps=steps,
        in_flight=in_flight,
        outcomes=outcomes.by_outcome(attempts),
        errors=outcomes.errors(attempts),
        finish_reasons=outcomes.finish_reasons(attempts),
        notes=outcomes.notes(attempts),
        answer_checks=outcomes.answer_checks(attempts),
        refusals=refused,
        refusal_messages=outcomes.refusal_messages(attempts),
        retry_after=quota.retry_after(refused),
        retries=retries(calls),
        quota=quota.headers(attempts),
        findings=validity.audit(everything, generator, manifest, scenario)
        if imported is None
        else audit_import(imported),
        failure=failure(everything, main_target(everything, manifest) if imported is None else None),
        warm_up=warm_up,
        goodput=goodput(calls, good, steady.steady_s(scenario, load_ns)),
        stages=by_stage(attempts, calls, good, scenario, everything),
        drift=steady.drift(attempts, scenario),
        lengths=lengths(attempts),
        spent=spent(everything, manifest, scenario.model),
        imported=imported,
    )


def _percentiles(measures: dict[str, latency.Measure]) -> tuple[dict[str, Sample], pd.DataFrame]:
    """Return samples and percentiles, which need far less memory than the measures."""
    return {name: measure.sample for name, measure in measures.items()}, latency.table(measures)


def _gaps(batches: Iterable[pa.RecordBatch], everything: pd.DataFrame, excluded: Bools, spans: Spans) -> Gaps:
    """Count the gaps that were measured outside the warm-up. ``everything`` has the rows of the batches."""
    group, kinds = kinds_of(everything, (name for name in latency.KINDS if name != "stream"))
    group[excluded | in_one_read(everything)] = -1
    return tally_gaps(batches, group, spans.place(ints(everything, "at_ns")), spans.count, kinds)
