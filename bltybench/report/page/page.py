"""The page of a run: one HTML file without network access. Text from servers is escaped and bounded."""

import shlex
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bltybench.metrics import grading
from bltybench.metrics.analysis import Analysis
from bltybench.metrics.documented import ComparedLimit, distinct
from bltybench.metrics.frame import NS_PER_S, estimated_tokens
from bltybench.metrics.goodput import OBJECTIVES, bounds_of
from bltybench.metrics.latency import AT_MOST, PERCENTILES, min_sample
from bltybench.metrics.rates import token_events, tokens_in_best
from bltybench.metrics.verdict import ALL_CUT_OFF
from bltybench.report import templating, text
from bltybench.report.export.raw import RawFile
from bltybench.report.figures.drawing import Drawing
from bltybench.report.page.answer import MAX_OPEN, answer, client_advice
from bltybench.report.page.client_settings import client_settings
from bltybench.report.page.limits_section import LimitsSection
from bltybench.report.page.load_shape import load_shape
from bltybench.report.page.method_notes import method_notes
from bltybench.report.sentences import client_policy, policy_label, retries_sentence
from bltybench.report.summary import Summary
from bltybench.scenario.api.documented_limits import MINUTE_S, TOKENS, What

OPTIONAL_FIGURES = ("limits_evidence", "limits_retry_after", "limits_remaining")
"""Figures that need evidence which a run can lack."""

TIMING_NAMES = {
    "ttft": ("TTFT", "streams: sent → first token"),
    "first_output": ("First output", "streams: sent → first token that is not reasoning"),
    "itl": ("ITL", "streams: every gap between two content events"),
    "tpot": ("TPOT", "streams: (last − first token) / (completion tokens − 1)"),
    "latency": ("Call latency", "first due → last byte of the attempt that succeeded, including waits"),
    "attempt_latency": ("Attempt latency", "sent → last byte"),
    "schedule_delay": ("Schedule delay", "every attempt: due → sent"),
}
"""Label and meaning of each latency metric."""

KIND_NAMES = {
    "target": "target",
    "key": "key",
    "stream": "response type",
    "endpoint": "endpoint",
    "model": "model",
    "stage": "stage",
    "name": "call of the mix",
    "turn": "turn",
}

SECTIONS = {
    "run": "Timeline",
    "tournament": "Client policies",
    "capacity": "Capacity",
    "limits": "Rate limits",
    "retries": "Retries",
    "latency": "Latency",
    "workload": "Workload",
    "errors": "Outcomes and errors",
    "audit": "Audit",
    "method": "Method",
    "glossary": "Glossary",
    "about": "About this run",
}
"""Contents of the page: id and label of each section."""

MAX_KIND_ROWS = 60
"""Maximum rows of latencies per kind."""

QUOTA_NAMES = {
    "limit_requests": ("Limit, requests", ""),
    "remaining_requests": ("Remaining, requests", ""),
    "reset_requests_s": ("Reset, requests", "s"),
    "limit_tokens": ("Limit, tokens", ""),
    "remaining_tokens": ("Remaining, tokens", ""),
    "reset_tokens_s": ("Reset, tokens", "s"),
    "retry_after_s": ("Retry-After", "s"),
}
"""Label and unit of each rate-limit header."""


ANSWER_CHECK_NAMES = {
    "tool_calls": "Calls a tool",
    "json_valid": "Is valid JSON",
    "schema_valid": "Satisfies its schema",
}
"""Label of each check of an answer."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the main numbers: label, value, unit, and a note. Phones show the note up to the first dot."""

    label: str
    value: str
    unit: str
    note: str
    share: float | None = None
    """Fraction of the documented limit, which can exceed 1; None without one."""


