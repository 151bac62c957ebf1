"""A comparison of runs: the data that its JSON, page, and figures are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from bltybench.metrics.compare import Difference, Tolerance, Verdict, compare
from bltybench.metrics.outline import Outline
from bltybench.report import text

MAX_NAMED = 3
"""Maximum metrics per verdict that the answer names."""
COMPARISON_VERSION = 1
"""Increased when a key is removed or changes its meaning, not when keys are added."""

NAMES: dict[str, str] = {
    "ttft": "TTFT",
    "itl": "ITL",
    "tpot": "TPOT",
    "latency": "Call latency",
    "attempt_latency": "Attempt latency",
    "accepted.per_min": "Accepted attempts per minute",
    "ok.per_min": "Successful attempts per minute",
    "tokens.per_min": "Tokens per minute",
    "refused.share": "Refusal rate",
    "errors.share": "Error rate",
    "calls.ok_share": "Success rate of calls",
}
"""Labels of metrics, or of their samples."""


class SideSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A side: its runs, and their target."""

    label: str
    runs: list[str]
    target: str
    model: str | None
    versions: dict[str, str]


class CandidateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate against the base."""

    side: SideSummary
    regressed: bool
    changes: list[Difference]

    def named(self, verdict: Verdict) -> list[str]:
        """Return the metrics with this verdict."""
        return [change.metric for change in self.changes if change.verdict == verdict]

    def answer(self, base: str) -> str:
        """Return in one sentence what is worse and better than ``base``, and what can't be decided."""
        facts = [
            f"{verdict} in {self._listed(verdict)}" for verdict in ("worse", "better") if self.named(verdict)
        ]
        same, undecided = len(self.named("same")), len(self.named("cannot tell"))
        facts += [f"the same within the tolerance in {text.count(same, 'metric')}"] if same else []
        sides = f"Compared with {text.bounded(base, 60)}, {text.bounded(self.side.label, 60)}"
        if not facts:
            return f"{sides} can't be judged. Measure longer, or repeat the runs."
        more = f"; {text.count(undecided, 'metric')} can't be decided" if undecided else ""
        return f"{sides} is {'; '.join(facts)}{more}."

    def _listed(self, verdict: Verdict) -> str:
        """Return the metrics with this verdict, and the changes of the first ones."""
        changes = [change for change in self.changes if change.verdict == verdict]
        shown = [
            f"{name_of(change.metric)} ({text.signed(change.change, change.kind)})" for change in changes
        ]
        more = len(shown) - MAX_NAMED
        return ", ".join(shown[:MAX_NAMED]) + (f", and {more} more" if more > 0 else "")


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
        """Return indented JSON. The same runs give the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@dataclass(frozen=True, slots=True)
class Side:
    """Runs with a common label."""

    label: str
    runs: Sequence[Outline]

    def summary(self) -> SideSummary:
        """Return the side as stored."""
        first = self.runs[0]
        return SideSummary(
            label=self.label,
            runs=[run.manifest.run_id for run in self.runs],
            target=first.manifest.target.name,
            model=first.load["model"],
            versions=first.manifest.versions,
        )


def compare_sides(base: Side, candidates: Sequence[Side], tolerance: Tolerance) -> Comparison:
    """Compare each candidate with the base."""
    summaries: list[CandidateSummary] = []
    for candidate in candidates:
        changes = compare(base.runs, candidate.runs, tolerance)
        regressed = any(change.verdict == "worse" for change in changes)
        summaries.append(CandidateSummary(side=candidate.summary(), regressed=regressed, changes=changes))
    return Comparison(
        tolerance=tolerance.relative,
        tolerance_share=tolerance.share,
        regressed=any(summary.regressed for summary in summaries),
        base=base.summary(),
        candidates=summaries,
    )


def name_of(metric: str) -> str:
    """Return the label of a metric."""
    sample, _, statistic = metric.partition(".")
    return NAMES[metric] if metric in NAMES else f"{NAMES[sample]} {statistic}"
