"""PASS or FAIL: the scenario's checks against what the run came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bltybench.metrics.analysis import Analysis
from bltybench.metrics.latency import needed
from bltybench.metrics.outcomes import ERRORS, count_of
from bltybench.scenario.checks import ParsedCheck, parse_check


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One check: ``value`` in the metric's unit (None where it cannot be told), and why not."""

    check: ParsedCheck
    value: float | None
    passed: bool
    note: str = ""

    @property
    def margin(self) -> float | None:
        """Room left before the check would turn, in the metric's unit; negative where it failed."""
        if self.value is None or self.check.unit == "bool" or self.check.op in {"==", "!="}:
            return None
        room = self.check.threshold - self.value
        return room if self.check.op in {"<", "<="} else -room


def evaluate(analysis: Analysis) -> list[Evaluated]:
    """Evaluate the checks of the scenario as it ran, in its order. What cannot be told does not pass."""
    results: list[Evaluated] = []
    for name, wanted in analysis.manifest.resolved.get("checks", {}).items():
        check = parse_check(name, wanted)
        value, note = metric(analysis, name)
        results.append(Evaluated(check, value, value is not None and check.holds(value), note))
    return results


def metric(analysis: Analysis, name: str) -> tuple[float | None, str]:
    """Return a metric of ``scenario.checks.METRICS``, or None and the reason why there is none."""
    if name in _PLAIN:
        return _PLAIN[name](analysis), ""
    if name in _SHARES:
        share = _SHARES[name](analysis)
        return share, "there was nothing to take a share of" if share is None else ""
    sample, _, statistic = name.rpartition(".")
    row = analysis.timing(sample)
    value, n = row[statistic], int(row["n"] or 0)
    if n == 0:
        return None, "nothing succeeded that could be timed"
    if value is None:
        return None, f"n too small: {n:,} of the {needed(statistic):,} that {statistic} needs"
    return value, ""


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


_PLAIN: dict[str, Callable[[Analysis], float]] = {
    "attempts.count": lambda run: float(len(run.attempts)),
    "accepted.rpm": lambda run: run.best_of("accepted"),
    "accepted.count": lambda run: float(run.count_of("accepted")),
    "refused.count": lambda run: float(count_of(run.attempts, "rate_limited")),
    "errors.count": lambda run: float(count_of(run.attempts, *ERRORS)),
    "tpm.total": lambda run: run.best_of("total_tokens"),
    "in_flight.max": lambda run: float(run.in_flight.max),
    "audit.valid": lambda run: float(run.valid),
}

_SHARES: dict[str, Callable[[Analysis], float | None]] = {
    "refused.share": lambda run: _share(count_of(run.attempts, "rate_limited"), len(run.attempts)),
    "errors.share": lambda run: _share(count_of(run.attempts, *ERRORS), len(run.attempts)),
    "goodput.share": lambda run: run.goodput.share,
    "calls.ok_share": lambda run: _share(int(run.calls["ok"].sum()), len(run.calls)),
}
