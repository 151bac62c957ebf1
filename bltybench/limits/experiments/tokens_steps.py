"""Steps of the token experiment: what is charged, when, and how many tokens per period.

1. *Fill*: after an idle interval in which earlier use expires, the probe opens streams that could use many
   tokens. A refusal although hardly any were used shows that prompt + max_tokens are reserved on admission.
   Smaller and smaller streams then reach the limit to within a few tokens.
2. *Refunds*: the probe cancels the streams, then sends requests that could use many tokens but end after the
   first word. If unused reservations are kept, one of them is refused.
3. *Size*, if nothing is reserved: prompts that double until one is refused.
4. *Units*: requests of an eighth of the limit each. They turn the token limit into a limit of eight requests,
   whose period and algorithm can be fitted like those of any request limit.
5. *Refill*, if tokens are reserved: another fill at the start of a period, because the first one can include
   a window reset or earlier use.
6. *Exact size*, if only used tokens count: parts of a unit measure the exact size. Then all units are sent in
   one batch. If tokens are charged when responses end, more than the limit are accepted.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace

from bltybench.limits.experiments import tokens_roles as roles
from bltybench.limits.experiments.results import last_activity_s, with_role
from bltybench.limits.experiments.thresholds import TOKENS
from bltybench.limits.experiments.tokens_roles import (
    fill_bounds,
    largest_max_tokens,
    reservation_outcome,
    unit_observations,
    unit_verdict,
    used,
)
from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.observation import Observation
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import Burst, PlanOptions
from bltybench.limits.probe.protocol import CancelStep, Experiment, ProbeRequest, SendStep, Step
from bltybench.limits.probe.thresholds import CONTEXT, PLAN

NAME = "tokens"

ResultSteps = Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]
"""Steps that return all results so far."""


def steps(context: ProbeContext, now_s: float) -> Experiment:
    """Yield the steps, starting at ``now_s`` (Unix time) or later."""
    if min(context.burst, context.requests_left) < TOKENS.spare_requests:
        return
    results = yield from _fill(context, context.available_s(now_s, _idle_before_s(context)))
    bounds = fill_bounds(results)
    if bounds.refused is not None:
        results = yield from _test_refunds(results, bounds.accepted)
        limit, kept = bounds.accepted, reservation_outcome(results) == "reserved"
    else:
        results = yield from _find_size(context, results)
        limit, kept = _expected_limit(context, results), False
    # A 400 only says that one request cannot use that many tokens.
    if limit and (results[-1].accepted is not None or results[-1].status == 400):
        yield from _send_units(context, results, limit, kept=kept)


def _fill(context: ProbeContext, at_s: float) -> ResultSteps:
    documented = context.tokens_per_min
    size = max(TOKENS.first_tokens, min((documented or 0) // 4, context.tokens_left // 8))
    max_streams = min(
        TOKENS.max_fill_streams,
        context.burst - TOKENS.spare_requests,
        (context.measured_concurrency or TOKENS.max_fill_streams) - 1,
    )
    errors = 0
    results: Sequence[ProbeResult] = ()
    bounds = fill_bounds(results)
    while len(results) < max_streams and errors < TOKENS.max_fill_errors:
        tokens = bounds.accepted + size
        if tokens > context.tokens_left // 2 and bounds.refused is None:
            break
        request = ProbeRequest(role=roles.FILL, stream=True, max_tokens=size)
        results = yield SendStep((request,), at_s, until="decided", purpose=f"{tokens:,} tokens in flight")
        at_s = 0.0
        bounds = fill_bounds(results)
        if results[-1].status == 400:
            errors += 1
            size //= 2
        elif results[-1].accepted is None or results[-1].about_concurrency:
            break
        elif bounds.refused is not None:
            left = bounds.refused - bounds.accepted
            if left <= _precision(bounds.refused):
                break
            size = max(1, left // 2 - TOKENS.short_prompt_tokens)
        elif documented is None:
            size *= 2
        elif bounds.accepted > TOKENS.max_documented_ratio * documented:
            break
    return (yield CancelStep())


def _precision(tokens: int) -> float:
    """Return how exactly to measure a number of tokens: to a fraction of it, or to two short prompts."""
    return max(2 * TOKENS.short_prompt_tokens, TOKENS.precision * tokens)


def _test_refunds(results: Sequence[ProbeResult], limit: int) -> ResultSteps:
    """Test whether unused reservations are refunded, immediately or with the next period."""
    largest = largest_max_tokens(results) or limit

    def one_word(role: str, fraction: float, after_s: float = 0.0) -> ResultSteps:
        max_tokens = max(1, min(largest, int(fraction * limit) - TOKENS.short_prompt_tokens))
        request = ProbeRequest(role=role, one_word=True, max_tokens=max_tokens)
        return _resend_if_lost(SendStep((request,), after_s=after_s, purpose="testing for refunds"))

    wait_s = waited_s = 0.5
    results = yield from one_word(roles.FIRST_REFUND, TOKENS.first_refund_fraction, wait_s)
    while results[-1].refused and waited_s < TOKENS.max_refund_wait_s:
        results = yield from one_word(roles.REFUND_WAIT, TOKENS.first_refund_fraction, wait_s)
        waited_s += wait_s
        wait_s *= PLAN.wait_growth
    requested = 0
    while results[-1].accepted and requested < TOKENS.total_refund_fraction * limit:
        requested += min(largest, int(TOKENS.refund_fraction * limit))
        results = yield from one_word(roles.NEXT_REFUND, TOKENS.refund_fraction)
    return results


def _resend_if_lost(step: SendStep) -> ResultSteps:
    results: Sequence[ProbeResult] = ()
    for _ in range(TOKENS.max_sends):
        results = yield step
        if not results[-1].lost:
            break
    return results


def _find_size(context: ProbeContext, results: Sequence[ProbeResult]) -> ResultSteps:
    """Find approximately how many tokens can be used, with prompts that double."""
    size, spent, at_s = (
        TOKENS.first_tokens,
        0,
        context.available_s(last_activity_s(results), _idle_s(context)),
    )
    max_spent = context.tokens_left // TOKENS.size_search_divisor
    # If tokens are charged when the response ends, only the next request shows it: end with a small one.
    while spent < max_spent + TOKENS.first_tokens:
        request = ProbeRequest(role=roles.SIZE, prompt_tokens=size)
        step = SendStep((request,), at_s, purpose=f"using {spent + size:,} tokens")
        results = yield from _resend_if_lost(step)
        if results[-1].accepted is not True:
            break
        spent += used(results[-1])
        size = min(2 * size, max(TOKENS.first_tokens, max_spent - spent))
    return results


def _expected_limit(context: ProbeContext, results: Sequence[ProbeResult]) -> int:
    """Return the documented limit, unless the search for the size contradicts it; 0 if neither is known."""
    documented, measured = context.tokens_per_min or 0, sum(map(used, with_role(results, roles.SIZE)))
    if results and results[-1].refused and not documented / 2 <= measured <= 2 * documented:
        return measured
    return documented


def _unit(context: ProbeContext, limit: int, largest: int | None, *, kept: bool) -> ProbeRequest:
    """Return one of the equal requests that exhaust the limit; ``largest`` bounds its max_tokens."""
    count = max(2, min(TOKENS.units, context.burst // 3, context.requests_left // 8))
    # All of them must fit although prompts are not counted exactly. Hardly any of the limit may remain,
    # because algorithms differ in how they treat a remainder.
    size = int((1 - 2 * TOKENS.precision) * limit / count) - 2 * TOKENS.prompt_slack_tokens
    size = max(2 * TOKENS.short_prompt_tokens, size)
    if not kept:
        return ProbeRequest(role=roles.UNIT, prompt_tokens=size)
    max_tokens = max(1, min(largest or size, size - TOKENS.short_prompt_tokens - 2))
    return ProbeRequest(role=roles.UNIT, one_word=True, max_tokens=max_tokens)


def _send_units(
    context: ProbeContext, results: Sequence[ProbeResult], limit: int, *, kept: bool
) -> Experiment:
    # After refunds, hardly any of a large limit is in use, so the units fit immediately.
    in_use = sum(map(used, results)) if reservation_outcome(results) == "refunded" else limit
    idle_s, available = _idle_s(context), limit
    if in_use <= TOKENS.max_used_fraction * limit:
        idle_s, available = 0.0, limit - in_use
    unit = _unit(context, available, largest_max_tokens(results), kept=kept)
    reserves = fill_bounds(results).refused is not None
    tokens_left = context.tokens_left - sum(map(used, results))
    affordable = tokens_left // (2 * TOKENS.short_prompt_tokens if kept else unit.max_total_tokens)
    exact = 0 if reserves else 2 * TOKENS.units + TOKENS.extra_units
    if affordable > 2 * exact:
        affordable -= exact
    budget = min(TOKENS.max_units, context.requests_left - len(results), affordable)
    if budget < TOKENS.min_units:
        return
    start_s = last_activity_s(results)
    if idle_s or context.burst - len(results) < TOKENS.unit_rounds * TOKENS.units:
        start_s = context.available_s(start_s, idle_s)
    period_s, documented = context.expected_token_period_s, context.tokens_per_min
    # A limit that is documented per minute probably has that period.
    is_documented = documented is not None and abs(limit / documented - 1) <= TOKENS.max_documented_error
    wait_s = TOKENS.first_wait_periods * period_s if is_documented else 0.0
    count = limit // max(1, unit.max_total_tokens) if is_documented else None
    options = PlanOptions(budget=budget, rounds=1, period_s=period_s, limit=count, first_wait_s=wait_s)
    results = yield from _follow_plan(plan(options, start_s), unit, start_s, results)
    verdict = unit_verdict(results, context)
    if verdict.best is None:
        return
    if reserves:
        bounds = fill_bounds(results)
        # Neither earlier use nor a reset during the fill gives exactly the documented limit.
        if documented is None or not bounds.accepted <= documented < (bounds.refused or 0):
            yield from _refill(context, unit, verdict, results)
    else:
        yield from _measure_exactly(context, unit, verdict, results)


def _follow_plan(
    bursts: Generator[Burst, Sequence[Observation], Verdict],
    unit: ProbeRequest,
    start_s: float,
    results: Sequence[ProbeResult],
) -> ResultSteps:
    """Send units as the plan for a request limit asks."""
    try:
        burst = next(bursts)
        while True:
            before = len(results)
            at_s = max(start_s, burst.at_s)
            units = (unit,) * burst.max_requests
            results = yield SendStep(units, at_s, until_refused=True, purpose=burst.purpose)
            if burst.confirm_s is not None and results[-1].refused:
                results = yield SendStep((unit,), after_s=burst.confirm_s, purpose=burst.purpose)
            since_s = min((result.sent_s for result in results[before:]), default=at_s)
            observations = unit_observations(results)
            burst = bursts.send([one for one in observations if one.sent_s >= since_s])
    except StopIteration:
        return results


def _refill(
    context: ProbeContext, unit: ProbeRequest, verdict: Verdict, results: Sequence[ProbeResult]
) -> Experiment:
    """Fill the limit again when all of it is available: first nearly to the limit, then with less."""
    best = verdict.consistent[0]
    token_context = replace(context, fits=verdict.consistent)
    at_s = token_context.available_s(context.available_s(last_activity_s(results)))
    top = (best.limit + 1) * unit.max_total_tokens
    largest = largest_max_tokens(results) or top
    size = max(1, min(largest, best.limit_range[0] * unit.max_total_tokens - 2 * TOKENS.short_prompt_tokens))
    max_streams = min(TOKENS.max_fill_streams // 2, context.burst, context.requests_left - len(results))
    for _ in range(max_streams):
        request = ProbeRequest(role=roles.REFILL, stream=True, max_tokens=size)
        results = yield SendStep((request,), at_s, until="decided", purpose="filling the limit again")
        at_s = 0.0
        bounds = fill_bounds(results, roles.REFILL)
        if bounds.refused is None and top - bounds.accepted <= 2 * TOKENS.short_prompt_tokens:
            top = 2 * bounds.accepted  # more is available than at the first fill
        left = (bounds.refused or top) - bounds.accepted
        if results[-1].accepted is None or left <= _precision(bounds.accepted):
            break
        size = max(1, min(largest, left // 2 - TOKENS.short_prompt_tokens))
    yield CancelStep()


def _measure_exactly(
    context: ProbeContext, unit: ProbeRequest, verdict: Verdict, results: Sequence[ProbeResult]
) -> Experiment:
    """Measure the limit to a part of a unit, then test whether tokens in flight are charged already."""
    best = verdict.consistent[0]
    token_context = replace(context, fits=verdict.consistent)
    # Tokens charged at the end can exceed the limit, so a bucket can start a unit or more below zero.
    idle_s = max(best.period_s, _idle_s(context))
    if context.tokens_left - sum(map(used, results)) < (best.limit + 1) * unit.max_total_tokens:
        return
    ready_s = token_context.available_s(context.available_s(last_activity_s(results), idle_s))
    part_tokens = max(2 * TOKENS.short_prompt_tokens, unit.max_total_tokens // TOKENS.parts_per_unit)
    whole, part = replace(unit, role=roles.PART), ProbeRequest(role=roles.PART, prompt_tokens=part_tokens)
    yield SendStep((whole,) * (best.limit - 1), ready_s, until_refused=True, purpose="measuring the size")
    parts = min(TOKENS.parts_per_unit + 2, context.burst - best.limit)
    results = yield SendStep((part,) * parts, until_refused=True, purpose="measuring the size")
    count = best.limit + TOKENS.extra_units
    tokens_left = context.tokens_left - sum(map(used, results))
    max_count = min(context.measured_concurrency or count, context.burst)
    if tokens_left < count * unit.max_total_tokens or count > max_count:
        return
    ready_s = token_context.available_s(context.available_s(last_activity_s(results), idle_s))
    batch = (replace(unit, role=roles.BATCH),) * count
    yield SendStep(batch, ready_s, max_in_flight=count, purpose="sending all units concurrently")


def _idle_before_s(context: ProbeContext) -> float:
    """Return the idle interval before the first fill.

    It assumes that the token limit has the algorithm of the request limit. If not, the fill disagrees with
    the units, and another one is made.
    """
    kinds = {fit.traits.kind for fit in context.fits}
    if kinds == {"window"}:
        return 0.0
    if kinds and "counter" not in kinds:
        return CONTEXT.idle_periods * context.expected_token_period_s
    return _idle_s(context)


def _idle_s(context: ProbeContext) -> float:
    """Return the idle interval after which earlier use no longer counts, even in the previous window."""
    return (1 + CONTEXT.idle_periods) * context.expected_token_period_s
