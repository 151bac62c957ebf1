"""``summary.json``: the results of a run, for programs. docs/summary.md describes every key."""

from typing import Any

import msgspec
import numpy as np
import pandas as pd

from bltybench.imports.record import ImportRecord
from bltybench.metrics.analysis import Analysis
from bltybench.metrics.capacity import capacity
from bltybench.metrics.checks import CheckResult, evaluate
from bltybench.metrics.documented import ComparedLimit
from bltybench.metrics.frame import NS_PER_S, bools, cut_off
from bltybench.metrics.goodput import bounds_of
from bltybench.metrics.grading import Finding, affected, grades_of
from bltybench.metrics.outcomes import ERRORS, count_of
from bltybench.metrics.policy_choice import TournamentResult
from bltybench.metrics.run_findings import all_workers_finished
from bltybench.metrics.tournament import tournament_result
from bltybench.metrics.validity import late_arrivals
from bltybench.metrics.verdict import RunVerdict, Severity, judge, severity
from bltybench.runs.folder import RunFolder
from bltybench.runs.trials.search import SearchResult, read_search
from bltybench.runs.trials.tournament import read_tournament
from bltybench.scenario.api.documented_limits import per_minute

TOKEN_RATES = ("prompt_tokens", "completion_tokens", "total_tokens")
"""Rates that a log without token counts does not have."""
SUMMARY_VERSION = 1
"""Increased when a key is removed or changes its meaning, not when keys are added."""


class RateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One rate: in the whole run, and in its best rolling 60 s."""

    count: int
    best_per_min: float
    best_until_s: float | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a run. Names give units; missing values are null."""

    summary_version: int = SUMMARY_VERSION
    run_id: str
    scenario: str
    target: str
    model: str
    created: str
    duration_s: float
    ended: str | None
    verdict: RunVerdict
    """The verdict by which the exit code is chosen: docs/cli.md has the policy."""
    strict: bool
    failed: bool
    """Whether the exit code is 1."""
    valid: bool
    affected: list[str]
    """Grades of INVALID: timing, rates, limits. The findings of the audit name the figures."""
    invalid_reasons: list[str]
    audit: list[Finding]
    passed: bool
    checks: list[CheckResult]
    failure: str | None
    """Why nothing succeeded; None if something did. A run without checks then does not pass."""
    limits: dict[str, int | None]
    """Those documented per minute, and on concurrency, of all keys, models, and targets together."""
    documented_limits: list[ComparedLimit]
    """All of them, compared with the run."""
    attempts: int
    calls: int
    calls_ok: int
    calls_cut_off: int
    """Calls that the end of the run cut off. They are no failures."""
    refused_share: float | None
    errors_share: float | None
    rates: dict[str, RateSummary]
    in_flight_max: int | None
    in_flight_mean: float | None
    timings_ms: dict[str, dict[str, float | None]]
    timings_by: list[dict[str, Any]]
    routes: list[dict[str, Any]]
    """A row per key, requested model, and target, of those of which the run has several."""
    minutes: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    refusal_messages: list[dict[str, Any]]
    finish_reasons: list[dict[str, Any]]
    notes: list[dict[str, Any]]
    answer_checks: list[dict[str, Any]]
    """What answers did with tools and a response format. Empty if no request had either."""
    retry_after: list[dict[str, Any]]
    retries: dict[str, Any]
    """The policy, and its effect."""
    quota: list[dict[str, Any]]
    warm_up: dict[str, Any]
    goodput: dict[str, Any]
    stages: list[dict[str, Any]]
    capacity: dict[str, Any] | None
    """The knee; None for fewer than two loads."""
    drift: list[dict[str, Any]]
    lengths: list[dict[str, Any]]
    spent: dict[str, Any]
    arrivals: dict[str, int]
    search: SearchResult | None = None
    tournament: TournamentResult | None = None
    unrecorded: list[str] = []
    """User classes of the locustfile whose requests were not recorded."""
    imported: ImportRecord | None = None
    """The log that an imported run is from, and what it lacks."""

    @property
    def result(self) -> RunVerdict | None:
        """The verdict of a VALID run. None if there are no checks, and something succeeded."""
        cut = 0 < self.calls_cut_off == self.calls
        lost_worker = not all_workers_finished(self.audit)
        if not (self.checks or self.failure or cut or lost_worker):
            return None
        return _judge(self.checks, self.failure, cut, valid=True, lost_worker=lost_worker)

    def to_json(self) -> bytes:
        """Return indented JSON. The same run gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def summary_of(folder: RunFolder, analysis: Analysis, *, strict: bool = False) -> Summary:
    """Return the summary of a run in a folder, with its search or tournament."""
    return msgspec.structs.replace(
        summarize(analysis, strict=strict),
        search=read_search(folder),
        tournament=tournament_result(analysis, read_tournament(folder)),
    )


def summarize(analysis: Analysis, *, strict: bool = False) -> Summary:
    """Return the summary of a run. If ``strict``, a run that is INVALID or not decided fails."""
    manifest, attempts, calls = analysis.manifest, analysis.attempts, analysis.calls
    total, limits = len(attempts), analysis.limits
    source = analysis.imported
    timed, counted = source is None or source.durations > 0, source is None or source.tokens > 0
    unknown = dict[str, None]() if counted else dict.fromkeys(TOKEN_RATES)
    checks = evaluate(analysis)
    broken = [finding for finding in analysis.findings if not finding.holds]
    knee = capacity(analysis.stages)
    cut = int(cut_off(calls).sum())
    lost_worker = not all_workers_finished(analysis.findings)
    all_cut = 0 < cut == len(calls)
    verdict = _judge(checks, analysis.failure, all_cut, valid=not broken, lost_worker=lost_worker)
    return Summary(
        run_id=manifest.run_id,
        scenario=manifest.scenario,
        target=manifest.target_names,
        model=", ".join(analysis.scenario.models_on()),
        created=manifest.created,
        duration_s=analysis.end_ns / NS_PER_S,
        ended=manifest.ended,
        verdict=verdict,
        strict=strict,
        failed=severity(verdict, strict=strict) is Severity.FAILED,
        valid=not broken,
        affected=grades_of(affected(analysis.findings)),
        invalid_reasons=[f"{finding.reason}: {finding.remedy}" for finding in broken],
        audit=analysis.findings,
        passed=all(check.passed for check in checks) if checks else analysis.failure is None,
        checks=checks,
        failure=analysis.failure,
        limits={
            "requests_per_min": per_minute(limits, "requests"),
            "tokens_per_min": per_minute(limits, "tokens"),
            "concurrency": per_minute(limits, "concurrency"),
        },
        documented_limits=analysis.documented,
        attempts=total,
        calls=len(calls),
        calls_ok=int(bools(calls, "ok").sum()),
        calls_cut_off=cut,
        refused_share=analysis.count_of("refused") / total if total else None,
        errors_share=count_of(attempts, *ERRORS) / total if total else None,
        rates={
            row["rate"]: RateSummary(
                count=int(row["count"]), best_per_min=row["per_min"], best_until_s=row["until_s"]
            )
            for row in records(analysis.best)
            if row["rate"] not in unknown
        },
        in_flight_max=analysis.in_flight.max if timed else None,
        in_flight_mean=analysis.in_flight.mean if timed else None,
        timings_ms={row.pop("name"): row for row in records(analysis.percentiles)},
        timings_by=records(analysis.percentiles_by),
        routes=records(analysis.routes),
        minutes=[{**row, "minute": row["minute"].isoformat()} | unknown for row in records(analysis.minutes)],
        outcomes=records(analysis.outcomes),
        errors=records(analysis.errors),
        refusal_messages=records(analysis.refusal_messages),
        finish_reasons=records(analysis.finish_reasons),
        notes=records(analysis.notes),
        answer_checks=records(analysis.answer_checks),
        retry_after=records(analysis.retry_after),
        retries={
            "policy": analysis.scenario.retry.model_dump(mode="json"),
            "pacing": analysis.scenario.pacing.model_dump(mode="json"),
        }
        | analysis.retries._asdict()
        | {"by_attempts": records(analysis.retries.by_attempts)},
        quota=records(analysis.quota),
        warm_up=analysis.warm_up._asdict(),
        goodput=analysis.goodput._asdict() | {"objectives": bounds_of(analysis.scenario.objectives)},
        stages=records(analysis.stages),
        capacity=None if knee is None else knee._asdict() | {"points": records(knee.points)},
        drift=records(analysis.drift),
        lengths=records(analysis.lengths),
        spent={name: unknown.get(name, value) for name, value in analysis.spent._asdict().items()},
        arrivals=late_arrivals(analysis.generator),
        unrecorded=manifest.unrecorded,
        imported=source,
    )


def _judge(
    checks: list[CheckResult], failure: str | None, all_cut: bool, *, valid: bool, lost_worker: bool
) -> RunVerdict:
    return judge(
        [check.verdict for check in checks],
        valid=valid,
        lost_worker=lost_worker,
        nothing_succeeded=failure is not None,
        undecided=all_cut,
    )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dictionaries of plain Python values, with None for missing ones."""
    rows = frame.astype("object").to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
