"""Steps that distinguish the families which fit after the rounds, and narrow the range of the period."""

import math
from collections.abc import Sequence

from bltybench.limits.fit.bans import restarted_range_s
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.fit.select import TOO_FEW_REFILL_PERIODS
from bltybench.limits.fit.thresholds import SELECTION
from bltybench.limits.models.families import WHOLE_TOKEN_BUCKET
from bltybench.limits.observations.observation import Observations
from bltybench.limits.probe.next_query import replayed
from bltybench.limits.probe.planner import Planner, ProbePlan
from bltybench.limits.probe.rounds import (
    around,
    begins_anywhere,
    is_named,
    is_precise,
    settle,
    window_periods,
)
from bltybench.limits.probe.thresholds import PLAN


def name_family(planner: Planner, verdict: Verdict, *, last: bool = True) -> ProbePlan[None]:
    """Send what distinguishes the remaining families, and what narrows the range of the period.

    Unless it is the ``last`` step of the plan, it does not narrow the period while several families remain.
    """
    documented = planner.options.documented_fit(verdict)
    for _ in range(PLAN.moves + 1):
        if is_named(verdict) or not verdict.consistent:
            break
        periods = [documented.period_s] if documented else window_periods(verdict, verdict.consistent[0])
        yield from settle(planner, verdict, planner.now_s + PLAN.settle_periods * max(periods))
        verdict = planner.verdict()
        best = verdict.best
        if is_named(verdict) or not begins_anywhere(verdict) or best is None or best.traits.kind != "window":
            break
        yield from _move_windows(planner, verdict.consistent)
        verdict = yield from _test_predictions(planner, planner.verdict())
    verdict = yield from _test_whole_tokens(planner, verdict)
    verdict = yield from _test_predictions(planner, verdict)
    if not last and not is_named(verdict):
        return
    for _ in range(PLAN.sharpenings):
        if not verdict.consistent or is_precise(verdict):
            break
        if not (yield from _sharpen(planner, verdict.consistent)):
            break
        narrowed = planner.verdict(verdict.consistent)
        if narrowed.best is None:
            break
        verdict = narrowed
    yield from _confirm_recovery(planner, planner.verdict())
    yield from _rule_out_ban(planner, planner.verdict())
    yield from _recheck_after_idle(planner, planner.verdict())
    yield from _confirm_interval_refill(planner, planner.verdict())


def _move_windows(planner: Planner, candidates: Sequence[Fit]) -> ProbePlan[None]:
    """Begin a window late. If the clock aligns it, it still ends on time; else it ends as much later."""
    period_s = candidates[0].period_s
    free_s = planner.now_s + max(_wait_s(planner, fit) for fit in candidates)
    count = max(fit.limit for fit in candidates) + PLAN.overshoot
    late, test = PLAN.late_periods
    yield from planner.send(free_s + late * period_s, count, "beginning a window late")
    yield from planner.send(free_s + test * period_s, 1, "testing whether the window ends late")


def _wait_s(planner: Planner, fit: Fit, period_s: float | None = None) -> float:
    """Return how long after the last answer this candidate refuses the next request, in seconds."""
    model = replayed(planner.observations, fit, period_s)
    return model.peek(planner.now_s).retry_after_s or 0.0


def _test_whole_tokens(planner: Planner, verdict: Verdict) -> ProbePlan[Verdict]:
    """If a bucket may store whole tokens or fractions, let it lose half a token per request, and count them.

    After k + 1/2 times per token, a bucket of whole tokens has k, however often that is repeated.
    """
    whole = next((fit for fit in verdict.consistent if fit.family == WHOLE_TOKEN_BUCKET), None)
    if whole is None or is_named(verdict):
        return verdict
    token_s, count = whole.period_s / whole.limit, whole.limit + PLAN.overshoot
    gained = math.ceil(planner.latency_s() / token_s)
    yield from planner.send(0.0, count, "exhausting the bucket")
    for _ in range(min(PLAN.lost_tokens, 1 + whole.limit // gained)):
        at_s = planner.observations[-1].sent_s + (gained + 0.5) * token_s
        yield from planner.send(at_s, 1, "letting fractions of tokens refill")
    yield from planner.send(0.0, count, "counting what has refilled")
    return planner.verdict()


def _test_predictions(planner: Planner, verdict: Verdict) -> ProbePlan[Verdict]:
    """Send just before and after the time at which the documented limit accepts more."""
    for _ in range(PLAN.predictions):
        expected = planner.options.documented_fit(verdict)
        if expected is None or is_precise(verdict):
            break
        free_s = planner.now_s + _wait_s(planner, expected)
        for at_s in around(free_s, PLAN.end_margin * expected.period_s):
            count = expected.limit + expected.limit // 2 + PLAN.overshoot
            yield from planner.send(at_s, count, "testing when the limit accepts more")
        verdict = planner.verdict()
    return verdict


def _rule_out_ban(planner: Planner, verdict: Verdict) -> ProbePlan[None]:
    """If the best candidate is a window, check that it resets on time however early it is exhausted."""
    guess = verdict.best
    if guess is None or guess.traits.kind != "window" or not _can_be_ban(planner):
        return
    step_s = PLAN.poll_step * guess.period_s
    yield from _poll_until_accepted(planner, planner.now_s + step_s, step_s)
    for delay in PLAN.exhaust_after:
        if not _can_be_ban(planner):
            return
        at_s = planner.now_s + delay * guess.period_s
        yield from planner.send(at_s, guess.limit + PLAN.overshoot, "exhausting a window")
        yield from _poll_until_accepted(planner, planner.now_s + step_s, step_s)


def _can_be_ban(planner: Planner) -> bool:
    """Return whether a ban of one length, from the first or from the last refusal, explains all refusals."""
    observations = Observations(planner.observations)
    refused_s = max((lockout.min_s for lockout in observations.lockouts), default=0.0)
    recovered_s = min((lockout.max_s for lockout in observations.lockouts), default=math.inf)
    low_s, high_s = restarted_range_s(observations)
    return refused_s <= recovered_s or low_s <= high_s


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


def _confirm_recovery(planner: Planner, verdict: Verdict) -> ProbePlan[None]:
    """If requests were refused at the end, check that they are accepted when the candidates predict it.

    The last refusals can be those of a longer limit that only then was exhausted.
    """
    guess, last = verdict.best, Observations(planner.observations).lockouts[-1]
    if guess is None or last.recovery or last.min_s < PLAN.max_open_lockout * guess.period_s:
        return
    at_s = planner.now_s + max(_wait_s(planner, fit, fit.period_range_s[1]) for fit in verdict.consistent)
    step_s = PLAN.poll_step * guess.period_s
    yield from _poll_until_accepted(planner, at_s + step_s, step_s)


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
        planner.now_s + _wait_s(planner, fit, period_s)
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
