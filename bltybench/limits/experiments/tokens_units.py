"""Equal requests that turn the token limit into a limit of a few requests, and the exact size after them."""

from collections.abc import Generator, Sequence
from dataclasses import replace

from bltybench.limits.experiments import tokens_roles as roles
from bltybench.limits.experiments.results import accepted, last_activity_s, refused, with_role
from bltybench.limits.experiments.thresholds import TOKENS
from bltybench.limits.experiments.tokens_roles import (
    charged_at_end,
    equal_units,
    exact_bounds,
    fill_bounds,
    largest_max_tokens,
    reservation_outcome,
    spent,
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
from bltybench.limits.probe.thresholds import CONTEXT

ResultSteps = Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]
"""Steps that return all results so far."""


def send_units(
    context: ProbeContext, results: Sequence[ProbeResult], limit: int, *, kept: bool
) -> Experiment:
    """Send units that fit the limit, then measure its exact size. ``kept`` tokens are never refunded."""
    # After refunds, hardly any of a large limit is in use, so the units fit immediately.
    in_use = sum(map(used, results)) if reservation_outcome(results) == "refunded" else limit
    wait_idle_s, available = idle_s(context), limit
    if in_use <= TOKENS.max_used_fraction * limit:
        wait_idle_s, available = 0.0, limit - in_use
    reserves = fill_bounds(results).refused is not None
    period_s, documented = context.expected_token_period_s, context.tokens_per_min
    # A limit that is documented per minute probably has that period.
    is_documented = documented is not None and abs(limit / documented - 1) <= TOKENS.max_documented_error
    wait_s = TOKENS.first_wait_periods * period_s if is_documented else 0.0
    for role in (roles.UNIT, roles.RESIZED_UNIT):
        unit = replace(_unit(context, available, largest_max_tokens(results), kept=kept), role=role)
        tokens_left = context.tokens_left - spent(results)
        affordable = tokens_left // (2 * TOKENS.short_prompt_tokens if kept else unit.max_total_tokens)
        exact = 0 if reserves else 2 * TOKENS.units + TOKENS.extra_units
        if affordable > 2 * exact:
            affordable -= exact
        budget = min(TOKENS.max_units, context.requests_left - len(results))
        if min(budget, affordable) < TOKENS.min_units:
            return
        start_s = last_activity_s(results)
        if wait_idle_s or context.burst - len(results) < TOKENS.unit_rounds * TOKENS.units:
            start_s = context.available_s(start_s, wait_idle_s)
        count = limit // max(1, unit.max_total_tokens) if is_documented else None
        options = PlanOptions(budget=budget, rounds=1, period_s=period_s, limit=count, first_wait_s=wait_s)
        expected = _unit_count(context) if role == roles.UNIT and not is_documented else None
        results = yield from _follow_plan(plan(options, start_s), unit, results, expected, affordable)
        units = equal_units(results)
        if expected is None or not _misfit(units, expected):
            break
        wait_idle_s, available = idle_s(context), max(1, len(accepted(units))) * unit.max_total_tokens
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


def _misfit(units: Sequence[ProbeResult], expected: int) -> bool:
    """Return whether the first refusal came after far fewer or more units than expected.

    A search for the size can exceed the limit: the last prompt counts only when its response has ended, and
    windows can reset meanwhile. Few large units leave the limit, its period, and its algorithm ambiguous.
    """
    fewest, most = TOKENS.fitting_units
    count = len(accepted(units))
    if len(refused(units)) != 1 or not units[-1].refused:
        return False
    return not fewest * expected <= count <= most * expected


