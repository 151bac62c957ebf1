"""A comparison of runs: the data that its JSON, JUnit, page, and figures are made of."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from bltybench.metrics.compare import Difference, Judgment, MetricKind, Tolerance, compare
from bltybench.metrics.likeness import check_repeats, remedy_of, unlike
from bltybench.metrics.outline import Outline
from bltybench.metrics.verdict import RunVerdict, Severity, severity
from bltybench.report import text

MAX_NAMED = 3
"""Maximum metrics per verdict that the answer names."""
COMPARISON_VERSION = 2
"""Increased when a key is removed or changes its meaning, not when keys are added."""

STAMPS = {
    RunVerdict.NOT_COMPARABLE: "NOT COMPARABLE",
    RunVerdict.FAIL: "WORSE",
    RunVerdict.INVALID: "INVALID",
    RunVerdict.NOT_DECIDED: "NOTHING DECIDED",
    RunVerdict.PASS: "NO REGRESSION SHOWN",
}
"""What pages and terminals call the verdicts of a comparison, the most serious one first."""

OPEN: dict[Judgment, str] = {"not decided": "not decided", "invalid": "INVALID"}
"""Verdicts of metrics that leave the question open."""

NAMES: dict[str, str] = {
    "ttft": "TTFT",
    "itl": "ITL",
    "tpot": "TPOT",
    "latency": "Call latency",
    "attempt_latency": "Attempt latency",
    "accepted.per_min": "Accepted per minute",
    "ok.per_min": "Successful per minute",
    "tokens.per_min": "Tokens per minute",
    "refused.share": "Refusal rate",
    "errors.share": "Error rate",
    "calls.ok_share": "Calls that succeed",
    "json_valid.share": "Answers that are valid JSON",
    "schema_valid.share": "Answers that satisfy their schema",
}
"""Labels of metrics, or of their samples."""


class SideSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A side: its runs, and their target."""

    label: str
    scenario: str
    runs: list[str]
    target: str
    model: str | None
    versions: dict[str, str]


class CandidateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate against the base."""

    side: SideSummary
    verdict: RunVerdict
    regressed: bool
    """Whether any metric is worse."""
    unlike: str
    """Why the sides can't be compared; empty if they can."""
    remedy: str
    """What to do about that."""
    changes: list[Difference]

    @property
    def stamp(self) -> str:
        """The verdict in capitals."""
        return STAMPS[self.verdict]

    @property
    def mostly_open(self) -> bool:
        """Whether more metrics are not decided than decided."""
        return 2 * sum(len(self.named(verdict)) for verdict in OPEN) > len(self.measured)

    @property
    def measured(self) -> list[Difference]:
        """The metrics for which either side has a value."""
        return [change for change in self.changes if change.measured]

    @property
    def unmeasured(self) -> list[str]:
        """The metrics for which neither side has a value."""
        return [change.metric for change in self.changes if not change.measured]

    def named(self, verdict: Judgment) -> list[str]:
        """Return the metrics with this verdict."""
        return [change.metric for change in self.measured if change.verdict == verdict]

    def explanations(self) -> dict[str, list[str]]:
        """Return the metrics that are not decided, by the reason and what would decide them."""
        found: dict[str, list[str]] = {}
        for change in self.measured:
            if change.why and not self.unlike:
                found.setdefault(change.explanation, []).append(change.metric)
        return found

    def answer(self, base: str) -> str:
        """Return in one sentence what is worse and better than ``base``, and what is not decided."""
        sides = f"Compared with {text.bounded(base, 60)}, {text.bounded(self.side.label, 60)}"
        if self.unlike:
            return f"{sides} can't be judged: {text.bounded(self.unlike, 300)}."
        facts = [
            f"{verdict} in {self._listed(verdict)}" for verdict in ("worse", "better") if self.named(verdict)
        ]
        same = len(self.named("same"))
        facts += [f"the same within the tolerance in {text.count(same, 'metric')}"] if same else []
        if not facts:
            return f"{sides} is neither better, worse, nor the same: {self._main_reason()}."
        still_open = [
            f"; {text.count(len(names), 'metric')} {shown}"
            for verdict, shown in OPEN.items()
            if (names := self.named(verdict))
        ]
        return f"{sides} is {'; '.join(facts)}{''.join(still_open)}."

    def _main_reason(self) -> str:
        """Return why most metrics are not decided."""
        reasons = self.explanations()
        if not reasons:
            return "neither has any value"
        return text.bounded(max(reasons, key=lambda reason: len(reasons[reason])), 300)

    def _listed(self, verdict: Judgment) -> str:
        """Return the metrics with this verdict, and the changes of the first ones."""
        changes = [change for change in self.changes if change.verdict == verdict]
        shown = [
            f"{in_sentence(change.metric)} ({text.signed(change.change, change.kind)})" for change in changes
        ]
        more = len(shown) - MAX_NAMED
        return ", ".join(shown[:MAX_NAMED]) + (f", and {more} more" if more > 0 else "")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A base and its candidates."""

    comparison_version: int = COMPARISON_VERSION
    verdict: RunVerdict
    """The most serious verdict of a candidate."""
    strict: bool
    failed: bool
    """Whether the exit code is 1."""
    tolerance: float
    tolerance_share: float
    vary: list[str]
    """Keys in which the sides must differ, and in no others."""
    regressed: bool
    """Whether any metric of any candidate is worse."""
    base: SideSummary
    candidates: list[CandidateSummary]

    def title(self, candidate: CandidateSummary | None = None) -> str:
        """Return the sides, or the base and one candidate, after their scenario if it is the same."""
        chosen = self.candidates if candidate is None else [candidate]
        labels = ", ".join(text.bounded(one.side.label, 60) for one in chosen)
        scenarios = {self.base.scenario, *(one.side.scenario for one in self.candidates)}
        common = f"{text.bounded(scenarios.pop(), 60)}: " if len(scenarios) == 1 else ""
        return f"{common}{labels} against {text.bounded(self.base.label, 60)}"

    def to_json(self) -> bytes:
        """Return indented JSON. The same runs give the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@dataclass(frozen=True, slots=True)
