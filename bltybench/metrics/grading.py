"""Grades of INVALID: the figures that a fault of the load generator affects, and those that it does not."""

from collections.abc import Collection, Iterable
from enum import StrEnum

import msgspec


class Figure(StrEnum):
    """A kind of figures that a fault can affect separately from the others."""

    TTFT = "TTFT"
    ITL = "ITL and TPOT"
    ATTEMPT_LATENCY = "attempt latency"
    CALL_LATENCY = "call latency"
    RATES = "rates"
    """Requests and tokens per minute, calls in flight, and the fractions refused, failed, and successful."""
    LIMITS = "limits"
    """The rate limits and the advice."""


TIMING = (Figure.TTFT, Figure.ITL, Figure.ATTEMPT_LATENCY, Figure.CALL_LATENCY)
GRADES = {"timing": TIMING, "rates": (Figure.RATES,), "limits": (Figure.LIMITS,)}
"""Grades of INVALID, and their figures."""
EVERYTHING = tuple(Figure)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One finding of the audit: the measured value and its bound."""

    name: str
    holds: bool
    actual: str
    bound: str
    reason: str | None = None
    """What is wrong, if the finding does not hold."""
    remedy: str | None = None
    affects: list[Figure] = []
    """Figures that don't describe the server, if the finding does not hold."""


SAMPLES = {
    "ttft": Figure.TTFT,
    "itl": Figure.ITL,
    "tpot": Figure.ITL,
    "attempt_latency": Figure.ATTEMPT_LATENCY,
    "latency": Figure.CALL_LATENCY,
}
"""Figures of the latency metrics."""
GENERATOR_METRICS = frozenset({"audit", "schedule_delay"})
"""First parts of the metrics that describe the generator itself, so that nothing affects them."""


def figure_of(metric: str) -> Figure | None:
    """Return the figure of a metric of a check or a comparison; None if it describes the generator."""
    sample = metric.split(".", maxsplit=1)[0]
    return None if sample in GENERATOR_METRICS else SAMPLES.get(sample, Figure.RATES)


def grades_of(affected: Collection[Figure]) -> list[str]:
    """Return the grades of a run whose figures are ``affected``."""
    return [grade for grade, figures in GRADES.items() if any(figure in affected for figure in figures)]


def stamp(affected: Collection[Figure]) -> str:
    """Return the verdict in capitals, with the grades if something is not affected."""
    grades = grades_of(affected)
    return "INVALID" if len(grades) == len(GRADES) else f"INVALID: {' AND '.join(grades).upper()}"


def sentence(affected: Collection[Figure]) -> str:
    """Return which figures don't describe the server, and which do."""
    if len(affected) == len(Figure):
        return "These numbers don't describe the server."
    wrong = ", ".join(figure for figure in Figure if figure in affected)
    right = ", ".join(figure for figure in Figure if figure not in affected)
    return f"Affected: {wrong}. Not affected: {right}."


def finding_of(
    name: str, holds: bool, actual: str, bound: str, *, affects: Iterable[Figure], reason: str, remedy: str
) -> Finding:
    """Return a finding. It affects figures, and has a reason and a remedy, only if it does not hold."""
    finding = Finding(name=name, holds=holds, actual=actual, bound=bound)
    if holds:
        return finding
    return msgspec.structs.replace(finding, reason=reason, remedy=remedy, affects=list(affects))


def affected(findings: Iterable[Finding]) -> list[Figure]:
    """Return the figures that don't describe the server; none if the run is valid."""
    found = {figure for finding in findings for figure in finding.affects}
    return [figure for figure in Figure if figure in found]
