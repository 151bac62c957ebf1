"""All tables of one run, computed once and shared by the page, the summary and the checks."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from bltybench.metrics import concurrency, latency, outcomes, quota, rates, timeline, validity
from bltybench.metrics.concurrency import InFlight
from bltybench.metrics.frame import LEFT_OUT, attempts_frame, calls_frame, run_end_ns, to_frame
from bltybench.metrics.sample import Sample, tally_gaps
from bltybench.metrics.validity import Finding
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Manifest
from bltybench.runs.store import gap_batches, read_attempts, read_generator


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a run comes to. Frames as the functions of this package document them."""

    manifest: Manifest
    end_ns: int
    """End of what was observed, on the run's axis."""
    attempts: pd.DataFrame
    calls: pd.DataFrame
    generator: pd.DataFrame
    samples: dict[str, Sample]
    """Latency samples in ms, by metric: those of ``latency.samples``."""
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
    quota: pd.DataFrame
    findings: list[Finding]

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
        return latency.describe(self.samples[name], latency.independent(self.samples).get(name))


def load(folder: RunFolder) -> Analysis:
    """Read a run, sealed or not, and compute everything. Raises UserError where it cannot be read."""
    attempts = read_attempts(folder, without=LEFT_OUT)
    return _compute(attempts, tally_gaps(gap_batches(folder)), read_generator(folder), folder.manifest())


def analyse(attempts_table: pa.Table, generator_table: pa.Table, manifest: Manifest) -> Analysis:
    """Compute every table of a run from its two Arrow tables and its manifest."""
    return _compute(attempts_table, tally_gaps(attempts_table.to_batches()), generator_table, manifest)


def _compute(
    attempts_table: pa.Table, gaps_ms: Sample, generator_table: pa.Table, manifest: Manifest
) -> Analysis:
    attempts = attempts_frame(attempts_table)
    generator = to_frame(generator_table)
    calls = calls_frame(attempts)
    end_ns = run_end_ns(attempts, manifest.ended_ns)
    samples = latency.samples(attempts, calls, gaps_ms)
    steps = concurrency.steps(attempts)
    refused = quota.refusals(attempts)
    return Analysis(
        manifest=manifest,
        end_ns=end_ns,
        attempts=attempts,
        calls=calls,
        generator=generator,
        samples=samples,
        percentiles=latency.table(samples, latency.independent(samples)),
        percentiles_by=latency.by_kind(attempts, calls),
        best=rates.best(attempts),
        minutes=rates.per_minute(attempts, manifest.clock.wall_ns, end_ns),
        timeline=timeline.timeline(attempts, steps, end_ns),
        rolling=timeline.rolling(attempts, steps, end_ns),
        steps=steps,
        in_flight=concurrency.in_flight(steps, end_ns),
        outcomes=outcomes.by_outcome(attempts),
        errors=outcomes.errors(attempts),
        refusals=refused,
        retry_after=quota.retry_after(refused),
        quota=quota.headers(attempts),
        findings=validity.audit(attempts, generator, manifest),
    )
