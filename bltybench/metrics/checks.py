"""The scenario's checks against the run's metrics: each passes, fails, or is not decided."""

from collections.abc import Callable
from functools import partial

import msgspec

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.frame import cut_off
from bltybench.metrics.goodput import OBJECTIVES, bounds_of
from bltybench.metrics.grading import Figure, affected, figure_of
from bltybench.metrics.latency import min_sample
from bltybench.metrics.outcomes import ANSWER_CHECKS, ERRORS, count_of
from bltybench.metrics.verdict import RunVerdict
from bltybench.scenario.checks import ParsedCheck, parse_check


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluated check of the scenario."""

    metric: str
    target: str
    unit: str
    threshold: float
    actual: float | None
    """In ``unit``; None if the run can't tell."""
    margin: float | None
    """Distance to the threshold, in ``unit``; negative if the check failed."""
    passed: bool
    verdict: RunVerdict
    note: str = ""
    """Why the check is not decided, or which figures the generator affected."""

    @property
    def bound(self) -> str:
        """What the value must be: ``< 800 ms`` or ``true``."""
        return self.target.removeprefix("is ")


def evaluate(analysis: Analysis) -> list[CheckResult]:
    """Evaluate the scenario's checks, in their order."""
    results: list[CheckResult] = []
    wrong = {*affected(analysis.findings)}
    for name, condition in analysis.scenario.checks.items():
        check = parse_check(name, condition)
        actual, note = metric(analysis, name)
        if actual is None:
            verdict = RunVerdict.NOT_DECIDED
        elif not check.holds(actual):
            verdict = RunVerdict.FAIL
        else:
            verdict = RunVerdict.PASS
        if wrong & _figures(analysis, name) and actual is not None:
            # A failed check stays failed: a generator at its limit must not turn it into a success.
            note = "this figure is INVALID"
            verdict = RunVerdict.INVALID if verdict is RunVerdict.PASS else verdict
        results.append(
            CheckResult(
                metric=name,
                target=str(check),
                unit=check.unit,
                threshold=check.threshold,
                actual=actual,
                margin=_margin(check, actual),
                passed=verdict is RunVerdict.PASS,
                verdict=verdict,
                note=note,
            )
        )
    return results


def _figures(analysis: Analysis, name: str) -> set[Figure]:
    """Return the figures on which a check depends."""
    own = figure_of(name)
    figures = set() if own is None else {own}
    if name == "goodput.share":
        bounds = bounds_of(analysis.scenario.objectives)
        figures |= {figure for bound in bounds if (figure := figure_of(OBJECTIVES[bound])) is not None}
    return figures


def _margin(check: ParsedCheck, actual: float | None) -> float | None:
    if actual is None or check.unit == "bool" or check.op in {"==", "!="}:
        return None
    margin = check.threshold - actual
    return margin if check.op in {"<", "<="} else -margin


def metric(analysis: Analysis, name: str) -> tuple[float | None, str]:
    """Return a metric of ``scenario.checks.METRICS``, or None and the reason."""
    if name in _PLAIN:
        return _PLAIN[name](analysis), ""
    if name in _FRACTIONS:
        fraction = _FRACTIONS[name](analysis)
        return fraction, "there was nothing to count" if fraction is None else ""
    sample, _, statistic = name.rpartition(".")
    row = analysis.timing(sample)
    value, n = row[statistic], int(row["n"] or 0)
    if n == 0:
        return None, "nothing succeeded that could be timed"
    if value is None:
        return None, f"n too small: {n:,} of the {min_sample(statistic):,} that {statistic} needs"
    return value, ""


def _answer_share(run: Analysis, check: str) -> float | None:
    shares = run.answer_checks.loc[run.answer_checks["check"] == check, "share"]
    return None if shares.empty else float(shares.iloc[0])


def _fraction(count: int, total: int) -> float | None:
    return count / total if total else None


_PLAIN: dict[str, Callable[[Analysis], float]] = {
    "attempts.count": lambda run: float(len(run.attempts)),
    "accepted.rpm": lambda run: run.best_of("accepted"),
    "accepted.count": lambda run: float(run.count_of("accepted")),
    "refused.count": lambda run: float(run.count_of("refused")),
    "errors.count": lambda run: float(count_of(run.attempts, *ERRORS)),
    "tpm.total": lambda run: run.best_of("total_tokens"),
    "in_flight.max": lambda run: float(run.in_flight.max),
    "audit.valid": lambda run: float(run.valid),
}

_FRACTIONS: dict[str, Callable[[Analysis], float | None]] = {
    **{f"{check}.share": partial(_answer_share, check=check) for check in ANSWER_CHECKS},
    "refused.share": lambda run: _fraction(run.count_of("refused"), len(run.attempts)),
    "errors.share": lambda run: _fraction(count_of(run.attempts, *ERRORS), len(run.attempts)),
    "goodput.share": lambda run: run.goodput.share,
    "calls.ok_share": lambda run: _fraction(int(run.calls["ok"].sum()), int((~cut_off(run.calls)).sum())),
}
