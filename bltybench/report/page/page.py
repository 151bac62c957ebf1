"""The page: one HTML file, no network, everything that came from a server escaped and bounded."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import NS_PER_S
from bltybench.metrics.goodput import OBJECTIVES
from bltybench.metrics.latency import PERCENTILES, min_sample
from bltybench.report import templating, text
from bltybench.report.export.raw import RawFile
from bltybench.report.figures.drawing import Drawing
from bltybench.report.page.headline import finding
from bltybench.report.page.limits_section import LimitsSection
from bltybench.report.page.method_notes import counted
from bltybench.report.page.workload import LOADS
from bltybench.report.sentences import limits_sentence, policy_in_words, retries_sentence
from bltybench.report.summary import Summary


@dataclass(frozen=True, slots=True)
class Tile:
    """One big number: what it is, the number, its unit, and what stands beside it."""

    label: str
    value: str
    unit: str
    beside: str
    share: float | None = None
    """Of the documented limit, 0 … 1 and more; None where there is none."""


def page(
    analysis: Analysis,
    summary: Summary,
    drawings: list[Drawing],
    raw: list[RawFile],
    limits: LimitsSection | None = None,
) -> str:
    """Return the report of a run as one HTML document. ``raw``: its files, as ``raw.hashes`` has them."""
    manifest = analysis.manifest
    return (
        templating.environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            manifest=manifest,
            title=manifest.resolved.get("title") or manifest.scenario,
            answers=manifest.resolved.get("answers") or "",
            strip=strip(analysis, summary),
            command=shlex.join(manifest.command),
            tiles=tiles(analysis, summary),
            finding=finding(summary, limits),
            figures=dict.fromkeys(OPTIONAL_FIGURES)
            | {drawing.name: templating.figure(drawing) for drawing in drawings},
            percentiles=list(PERCENTILES),
            needed={name: min_sample(name) for name in PERCENTILES},
            timing_names=TIMING_NAMES,
            objective_names={name: TIMING_NAMES[metric][0] for name, metric in OBJECTIVES.items()},
            quota_names=QUOTA_NAMES,
            spans=analysis.spans,
            timings_by=_by_kind(summary),
            kind_names=KIND_NAMES,
            most_kinds=MOST_KINDS,
            retries_say=retries_sentence(analysis),
            policy=policy_in_words(summary.retries["policy"]),
            limits_say=limits_sentence(analysis),
            limits=limits,
            counted=counted(analysis, summary),
            hashes=raw,
        )
    )


OPTIONAL_FIGURES = ("limits_evidence", "limits_retry_after", "limits_remaining")
"""Figures that a run may lack the evidence for."""

TIMING_NAMES = {
    "ttft": ("TTFT", "streams: sent → first token"),
    "first_output": ("First output", "streams: sent → first token that is not reasoning"),
    "itl": ("ITL", "streams: every gap between two content events"),
    "tpot": ("TPOT", "streams: (last − first token) / (completion tokens − 1)"),
    "latency": ("Call latency", "first due → last byte of the attempt that succeeded, waits included"),
    "attempt_latency": ("Attempt latency", "sent → last byte"),
    "schedule_delay": ("Schedule delay", "every attempt: due → sent"),
}

KIND_NAMES = {
    "stream": "kind of answer",
    "endpoint": "endpoint",
    "model": "model",
    "stage": "stage",
    "name": "call of the mix",
    "turn": "turn",
}

MOST_KINDS = 60
"""Rows of latencies that a kind has on the page at most."""

QUOTA_NAMES = {
    "limit_requests": ("Limit, requests", ""),
    "remaining_requests": ("Remaining, requests", ""),
    "reset_requests_s": ("Reset, requests", "s"),
    "limit_tokens": ("Limit, tokens", ""),
    "remaining_tokens": ("Remaining, tokens", ""),
    "reset_tokens_s": ("Reset, tokens", "s"),
    "retry_after_s": ("Retry-After", "s"),
}


def strip(analysis: Analysis, summary: Summary) -> list[tuple[str, str]]:
    """Return what the run was, as pairs of name and value."""
    manifest = analysis.manifest
    resolved, target = manifest.resolved, manifest.target
    start = datetime.fromtimestamp(manifest.clock.wall_ns / 1e9, UTC)
    load_s = summary.duration_s if manifest.ended_ns is None else manifest.ended_ns / NS_PER_S
    end = start + timedelta(seconds=load_s)
    planned = resolved.get("duration_s")
    lasted = text.duration(load_s)
    if planned and manifest.ended != "completed":
        lasted += f" of {text.duration(float(planned))} ({manifest.ended or 'killed'})"
    documented = [
        f"{value:,} {unit}"
        for value, unit in (
            (target.requests_per_min, "requests/min"),
            (target.tokens_per_min, "tokens/min"),
            (target.concurrency, "in flight"),
        )
        if value is not None
    ]
    return [
        ("Run", manifest.run_id),
        ("Target", f"{target.name} · {target.base_url}"),
        ("Model", text.bounded(resolved.get("model") or "not said")),
        ("Scenario", manifest.scenario),
        ("Load", load_shape(resolved)),
        ("Retry", str(resolved.get("retry", {}).get("policy", "none")).replace("_", "-")),
        ("UTC", f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S}, {lasted}"),
        ("Documented limits", " · ".join(documented) or "none"),
        ("Left out as warm-up", _left_out(summary)),
        ("Made by", " · ".join(f"{name} {version}" for name, version in _main_versions(manifest.versions))),
    ]


def load_shape(resolved: dict[str, Any]) -> str:
    """Return how the load was made, in words."""
    arrivals = resolved.get("arrivals", {})
    users, kind = resolved.get("users"), arrivals.get("kind")
    if kind == "closed":
        think = arrivals.get("think_s") or 0
        return f"closed loop, {text.count(int(users or 0), 'user')}" + (
            f", {think:g} s to think" if think else ""
        )
    if kind in {"constant", "poisson"}:
        how = "evenly spaced" if kind == "constant" else "Poisson"
        return f"open loop, {arrivals.get('rate_per_min'):g} calls/min {how}, at most {users} in flight"
    if kind in LOADS:
        return LOADS[kind](arrivals, int(users or 0))
    if kind == "trace":
        return f"open loop, trace {arrivals.get('file')} at {arrivals.get('speed', 1):g}×"
    return "not said"


def tiles(analysis: Analysis, summary: Summary) -> list[Tile]:
    """Return the six numbers that people look for first."""
    limits, rates = summary.limits, summary.rates
    ttft = summary.timings_ms["ttft"]
    return [
        _limited(
            "Accepted requests",
            rates["accepted"].best_per_min,
            "in the best 60 s",
            limits["requests_per_min"],
        ),
        _limited(
            "Tokens accepted",
            rates["total_tokens"].best_per_min,
            "in the best 60 s",
            limits["tokens_per_min"],
            f"{rates['prompt_tokens'].best_per_min:,.0f} in, "
            f"{rates['completion_tokens'].best_per_min:,.0f} out",
        ),
        _limited(
            "In flight",
            summary.in_flight_max,
            "at the peak",
            limits["concurrency"],
            f"mean {summary.in_flight_mean:.1f}",
        ),
        _ttft_tile(ttft),
        Tile(
            "Refused",
            text.percent(summary.refused_share),
            "of attempts",
            f"{rates['refused'].count:,} of {summary.attempts:,}",
        ),
        Tile("Goodput", text.percent(analysis.goodput.share), "of calls", _goodput(analysis)),
    ]


def _by_kind(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of ``timings_by`` for each kind, in the order of KIND_NAMES."""
    kinds = {by: [row for row in summary.timings_by if row["by"] == by] for by in KIND_NAMES}
    return {by: rows for by, rows in kinds.items() if rows}


