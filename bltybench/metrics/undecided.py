"""Why a metric of a comparison is not decided, and what would decide it."""

import math
from dataclasses import dataclass

from bltybench.metrics.bootstrap import Interval
from bltybench.metrics.grading import Finding
from bltybench.metrics.outline import MIN_SPAN_S, MIN_SPANS, Outline

MAX_FACTOR = 100
"""Largest factor of data that is worth recommending."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a metric is not decided."""

    why: str
    """The end of a sentence about one run, or a sentence about both sides."""
    remedy: str
    """What would decide it."""
    factor: float = math.inf
    """How many times as much data would be enough."""


def few_values(percentile: str, count: int, needed: int) -> Reason:
    """Return the reason if a sample is too small for a percentile."""
    if count == 0:
        return Reason("has no value", "compare runs that both have values")
    factor = needed / count
    return Reason(
        f"has {count:,} of the {needed:,} values that {percentile} needs",
        f"run {_rounded(factor)} times as long, for {needed - count:,} more values",
        factor,
    )


def too_short(run: Outline) -> Reason:
    """Return the reason if a load is too short for an interval."""
    spans = len(run.counts["attempts"])
    lasted_s = run.span_s * spans
    needed_s = MIN_SPANS * MIN_SPAN_S
    if lasted_s >= needed_s:
        # The load has stages, which are cut into spans separately.
        needed_s = math.ceil(lasted_s * max(MIN_SPANS / spans, MIN_SPAN_S / run.span_s))
    return Reason(
        f"lasted {lasted_s:.3g} s after the warm-up, too short for an interval",
        f"run for at least {needed_s:,} s after the warm-up",
        needed_s / max(lasted_s, 1e-9),
    )


def affected(fault: Finding) -> Reason:
    """Return the reason if the load generator affected the metric."""
    return Reason(f"is INVALID: {fault.reason}", str(fault.remedy))


def wide_interval(change: float, bounds: Interval, tolerance: float, calls: int, runs: int) -> Reason:
    """Return the reason if the interval of a change crosses the edge of the tolerance.

    ``calls`` and ``runs`` are those of one side.
    """
    factor = data_factor(change, bounds, tolerance)
    if factor > MAX_FACTOR:
        return Reason(
            "the change is too close to the edge of the tolerance",
            f"set another tolerance, because it takes more than {MAX_FACTOR} times as much data",
        )
    more_calls, more_runs = _two_digits(calls * (factor - 1)), math.ceil(runs * (factor - 1))
    return Reason(
        "the interval crosses the edge of the tolerance",
        f"measure about {_rounded(factor)} times as much: {more_calls:,} more calls or {more_runs:,} more "
        f"run{'s' if more_runs > 1 else ''} on each side",
        factor,
    )


def data_factor(change: float, bounds: Interval, tolerance: float) -> float:
    """Return how many times as much data makes the interval end at the nearest edge of the tolerance.

    The distance of each bound from the change is in proportion to 1 / √data.
    """
    above, below = bounds.high - change, change - bounds.low
    if abs(change) > tolerance:
        pairs = [(below if change > 0 else above, abs(change) - tolerance)]
    else:
        pairs = [(above, tolerance - change), (below, tolerance + change)]
    return max((width / room) ** 2 if room > 0 else math.inf for width, room in pairs)


def _rounded(factor: float) -> str:
    """Return a factor, rounded up: 1.3, 2.5, 8, 40."""
    if factor < 3:
        return f"{math.ceil(factor * 10) / 10:g}"
    return f"{_two_digits(math.ceil(factor)):,}"


def _two_digits(count: float) -> int:
    """Return a count, rounded up to two digits."""
    unit: int = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return max(math.ceil(count / unit), 1) * unit