def page(
    analysis: Analysis,
    summary: Summary,
    drawings: list[Drawing],
    raw: list[RawFile],
    limits: LimitsSection | None = None,
) -> str:
    """Return the report of a run as one HTML document."""
    scenario = analysis.scenario
    found = answer(summary, limits)
    return templating.render(
        "report.html.j2",
        summary=summary,
        manifest=analysis.manifest,
        answer=found,
        context=_context(analysis, summary),
        contents=_contents(summary, limits),
        max_open=MAX_OPEN,
        advice=client_advice(summary, limits, trusted=found.trusted),
        settings=client_settings(summary, limits, analysis, trusted=found.trusted),
        title=found.title or scenario.title or analysis.manifest.scenario,
        answers=scenario.answers,
        strip=_strip(analysis, summary),
        command=shlex.join(analysis.manifest.command),
        tiles=_tiles(analysis, summary, limits),
        grading=grading,
        all_cut_off=ALL_CUT_OFF,
        wrong=grading.affected(analysis.findings),
        figures=dict.fromkeys(OPTIONAL_FIGURES)
        | {drawing.name: templating.figure(drawing) for drawing in drawings},
        percentiles=list(PERCENTILES),
        min_sample={name: min_sample(name) for name in PERCENTILES},
        timing_names=TIMING_NAMES,
        objective_names={name: TIMING_NAMES[metric][0] for name, metric in OBJECTIVES.items()},
        quota_names=QUOTA_NAMES,
        answer_check_names=ANSWER_CHECK_NAMES,
        spans=analysis.spans,
        timings_by=_by_kind(summary),
        kind_names=KIND_NAMES,
        max_kind_rows=MAX_KIND_ROWS,
        retries_say=retries_sentence(analysis),
        policy=client_policy(scenario.retry, scenario.pacing),
        limits=limits,
        notes=method_notes(analysis),
        hashes=raw,
    )


def _context(analysis: Analysis, summary: Summary) -> str:
    """Return what was measured, when, and for how long."""
    start = datetime.fromtimestamp(analysis.manifest.clock.wall_ns / 1e9, UTC)
    lasted = text.duration(summary.duration_s)
    return f"{summary.target} · {text.bounded(summary.model, 60)} · {start:%Y-%m-%d %H:%M} UTC, {lasted}"


def _contents(summary: Summary, limits: LimitsSection | None) -> dict[str, str]:
    """Return the sections of the page: label by id."""
    # The stages of a probe are its experiments, not loads.
    tournament = summary.tournament is not None
    stages = summary.stages and not tournament and not (limits is not None and limits.probed)
    retries = summary.retries["retried"] or summary.retries["policy"]["policy"] != "none"
    optional = {
        "tournament": tournament,
        "capacity": stages or summary.search is not None,
        "retries": not tournament and (retries or summary.retries["paced"]),
    }
    return {name: label for name, label in SECTIONS.items() if optional.get(name, True)}


def _strip(analysis: Analysis, summary: Summary) -> list[tuple[str, str]]:
    """Return the facts about the run, as pairs of name and value."""
    manifest, scenario = analysis.manifest, analysis.scenario
    targets = manifest.targets
    start = datetime.fromtimestamp(manifest.clock.wall_ns / 1e9, UTC)
    load_s = summary.duration_s if manifest.ended_ns is None else manifest.ended_ns / NS_PER_S
    end = start + timedelta(seconds=load_s)
    lasted = text.duration(load_s)
    if manifest.ended != "completed":
        planned = f" of {text.duration(scenario.duration_s)}" if scenario.has_time_limit else ""
        lasted += f"{planned} ({manifest.ended or 'killed'})"
    unrecorded = f"{', '.join(manifest.unrecorded)} (only classes that derive from ChatUser are)"
    documented = [limit.words + limit.each for limit in distinct(analysis.documented)]
    versions = [
        f"{name} {manifest.versions[name]}"
        for name in ("bltybench", "locust", "python")
        if name in manifest.versions
    ]
    return [
        ("Run", manifest.run_id),
        *(("Target", f"{target.name} · {target.base_url}") for target in targets),
        *(("Keys", f"{target.name} · {', '.join(target.keys)}") for target in targets if target.keys),
        ("Model", text.bounded(summary.model)),
        ("Scenario", manifest.scenario),
        ("Load", _load(analysis)),
        *([("Not recorded", text.bounded(unrecorded))] if manifest.unrecorded else []),
        ("Retry", policy_label(scenario)),
        ("UTC", f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S}, {lasted}"),
        ("Documented limits", " · ".join(documented) or "none"),
        ("Excluded warm-up", _warm_up(summary)),
        ("Versions", " · ".join(versions)),
    ]


def _load(analysis: Analysis) -> str:
    if analysis.imported is not None:
        return f"traffic of {', '.join(analysis.imported.files)}"
    shape = analysis.manifest.load_test_shape
    return f"closed loop, users as {shape} decides" if shape else load_shape(analysis.scenario)


def _warm_up(summary: Summary) -> str:
    warm_up = summary.warm_up
    if not warm_up["seconds"] and not warm_up["first_calls"]:
        return "none"
    rule = f"{warm_up['seconds']:g} s" if warm_up["seconds"] else f"{warm_up['first_calls']:,} calls"
    stages = " of each stage" if summary.stages else ""
    calls, attempts = text.count(warm_up["calls"], "call"), text.count(warm_up["attempts"], "attempt")
    return f"first {rule}{stages}: {calls}, {attempts}"