class ComparedSide:
    """Runs with a common label."""

    label: str
    runs: Sequence[Outline]

    def summary(self) -> SideSummary:
        """Return the side as stored."""
        first = self.runs[0]
        return SideSummary(
            label=self.label,
            scenario=first.manifest.scenario,
            runs=[run.manifest.run_id for run in self.runs],
            target=first.manifest.target_names,
            model=first.load["model"],
            versions=first.manifest.versions,
        )


def compare_sides(
    base: ComparedSide,
    candidates: Sequence[ComparedSide],
    tolerance: Tolerance,
    *,
    vary: Collection[str] = (),
    allow_invalid: bool = False,
    strict: bool = False,
) -> Comparison:
    """Compare each candidate with the base. Raises UserError if the repeats of a side had different loads."""
    check_repeats([base.runs, *(candidate.runs for candidate in candidates)])
    summaries: list[CandidateSummary] = []
    for candidate in candidates:
        why = unlike(base.runs, candidate.runs, vary)
        changes = compare(base.runs, candidate.runs, tolerance, allow_invalid=allow_invalid, unlike=why)
        summaries.append(
            CandidateSummary(
                side=candidate.summary(),
                verdict=verdict_of(changes, unlike=bool(why)),
                regressed=any(change.verdict == "worse" for change in changes),
                unlike=why,
                remedy=remedy_of(base.runs, candidate.runs) if why else "",
                changes=changes,
            )
        )
    verdict = min((summary.verdict for summary in summaries), key=list(STAMPS).index)
    return Comparison(
        verdict=verdict,
        strict=strict,
        failed=severity(verdict, strict=strict) is Severity.FAILED,
        tolerance=tolerance.relative,
        tolerance_share=tolerance.share,
        vary=sorted(vary),
        regressed=any(summary.regressed for summary in summaries),
        base=base.summary(),
        candidates=summaries,
    )


def verdict_of(changes: Sequence[Difference], *, unlike: bool) -> RunVerdict:
    """Return the verdict on a candidate. Policy: docs/cli.md."""
    found = {change.verdict for change in changes if change.measured}
    if unlike:
        return RunVerdict.NOT_COMPARABLE
    if "worse" in found:
        return RunVerdict.FAIL
    if "invalid" in found:
        return RunVerdict.INVALID
    return RunVerdict.PASS if found & {"better", "same"} else RunVerdict.NOT_DECIDED


def name_of(metric: str) -> str:
    """Return the label of a metric."""
    sample, _, statistic = metric.partition(".")
    return NAMES[metric] if metric in NAMES else f"{NAMES[sample]} {statistic}"


def in_sentence(metric: str) -> str:
    """Return the label of a metric within a sentence."""
    name = name_of(metric)
    return name if name[:2].isupper() else name[:1].lower() + name[1:]


def value_of(value: float | None, kind: MetricKind) -> str:
    """Return the value of a metric with its unit."""
    if kind == "ms":
        return text.milliseconds(value)
    if kind == "share":
        return text.percent(value)
    return text.compact(value if value is None or value < 1000 else round(value))
