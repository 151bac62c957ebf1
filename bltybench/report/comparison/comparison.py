"""A comparison as JSON and as one page. docs/compare.md describes both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bltybench.metrics.compare import Difference, MetricKind, Tolerance, Verdict, compare
from bltybench.metrics.outline import Outline
from bltybench.report import templating, text
from bltybench.report.comparison import overlays
from bltybench.report.figures.drawing import write_data
from bltybench.runs.folder import write_atomically

COMPARISON_VERSION = 1
"""Raised when a key changes its meaning or goes away; new keys alone do not raise it."""


class SideSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A side: its runs, and what they ran against."""

    label: str
    runs: list[str]
    target: str
    model: str | None
    versions: dict[str, str]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One metric: the base, the candidate, and how they differ."""

    metric: str
    kind: MetricKind
    lower_is_better: bool
    base: float | None
    candidate: float | None
    change: float | None
    """candidate / base − 1; of a share candidate − base."""
    low: float | None
    high: float | None
    verdict: Verdict
    why: str


class CandidateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate against the base."""

    side: SideSummary
    regressed: bool
    changes: list[Change]

    def named(self, verdict: Verdict) -> list[str]:
        """Return the metrics with this verdict."""
        return [change.metric for change in self.changes if change.verdict == verdict]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A base and its candidates."""

    comparison_version: int = COMPARISON_VERSION
    tolerance: float
    tolerance_share: float
    regressed: bool
    """Whether any metric of any candidate is worse."""
    base: SideSummary
    candidates: list[CandidateSummary]

    def to_json(self) -> bytes:
        """Return it as indented JSON, the same bytes for the same runs."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@dataclass(frozen=True, slots=True)
class Side:
    """Runs under one name."""

    label: str
    runs: Sequence[Outline]


def compare_sides(base: Side, candidates: Sequence[Side], tolerance: Tolerance) -> Comparison:
    """Compare each candidate with the base."""
    compared = [
        CandidateSummary(
            side=_summary(candidate),
            regressed=any(one.verdict == "worse" for one in found),
            changes=[_change(one) for one in found],
        )
        for candidate in candidates
        for found in [compare(base.runs, candidate.runs, tolerance)]
    ]
    return Comparison(
        tolerance=tolerance.relative,
        tolerance_share=tolerance.share,
        regressed=any(one.regressed for one in compared),
        base=_summary(base),
        candidates=compared,
    )


def write_page(path: Path, comparison: Comparison, base: Side, candidates: Sequence[Side]) -> None:
    """Write a comparison as one HTML document, its figures' data as CSV into ``NAME-figures`` beside it."""
    sides = [(base.label, base.runs), *((side.label, side.runs) for side in candidates)]
    drawings = overlays.draw_all(comparison, sides)
    data = path.with_name(f"{path.stem}-figures")
    html = (
        templating.environment()
        .get_template("compare.html.j2")
        .render(
            comparison=comparison,
            figures=[templating.figure(drawing, data.name) for drawing in drawings],
            sides=[comparison.base, *(candidate.side for candidate in comparison.candidates)],
            signed=text.signed,
            name_of=name_of,
        )
    )
    write_data(drawings, data)
    write_atomically(path, html.encode())


NAMES: dict[str, str] = {
    "ttft": "TTFT",
    "itl": "ITL",
    "tpot": "TPOT",
    "latency": "Call latency",
    "attempt_latency": "Attempt latency",
    "accepted.per_min": "Accepted attempts a minute",
    "ok.per_min": "Successful attempts a minute",
    "tokens.per_min": "Tokens a minute",
    "refused.share": "Refused, of attempts",
    "errors.share": "Errors, of attempts",
    "calls.ok_share": "Calls that succeeded",
}


def name_of(metric: str) -> str:
    """Return a metric's name for people."""
    sample, _, statistic = metric.partition(".")
    return NAMES[metric] if metric in NAMES else f"{NAMES[sample]} {statistic}"


def _summary(side: Side) -> SideSummary:
    first = side.runs[0].manifest
    model = first.resolved.get("model")
    return SideSummary(
        label=side.label,
        runs=[run.manifest.run_id for run in side.runs],
        target=first.target.name,
        model=None if model is None else str(model),
        versions=first.versions,
    )


def _change(found: Difference) -> Change:
    low, high = found.bounds or (None, None)
    return Change(
        metric=found.metric,
        kind=found.kind,
        lower_is_better=found.lower_is_better,
        base=found.base,
        candidate=found.candidate,
        change=found.change,
        low=low,
        high=high,
        verdict=found.verdict,
        why=found.why,
    )
