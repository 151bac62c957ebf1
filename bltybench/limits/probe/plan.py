"""Plan of the probe for the request limit: what to send next, given the observations so far.

The plan is pure: it neither waits nor sends. The same observations give the same plan, so an interrupted
probe resumes by replaying its record.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.fit.select import TOO_FEW_REFILL_PERIODS
from bltybench.limits.fit.thresholds import SELECTION
from bltybench.limits.models.families import INTERVAL_REFILL
from bltybench.limits.observations.observation import Lockout, Observations
from bltybench.limits.probe.announced_period import (
    announced_limit,
    announced_period_s,
    read_announced_period,
    supports,
)
from bltybench.limits.probe.next_query import most_informative_time, replayed
from bltybench.limits.probe.planner import Planner, PlanOptions, ProbePlan
from bltybench.limits.probe.queue_phase import fill_queue
from bltybench.limits.probe.thresholds import CONTEXT, PLAN


def plan(options: PlanOptions, now_s: float) -> ProbePlan[Verdict]:
    """Return the plan of a probe that begins at ``now_s`` (Unix time)."""
    planner = Planner(options, now_s)
    return _quick(planner) if options.quick else _full(planner)


def _quick(planner: Planner) -> ProbePlan[Verdict]:
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
    start_s = yield from _round(planner, 0, period_s, limit, PLAN.quick_offsets)
    verdict = planner.verdict()
    if not planner.observations or verdict.queue is not None:
        return verdict
    yield from _settle(planner, verdict, start_s + 2 * period_s - 4 * planner.latency_s())
    return planner.verdict()


def without_refill(verdict: Verdict) -> Verdict:
    """Return the verdict of a quick plan, which never reports an interval refill.

    Its two periods can suggest one, but several limits fit, and so do other families nearly.
    """
    if verdict.best is None or verdict.best.family != INTERVAL_REFILL:
        return verdict
    return replace(verdict, status="unknown", consistent=(), confidence=None, reason=TOO_FEW_REFILL_PERIODS)


def _full(planner: Planner) -> ProbePlan[Verdict]:
    verdict = planner.verdict()
    if not verdict.fits:
        if (yield from _drain(planner)) != "refused":
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
        periods = _window_periods(verdict, guess)
        yield from _round(planner, number, max(periods) if number else min(periods), guess.limit)
        verdict = planner.verdict()
        # Another phase may fit the edge of the first round too, but not with a limit that is documented.
        if len(verdict.families) == 1 and (number or planner.options.are_met_by(verdict)):
            break
        # Requests at the times at which two families differ most show more than another round.
        if number and len(verdict.families) == 2:
            break
    if verdict.contradicted or verdict.has_two_limits:
        yield from _reach_both(planner)
        verdict = planner.verdict()
    if not (verdict.contradicted or verdict.has_two_limits):
        yield from _name_family(planner, verdict)
    return planner.verdict()


def _name_family(planner: Planner, verdict: Verdict) -> ProbePlan[None]:
    """Send what distinguishes the remaining families, and what narrows the range of the period."""
    if len(verdict.families) > 1:
        settle_s = PLAN.settle_periods * max(_window_periods(verdict, verdict.consistent[0]))
        yield from _settle(planner, verdict, planner.now_s + settle_s)
        verdict = planner.verdict()
    yield from _rule_out_ban(planner, verdict)
    verdict = planner.verdict()
    for _ in range(PLAN.sharpenings):
        if not verdict.consistent or _is_precise(verdict):
            break
        if not (yield from _sharpen(planner, verdict.consistent)):
            break
        narrowed = planner.verdict(verdict.consistent)
        if narrowed.best is None:
            break
        verdict = narrowed
    yield from _recheck_after_idle(planner, planner.verdict())
    yield from _confirm_interval_refill(planner, planner.verdict())


def _is_precise(verdict: Verdict) -> bool:
    return len(verdict.families) == 1 and verdict.consistent[0].precision <= PLAN.precision


def _window_periods(verdict: Verdict, guess: Fit) -> list[float]:
    """Return the periods of all candidates but token buckets; that of ``guess`` if there are none."""
    return [fit.period_s for fit in verdict.consistent if not fit.traits.refills_singly] or [guess.period_s]


def _drain(planner: Planner) -> ProbePlan[Literal["refused", "queued", "accepted"]]:
    """Send until a refusal, with more requests in flight if responses are too slow. Fill a queue if found."""
    most = planner.options.max_in_flight or PLAN.in_flight[-1]
    levels = sorted({min(count, most) for count in PLAN.in_flight})
    for in_flight in levels:
        planner.max_in_flight = in_flight
        cap = min(planner.left // 3, PLAN.drain_requests * in_flight)
        if in_flight == levels[-1]:
            cap = planner.left
        before_check = PLAN.queue_check * in_flight
        for count in (min(before_check, cap), cap - before_check):
            got = yield from planner.send(0.0, count, "sending until the first refusal")
            if any(observation.accepted is False for observation in got):
                return "refused"
            if planner.looks_queued() and (yield from fill_queue(planner)):
                return "queued"
    return "accepted"


def _reach_both(planner: Planner) -> ProbePlan[None]:
    """Exhaust both of two limits: send as soon as refusals end, and again after idle intervals."""
    for number, idle in enumerate(PLAN.pair_idles):
        best = planner.verdict().best
        if number and _is_precise(planner.verdict()):
            return
        if number:
            longest_s = max(lockout.max_s for lockout in _ended_lockouts(planner))
            at_s = planner.now_s + idle * (best.period_s if best else longest_s)
            yield from planner.send(at_s, planner.left // 3, "sending after an idle interval")
        if number and best is not None and best.also is not None:
            yield from _round(planner, number, best.also.period_s, best.also.limit)
        for _ in range(PLAN.pair_bursts):
            usual_s = float(np.median([lockout.max_s for lockout in _ended_lockouts(planner)]))
            first_s = PLAN.first_poll * usual_s
            if planner.left < PLAN.pair_reserve or not (yield from _recover(planner, first_s)):
                return
            if _ended_lockouts(planner)[-1].max_s > PLAN.min_lockout_ratio * usual_s:
                break


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


def _round(
    planner: Planner,
    number: int,
    period_s: float,
    limit: int | None,
    offsets: Sequence[float] = PLAN.round_offsets,
) -> ProbePlan[float]:
    """Send bursts between which the algorithms free different numbers of requests. Return when they start."""
    # Two idle periods empty every window and counter. Before the first refusal they hold little.
    was_refused = any(observation.accepted is False for observation in planner.observations)
    ready_s = planner.now_s + (2 * period_s if was_refused else 0.0)
    edge_s = PLAN.edge_fractions[number % len(PLAN.edge_fractions)] * period_s
    start_s = ready_s + (-(ready_s + edge_s)) % period_s
    first = max(1, int(PLAN.first_burst_fraction * limit)) if limit else PLAN.first_burst
    for offset in offsets:
        yield from planner.send(
            start_s + offset * period_s,
            first if offset == 0 else planner.left,
            f"round {number + 1}: {offset:.2f} periods",
            confirm_s=None if offset == 0 else PLAN.confirm_fraction * period_s,
        )
        if planner.looks_queued() and (yield from fill_queue(planner)):
            break
    return start_s


def _rule_out_ban(planner: Planner, verdict: Verdict) -> ProbePlan[None]:
    """If the best candidate is a window, check that it resets on time however early it is exhausted."""
    guess = verdict.best
    if guess is None or guess.traits.kind != "window":
        return
    step_s = PLAN.poll_step * guess.period_s
    yield from _poll_until_accepted(planner, planner.now_s + step_s, step_s)
    for delay in PLAN.exhaust_after:
        at_s = planner.now_s + delay * guess.period_s
        yield from planner.send(at_s, guess.limit + PLAN.overshoot, "exhausting a window")
        yield from _poll_until_accepted(planner, planner.now_s + step_s, step_s)


def _recheck_after_idle(planner: Planner, verdict: Verdict) -> ProbePlan[None]:
    """If the best candidate is a log or has contradictions, check when it refills after an idle interval.

    A log that bans early retries appears to have a longer period than it does. A contradiction may be chance,
    for example one of several nodes, but a wrong candidate is contradicted again.
    """
    for number, idle in enumerate(PLAN.idle_periods):
        guess = verdict.best
        if guess is None or not (guess.contradictions or (guess.traits.kind == "log" and number == 0)):
            return
        start_s = planner.now_s + PLAN.refill_periods * guess.period_s
        yield from planner.send(
            start_s, guess.limit + PLAN.overshoot, "exhausting the limit before an idle interval"
        )
        step_s = PLAN.poll_step * guess.period_s
        yield from _poll_until_accepted(planner, start_s + idle * guess.period_s, step_s)
        yield from planner.send(0.0, PLAN.extra_requests, "counting what has refilled")
        verdict = planner.verdict()


def _confirm_interval_refill(planner: Planner, verdict: Verdict) -> ProbePlan[None]:
    """Exhaust the limit again until enough periods were observed to report an interval refill."""
    guess = verdict.best
    if guess is None or verdict.reason != TOO_FEW_REFILL_PERIODS:
        return
    soon_s, later_s = (planner.now_s + delay * guess.period_s for delay in (0.5, 0.8))
    span_s = SELECTION.min_refill_periods * guess.period_range_s[1] * (1 + PLAN.precision)
    for at_s in (soon_s, max(planner.observations[0].sent_s + span_s, later_s)):
        yield from planner.send(at_s, guess.limit + PLAN.overshoot, "observing more refill periods")


def _poll_until_accepted(planner: Planner, at_s: float, step_s: float) -> ProbePlan[None]:
    for _ in range(round(2 / PLAN.poll_step)):
        got = yield from planner.send(at_s, 1, "waiting for the next refill")
        if not got or got[0].accepted:
            return
        at_s = planner.now_s + step_s


def _sharpen(planner: Planner, candidates: Sequence[Fit]) -> ProbePlan[bool]:
    """Send between the earliest and latest time at which a candidate accepts the next request.

    Return False if that cannot narrow the period's range any further.
    """
    count = max(fit.limit for fit in candidates) + PLAN.overshoot
    got = yield from planner.send(0.0, count, "narrowing the range of the period")
    if not got or got[-1].accepted is not False:
        return False
    times_s = [
        planner.now_s
        + (replayed(planner.observations, fit, period_s).peek(planner.now_s).retry_after_s or 0.0)
        for fit in candidates
        for period_s in fit.period_range_s
    ]
    earliest_s, latest_s = min(times_s), max(times_s)
    slack_s = 0.1 * (latest_s - earliest_s) + planner.latency_s()
    for step in range(PLAN.polls + 1):
        at_s = earliest_s - slack_s + (latest_s - earliest_s + 2 * slack_s) * step / PLAN.polls
        got = yield from planner.send(at_s, 1, "narrowing the range of the period")
        if not got or got[0].accepted:
            return bool(got)
    return True


def _settle(planner: Planner, verdict: Verdict, until_s: float) -> ProbePlan[None]:
    """Send when the remaining candidates differ most, as long as time and budget permit."""
    for _ in range(PLAN.settlings):
        request_s = 1.5 * planner.latency_s() / planner.max_in_flight
        in_time = int((until_s - planner.now_s) / (2 * request_s))
        max_requests = min(planner.left - 1, in_time)
        if not verdict.consistent or _is_precise(verdict) or max_requests < 1:
            return
        # Even the longest burst must end in time.
        last_s = until_s - (max_requests + 1) * request_s
        query = most_informative_time(
            planner.observations, verdict.consistent, planner.now_s, last_s, max_requests
        )
        if query is None:
            return
        at_s, count = query
        yield from planner.send(at_s, count, "distinguishing the remaining candidates")
        verdict = planner.verdict(verdict.consistent)
        if verdict.best is None:
            return