def _tiles(analysis: Analysis, summary: Summary, found: LimitsSection | None) -> list[Tile]:
    """Return the six main numbers."""
    rates, goodput = summary.rates, analysis.goodput
    per_min = {name: rate.best_per_min for name, rate in rates.items()}
    tokens = " · {:,} in, {:,} out".format(*tokens_in_best(token_events(analysis.attempts)))
    if bool(estimated_tokens(analysis.attempts).any()):
        tokens += " · estimated"
    refused = f"{rates['refused'].count:,} of {summary.attempts:,}"
    best = "in the best 60\N{NO-BREAK SPACE}s"
    requests = _closest(analysis, "requests")
    accepted = _limited("Accepted requests", per_min["accepted"], best, requests)
    minute = requests is not None and requests.period_s == MINUTE_S
    if minute and (accepted.share or 0) > 1 and found is not None and found.excess:
        # The algorithm explains it, so it is not marked as an excess.
        accepted = replace(accepted, note=f"{accepted.note} {found.excess}", share=None)
    return [
        accepted,
        Tile("Accepted tokens", text.NONE, "", "not in the log")
        if "total_tokens" not in per_min
        else _limited(
            "Accepted tokens",
            per_min["total_tokens"],
            best,
            _closest(analysis, *TOKENS),
            tokens,
        ),
        _in_flight_tile(analysis, summary),
        _speed_tile(summary.timings_ms, imported=summary.imported is not None),
        Tile("Refused", text.percent(summary.refused_share), "of attempts", refused),
        Tile("Goodput", text.percent(goodput.share), "of calls", _good_calls(analysis)),
    ]


def _in_flight_tile(analysis: Analysis, summary: Summary) -> Tile:
    if summary.in_flight_max is None:
        return Tile("In flight", text.NONE, "", "not in the log")
    mean = f" · mean {summary.in_flight_mean:.1f}"
    return _limited(
        "In flight", summary.in_flight_max, "at the peak", _closest(analysis, "concurrency"), mean
    )


def _good_calls(analysis: Analysis) -> str:
    goodput = analysis.goodput
    if not goodput.calls:
        return "no calls"
    criterion = (
        "those that met the objectives"
        if bounds_of(analysis.scenario.objectives)
        else "all that succeeded, as no objectives are set"
    )
    rate = "" if goodput.per_min is None else f" · {goodput.per_min:,.1f} per minute"
    return f"{goodput.good:,} of {goodput.calls:,} · {criterion}{rate}"


def _limited(label: str, value: float, unit: str, closest: ComparedLimit | None, more: str = "") -> Tile:
    if closest is None:
        return Tile(label, f"{value:,.0f}", unit, "no documented limit" + more)
    usual = closest.what in {"requests", "tokens"} and closest.period_s == MINUTE_S
    note = f"{closest.words}, at most {closest.highest:,.0f}"
    if closest.owner:
        note = f"{closest.words} for {text.bounded(closest.owner, 60)}, at most {closest.highest:,.0f}"
    elif usual or closest.period_s is None:
        note = f"{closest.limit:,}"
    return Tile(label, f"{value:,.0f}", unit, f"limit {note}{more}", closest.share)


def _closest(analysis: Analysis, *whats: What) -> ComparedLimit | None:
    """Return the documented limit of which the run used the largest fraction."""
    compared = [row for row in analysis.documented if row.what in whats]
    return max(compared, key=lambda row: row.share, default=None)


def _speed_tile(timings_ms: dict[str, dict[str, float | None]], *, imported: bool) -> Tile:
    """Return TTFT, or the latency of calls if no stream succeeded."""
    label, row, noun = "TTFT", timings_ms["ttft"], "stream"
    if not row["n"]:
        label, row, noun = "Call latency", timings_ms["latency"], "call"
    n = int(row["n"] or 0)
    if n == 0:
        return Tile(label, "–", "", "not in the log" if imported else "no call succeeded")
    label += ", at most" if row[AT_MOST] else ""
    sample, slowest = text.count(n, noun), text.milliseconds(row["max"])
    if row["p50"] is None:
        return Tile(label, slowest, "max", f"{sample}, too few for a median")
    if row["p95"] is None:
        note = f"max {slowest} · {sample}, p95 needs {min_sample('p95')}"
    else:
        note = f"p95 {text.milliseconds(row['p95'])} · {sample}"
    return Tile(label, text.milliseconds(row["p50"]), "p50", note)


def _by_kind(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of ``timings_by`` for each kind, in the order of KIND_NAMES."""
    kinds = {by: [row for row in summary.timings_by if row["by"] == by] for by in KIND_NAMES}
    return {by: rows for by, rows in kinds.items() if rows}
