"""The period that the rate-limit headers suggest. The plan tests it, because headers can be wrong."""

from collections.abc import Sequence

from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.planner import Planner, ProbePlan
from bltybench.limits.probe.thresholds import ANNOUNCED, CONTEXT


def read_announced_period(planner: Planner) -> ProbePlan[float | None]:
    """Read the headers of a few responses, and of another one if that window may have been nearly over.

    Return the suggested period in seconds; None if the headers suggest none that the quick plan can test.
    """
    yield from planner.send(0.0, ANNOUNCED.requests, "reading the announced limit")
    period_s = announced_period_s(planner.observations)
    has_window = any(one.announced and one.announced.window_s for one in planner.observations)
    if period_s is not None and not has_window and period_s <= ANNOUNCED.max_wait_s:
        next_s = planner.now_s + period_s + ANNOUNCED.rounding_s
        yield from planner.send(next_s, 1, "reading the announced limit in the next window")
        period_s = announced_period_s(planner.observations)
    return period_s if period_s is not None and period_s <= ANNOUNCED.max_period_s else None


def announced_period_s(observations: Sequence[Observation]) -> float | None:
    """Return the announced window, or else the period that the announced resets suggest, in seconds."""
    announced = [one.announced for one in observations if one.announced is not None]
    windows = [one.window_s for one in announced if one.window_s]
    if windows:
        return windows[-1]
    resets = [(one, one.reset_s) for one in announced if one.reset_s]
    if not resets:
        return None
    longest, reset_s = max(resets, key=lambda pair: pair[1])
    used = [
        (one.limit - one.remaining, after_s)
        for one, after_s in resets
        if one.limit is not None and one.remaining is not None and one.limit > one.remaining
    ]
    (first, first_s), (last, last_s) = (min(used), max(used)) if used else ((0, 0.0), (0, 0.0))
    if last > first and last_s * first >= ANNOUNCED.min_bucket_growth * first_s * last:
        # The reset of a bucket is when all is refilled, so it grows with each request.
        return (longest.limit or 0) * last_s / last
    if reset_s > ANNOUNCED.max_wait_s:
        # A reset only says how long the window still lasts, at least.
        usual = (*ANNOUNCED.usual_periods_s, reset_s)
        return next(
            period_s
            for period_s in usual
            if abs(period_s - reset_s) <= ANNOUNCED.rounding_s
            or period_s >= CONTEXT.usual_period_s >= reset_s
        )
    return reset_s


def announced_limit(observations: Sequence[Observation]) -> int | None:
    """Return the latest announced limit."""
    limits = [one.announced.limit for one in observations if one.announced and one.announced.limit]
    return limits[-1] if limits else None


def supports(verdict: Verdict, period_s: float) -> bool:
    """Return whether a candidate without contradictions has this period, except for rounding."""
    error_s = min(ANNOUNCED.rounding_s, ANNOUNCED.max_error * period_s)
    return any(
        fit.period_range_s[0] - error_s <= period_s <= fit.period_range_s[1] + error_s
        for fit in verdict.consistent
        if not fit.contradictions
    )