def _follow_plan(
    bursts: Generator[Burst, Sequence[Observation], Verdict],
    unit: ProbeRequest,
    results: Sequence[ProbeResult],
    expected: int | None,
    max_accepted: int,
) -> ResultSteps:
    """Send units as the plan asks, until ``max_accepted`` were accepted.

    Stop if ``expected`` units are far from the limit.
    """
    try:
        burst = next(bursts)
        while True:
            before = len(results)
            left = max_accepted - sum(not one.refused for one in with_role(results, unit.role))
            if left <= 0:
                return results
            units = (unit,) * min(burst.max_requests, left)
            results = yield SendStep(units, burst.at_s, until_refused=True, purpose=burst.purpose)
            if expected is not None and _misfit(equal_units(results), expected):
                return results
            if burst.confirm_s is not None and results[-1].refused:
                results = yield SendStep((unit,), after_s=burst.confirm_s, purpose=burst.purpose)
            since_s = min((result.sent_s for result in results[before:]), default=burst.at_s)
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
        if results[-1].accepted is None or left <= precision(bounds.accepted):
            break
        size = max(1, min(largest, left // 2 - TOKENS.short_prompt_tokens))
    yield CancelStep()


def _measure_exactly(
    context: ProbeContext, unit: ProbeRequest, verdict: Verdict, results: Sequence[ProbeResult]
) -> Experiment:
    """Measure the limit to a part of a unit, then test whether tokens in flight are charged already.

    Both are repeated once if they show nothing, for example because a window reset or a response was slow.
    """
    best = verdict.consistent[0]
    token_context = replace(context, fits=verdict.consistent)
    # Tokens charged at the end can exceed the limit, so a bucket can start a unit or more below zero.
    empty_s = (1 + CONTEXT.idle_periods) * max(fit.period_range_s[1] for fit in verdict.consistent)
    part_tokens = max(2 * TOKENS.short_prompt_tokens, unit.max_total_tokens // TOKENS.parts_per_unit)
    max_parts = min(2 * TOKENS.parts_per_unit + 2, context.burst - best.limit)
    batch_count = best.limit + TOKENS.extra_units
    batch_fits = batch_count <= min(context.measured_concurrency or batch_count, context.burst)

    def affords(units: int, requests: int) -> bool:
        fits = context.tokens_left - spent(results) >= units * unit.max_total_tokens
        return fits and context.requests_left - len(results) >= requests

    for role in roles.PARTS:
        if not affords(best.limit + 1, best.limit + max_parts):
            return
        ready_s = token_context.available_s(context.available_s(last_activity_s(results), empty_s))
        whole, part = replace(unit, role=role), ProbeRequest(role=role, prompt_tokens=part_tokens)
        yield SendStep((whole,) * (best.limit - 1), ready_s, until_refused=True, purpose="measuring the size")
        results = yield SendStep((part,) * max_parts, until_refused=True, purpose="measuring the size")
        if exact_bounds(with_role(results, role), None) is not None:
            break
    for role in roles.BATCHES:
        if not batch_fits or not affords(batch_count, batch_count):
            return
        ready_s = token_context.available_s(context.available_s(last_activity_s(results), empty_s))
        batch, purpose = (replace(unit, role=role),) * batch_count, "sending all units concurrently"
        results = yield SendStep(batch, ready_s, max_in_flight=batch_count, purpose=purpose)
        if charged_at_end(with_role(results, role), best.limit_range[0]) is not None:
            break


def _unit_count(context: ProbeContext) -> int:
    """Return how many units should exhaust the limit."""
    return max(2, min(TOKENS.units, context.burst // 3, context.requests_left // 8))


def _unit(context: ProbeContext, limit: int, largest: int | None, *, kept: bool) -> ProbeRequest:
    """Return one of the equal requests that exhaust the limit; ``largest`` bounds its max_tokens."""
    count = _unit_count(context)
    # All of them must fit although prompts are not counted exactly. Hardly any of the limit may remain,
    # because algorithms differ in how they treat a remainder.
    size = int((1 - 2 * TOKENS.precision) * limit / count) - 2 * TOKENS.prompt_slack_tokens
    size = max(2 * TOKENS.short_prompt_tokens, size)
    if not kept:
        return ProbeRequest(role=roles.UNIT, prompt_tokens=size)
    max_tokens = max(1, min(largest or size, size - TOKENS.short_prompt_tokens - 2))
    return ProbeRequest(role=roles.UNIT, one_word=True, max_tokens=max_tokens)


def precision(tokens: int) -> float:
    """Return how exactly to measure a number of tokens: to a fraction of it, or to two short prompts."""
    return max(2 * TOKENS.short_prompt_tokens, TOKENS.precision * tokens)


def idle_s(context: ProbeContext) -> float:
    """Return the idle interval after which earlier use no longer counts, even in the previous window."""
    return (1 + CONTEXT.idle_periods) * context.expected_token_period_s
