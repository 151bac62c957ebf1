"""Scenario checks: parse ``"ttft.p95" = "< 800 ms"`` into a metric, an operator, and a threshold."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from bltybench.errors import UserError

Unit = Literal["count", "per_min", "share", "ms", "bool"]

PERCENTILES = ("p50", "p90", "p95", "p99", "max")
TIMINGS = ("ttft", "itl", "tpot", "latency", "attempt_latency", "schedule_delay")

METRICS: dict[str, Unit] = {
    "attempts.count": "count",
    "accepted.rpm": "per_min",
    "accepted.count": "count",
    "refused.share": "share",
    "refused.count": "count",
    "errors.share": "share",
    "errors.count": "count",
    "calls.ok_share": "share",
    "goodput.share": "share",
    "tool_calls.share": "share",
    "json_valid.share": "share",
    "schema_valid.share": "share",
    **{f"{timing}.{percentile}": "ms" for timing in TIMINGS for percentile in PERCENTILES},
    "tpm.total": "per_min",
    "in_flight.max": "count",
    "audit.valid": "bool",
}
"""Metrics that checks can use, with their units."""

KNOWN = ", ".join(
    [
        *(name for name, unit in METRICS.items() if unit != "ms"),
        *(f"{timing}.{'|'.join(PERCENTILES)}" for timing in TIMINGS),
    ]
)
"""The same metrics, abbreviated for messages."""

_OPS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_EXPRESSION = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*(\d+(?:\.\d+)?|\.\d+)\s*(%|ms|s)?\s*", re.ASCII)

_UNITS: dict[Unit, tuple[str, dict[str, float]]] = {
    "ms": ('"< 800 ms"', {"ms": 1.0, "s": 1000.0}),
    "share": ('"<= 5%"', {"%": 0.01, "": 1.0}),
    "count": ('">= 55"', {"": 1.0}),
    "per_min": ('">= 55"', {"": 1.0}),
}
"""Example of a check in each unit, and the factors of the suffixes."""


@dataclass(frozen=True, slots=True)
class ParsedCheck:
    """A parsed check."""

    metric: str
    op: str
    """One of <, <=, >, >=, ==, and !=."""
    threshold: float
    """Milliseconds for times, a fraction (0 to 1) for shares, 1.0 for true."""
    unit: Unit

    def holds(self, value: float | bool) -> bool:
        """Return whether ``value``, in the threshold's unit, passes."""
        return _OPS[self.op](float(value), self.threshold)

    def __str__(self) -> str:
        if self.unit == "bool":
            return "is true" if self.threshold else "is false"
        if self.unit == "share":
            return f"{self.op} {self.threshold * 100:g}%"
        return f"{self.op} {self.threshold:g}" + (" ms" if self.unit == "ms" else "")


def parse_check(name: str, value: object) -> ParsedCheck:
    """Parse one line of ``[scenarios.X.checks]``. Raise UserError with the expected form."""
    unit = METRICS.get(name)
    if unit is None:
        near = get_close_matches(name, METRICS, n=1)
        known = f"did you mean '{near[0]}'?" if near else f"known: {KNOWN}"
        raise UserError("no such metric", where=name[:60], remedy=known)
    if unit == "bool":
        if not isinstance(value, bool):
            raise UserError("must be true or false", where=name)
        return ParsedCheck(name, "==", float(value), unit)
    example, factors = _UNITS[unit]
    match = _EXPRESSION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise UserError(f"must be a comparison, such as {example}", where=name)
    op, number, suffix = match.groups()
    factor = factors.get(suffix or "")
    if factor is None:
        raise UserError(f"has the wrong unit: must be like {example}", where=name)
    threshold = float(number) * factor
    if unit == "share" and threshold > 1:
        raise UserError(f"a share cannot exceed 100%: must be like {example}", where=name)
    return ParsedCheck(name, op, threshold, unit)
