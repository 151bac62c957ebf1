"""The quick plan: one round at the documented or announced period, in two periods."""

from dataclasses import replace

from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.select import TOO_FEW_REFILL_PERIODS
from bltybench.limits.models.families import INTERVAL_REFILL
from bltybench.limits.probe.announced_period import (
    announced_limit,
    announced_period_s,
    read_announced_period,
    supports,
)
from bltybench.limits.probe.planner import Planner, ProbePlan
from bltybench.limits.probe.rounds import send_round, settle
from bltybench.limits.probe.thresholds import CONTEXT, PLAN


def measure_quickly(planner: Planner) -> ProbePlan[Verdict]:
    """Send one round at the documented or announced period, and another if that is refuted."""
    given_s = planner.options.period_s
    expected_s = given_s or (yield from read_announced_period(planner)) or CONTEXT.usual_period_s
    verdict = yield from _quick_round(planner, expected_s)
    if given_s is None and verdict.queue is None and not supports(verdict, expected_s):
        # The announced period is refuted.
        longest_s = announced_period_s(planner.observations) or 0.0
        other_s = longest_s if expected_s < longest_s < CONTEXT.usual_period_s else CONTEXT.usual_period_s
        if other_s != expected_s:
            verdict = yield from _quick_round(planner, other_s)
    return without_refill(verdict)


def _quick_round(planner: Planner, period_s: float) -> ProbePlan[Verdict]:
    """Send one round at this period, then bursts where the candidates differ most, within two periods."""
    limit = planner.options.limit or announced_limit(planner.observations)
    start_s = yield from send_round(planner, 0, period_s, limit, PLAN.quick_offsets)
    verdict = planner.verdict()
    if not planner.observations or verdict.queue is not None:
        return verdict
    yield from settle(planner, verdict, start_s + 2 * period_s - 4 * planner.latency_s())
    return planner.verdict()


def without_refill(verdict: Verdict) -> Verdict:
    """Return the verdict of a quick plan, which never reports an interval refill.

    Its two periods can suggest one, but several limits fit, and so do other families nearly.
    """
    if verdict.best is None or verdict.best.family != INTERVAL_REFILL:
        return verdict
    return replace(verdict, status="unknown", consistent=(), confidence=None, reason=TOO_FEW_REFILL_PERIODS)