def _limited(label: str, value: float, unit: str, limit: int | None, beside: str = "") -> Tile:
    against = f"limit {limit:,}" if limit else "no documented limit"
    words = f"{against} · {beside}" if beside else against
    return Tile(label, f"{value:,.0f}", unit, words, value / limit if limit else None)


def _ttft_tile(ttft: dict[str, float | None]) -> Tile:
    n = int(ttft["n"] or 0)
    if n == 0:
        return Tile("TTFT", "–", "", "no stream succeeded")
    if ttft["p50"] is None:
        few = f"{text.count(n, 'stream')}: too few for a median"
        return Tile("TTFT", text.milliseconds(ttft["max"]), "max", few)
    if ttft["p95"] is None:
        beside = f"max {text.milliseconds(ttft['max'])} · p95 needs {min_sample('p95')} streams, has {n:,}"
    else:
        beside = f"p95 {text.milliseconds(ttft['p95'])} · {n:,} streams"
    return Tile("TTFT", text.milliseconds(ttft["p50"]), "p50", beside)


def _goodput(analysis: Analysis) -> str:
    found = analysis.goodput
    if not found.calls:
        return "no calls"
    held = "kept the objectives" if analysis.objectives else "answered, no objectives set"
    rate = "" if found.per_min is None else f" · {found.per_min:,.1f} a minute"
    return f"{found.good:,} of {found.calls:,} {held}{rate}"


def _left_out(summary: Summary) -> str:
    warm_up = summary.warm_up
    if not warm_up["seconds"] and not warm_up["first_calls"]:
        return "nothing"
    rule = f"{warm_up['seconds']:g} s" if warm_up["seconds"] else f"{warm_up['first_calls']:,} calls"
    each = " of each stage" if summary.stages else ""
    left = f"{text.count(warm_up['calls'], 'call')}, {text.count(warm_up['attempts'], 'attempt')}"
    return f"the first {rule}{each}: {left}"


def _main_versions(versions: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, versions[name]) for name in ("bltybench", "locust", "python") if name in versions]
