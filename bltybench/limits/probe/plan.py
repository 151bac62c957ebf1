"""Plan of the probe for the request limit: what to send next, given the observations so far.

The plan is pure: it neither waits nor sends. The same observations give the same plan, so an interrupted
probe resumes by replaying its record.
"""

from typing import Literal

import numpy as np

from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.observations.observation import Lockout, Observations
from bltybench.limits.probe.name_family import name_family
from bltybench.limits.probe.next_query import most_informative_time
from bltybench.limits.probe.planner import Planner, PlanOptions, ProbePlan
from bltybench.limits.probe.queue_phase import fill_queue
from bltybench.limits.probe.quick_plan import measure_quickly
from bltybench.limits.probe.rounds import send_round, try_period, window_periods
from bltybench.limits.probe.thresholds import PLAN, QUERY


def plan(options: PlanOptions, now_s: float) -> ProbePlan[Verdict]:
    """Return the plan of a probe that begins at ``now_s`` (Unix time)."""
    planner = Planner(options, now_s)
    return measure_quickly(planner) if options.quick else _full(planner)


def _full(planner: Planner) -> ProbePlan[Verdict]:
    verdict = yield from _test_documented(planner)
    is_documented = planner.options.documented_fit(verdict) is not None
    if verdict.queue is not None or (is_documented and len(verdict.families) == 1):
        return verdict
    if not (is_documented or (planner.options.earlier and verdict.fits)):
        if not planner.was_refused and (yield from _drain(planner)) != "refused":
            return planner.verdict()
        for _ in range(2):
            if not (yield from _recover(planner, planner.options.first_wait_s)):
                return planner.verdict()
        verdict = planner.verdict()
    for number in range(planner.options.rounds):
        guess = verdict.best or (verdict.fits[0] if verdict.fits else None)
        if guess is None or planner.left < 2 * len(PLAN.round_offsets):
            return verdict
        # The few observations before the first round also fit periods that are much too long.
        periods = window_periods(verdict, guess)
        yield from send_round(planner, number, max(periods) if number else min(periods), guess.limit)
        verdict = planner.verdict()
        # Another phase may fit the edge of the first round too, but not with a limit that is documented.
        if len(verdict.families) == 1 and (number or planner.options.documented_fit(verdict)):
            break
        # Requests at the times at which two families differ most show more than another round.
        if number and len(verdict.families) == 2:
            break
    if not _has_several(verdict):
        yield from name_family(planner, verdict)
        verdict = planner.verdict()
    if _has_several(verdict):
        yield from _reach_both(planner)
        verdict = yield from _name_both(planner)
        if not _has_several(verdict):
            yield from name_family(planner, verdict)
            verdict = planner.verdict()
    return verdict


def _has_several(verdict: Verdict) -> bool:
    """Return whether two limits fit, or can explain that no family does."""
    return verdict.contradicted or verdict.has_two_limits


def _test_documented(planner: Planner) -> ProbePlan[Verdict]:
    """Test the documented limit, if there is one and nothing was sent before."""
    period_s, limit = planner.options.period_s, planner.options.limit
    if period_s is not None and limit is not None and not planner.observations:
        yield from try_period(planner, period_s, limit)
        verdict = planner.verdict()
        if planner.options.documented_fit(verdict) is not None:
            yield from name_family(planner, verdict, last=False)
        if not planner.waited:
            planner.max_in_flight = 1
    return planner.verdict()


def _drain(planner: Planner) -> ProbePlan[Literal["refused", "queued", "accepted"]]:
    """Send until a refusal, with more requests in flight if responses are too slow. Fill a queue if found."""
    most = planner.options.max_in_flight or PLAN.in_flight[-1]
    levels = sorted({min(count, most) for count in PLAN.in_flight})
    for in_flight in levels:
        planner.max_in_flight = in_flight
        cap = min(planner.left // 3, PLAN.drain_requests * in_flight)
        if in_flight == levels[-1]:
            cap = planner.left
        sent = 0
        while sent < cap:
            got = yield from planner.send(
                0.0, min(PLAN.queue_check * in_flight, cap - sent), "sending until the first refusal"
            )
            sent += len(got)
            if not got or any(observation.accepted is False for observation in got):
                return "refused" if got else "accepted"
            if planner.looks_queued() and (yield from fill_queue(planner)):
                return "queued"
            if in_flight < levels[-1] and planner.waited:
                break  # a waiting room refuses only concurrent requests
    return "accepted"


def _reach_both(planner: Planner) -> ProbePlan[None]:
    """Exhaust both of two limits: send as soon as refusals end, and again after idle intervals."""
    for number, idle in enumerate(PLAN.pair_idles):
        verdict = yield from _name_both(planner)
        best = verdict.best
        is_named = verdict.has_two_limits and verdict.status == "found"
        if best is not None and is_named and best.precision <= PLAN.pair_precision:
            return
        if number:
            yield from _send_after(planner, idle, best)
        if number and best is not None and best.also is not None:
            yield from send_round(planner, number, best.also.period_s, best.also.limit)
        # After half an idle period, a window refills completely when it resets, and a log in two parts.
        for _ in range(2 if 0 < idle < 1 else 1):
            if not (yield from _exhaust_both(planner)):
                return


def _send_after(planner: Planner, idle: float, best: Fit | None) -> ProbePlan[None]:
    """Send until a refusal after an idle interval, in periods of the longer limit."""
    longest_s = max(lockout.max_s for lockout in _ended_lockouts(planner))
    at_s = planner.now_s + idle * (best.period_s if best else longest_s)
    yield from planner.send(at_s, planner.left // 3, "sending after an idle interval")


def _exhaust_both(planner: Planner) -> ProbePlan[bool]:
    """Send as soon as refusals end, until some last much longer. Return False if that is impossible."""
    for _ in range(PLAN.pair_bursts):
        usual_s = float(np.median([lockout.max_s for lockout in _ended_lockouts(planner)]))
        first_s = PLAN.first_poll * usual_s
        if planner.left < PLAN.pair_reserve or not (yield from _recover(planner, first_s)):
            return False
        if _ended_lockouts(planner)[-1].max_s > PLAN.min_lockout_ratio * usual_s:
            break
    return True


def _name_both(planner: Planner) -> ProbePlan[Verdict]:
    """Send when the remaining pairs of limits differ most, or exhaust both if no single burst shows it."""
    verdict = planner.verdict()
    for number in range(PLAN.pair_settlings):
        if verdict.best is None or not verdict.has_two_limits or verdict.status == "found":
            break
        period_s = max(fit.period_s for fit in verdict.consistent)
        until_s = planner.now_s + PLAN.settle_periods * period_s
        most, now_s = planner.left - 1, planner.now_s
        query = most_informative_time(
            planner.observations, verdict.consistent, now_s, until_s, most, enough=QUERY.enough
        )
        if planner.left < PLAN.pair_reserve:
            break
        if query is not None:
            yield from planner.send(*query, "distinguishing the remaining pairs of limits")
        else:
            yield from _send_after(planner, PLAN.pair_idles[number % len(PLAN.pair_idles)], verdict.best)
            yield from _exhaust_both(planner)
        verdict = planner.verdict()
    return verdict


def _ended_lockouts(planner: Planner) -> list[Lockout]:
    lockouts = Observations(planner.observations).lockouts
    return [lockout for lockout in lockouts if lockout.recovery is not None]


def _recover(planner: Planner, first_wait_s: float = 0.0) -> ProbePlan[bool]:
    """Retry at growing intervals until a request is accepted, then send until the next refusal.

    Return False if nothing is accepted within the maximum wait or the budget.
    """
    refused_s = planner.now_s
    wait_s = max(2 * planner.latency_s(), 0.002, first_wait_s)
    while planner.left > 0 and wait_s <= planner.options.max_wait_s:
        got = yield from planner.send(refused_s + wait_s, 1, "waiting for the refusals to end")
        if any(observation.accepted for observation in got):
            count = planner.left // 3
            yield from planner.send(0.0, count, "sending until the next refusal", confirm_s=0.0)
            return True
        wait_s = max(wait_s * PLAN.wait_growth, planner.now_s - refused_s)
    return False
