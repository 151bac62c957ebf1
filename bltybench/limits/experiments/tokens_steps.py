"""Steps of the token experiment: what is charged, when, and how many tokens per period.

1. *Fill*: after an idle interval in which earlier use expires, the probe opens streams that could use many
   tokens. A refusal although hardly any were used shows that prompt + max_tokens are reserved on admission.
   Smaller and smaller streams then reach the limit to within a few tokens.
2. *Refunds*: the probe cancels the streams, then sends requests that could use many tokens but end after the
   first word. If unused reservations are kept, one of them is refused.
3. *Size*, if nothing is reserved: prompts that double until one is refused.
4. *Units*: requests of an eighth of the limit each. They turn the token limit into a limit of eight requests,
   whose period and algorithm can be fitted like those of any request limit. If far fewer or more of them
   are accepted until the first refusal, units of another size follow.
5. *Refill*, if tokens are reserved: another fill at the start of a period, because the first one can include
   a window reset or earlier use.
6. *Exact size*, if only used tokens count: parts of a unit measure the exact size. Then all units are sent in
   one batch. If tokens are charged when responses end, more than the limit are accepted.
"""

from collections.abc import Sequence

from bltybench.limits.experiments import tokens_roles as roles
from bltybench.limits.experiments.results import accepted, last_activity_s, with_role
from bltybench.limits.experiments.thresholds import TOKENS
from bltybench.limits.experiments.tokens_roles import (
    fill_bounds,
    largest_max_tokens,
    reservation_outcome,
    used,
)
from bltybench.limits.experiments.tokens_units import ResultSteps, idle_s, precision, send_units
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import CancelStep, Experiment, ProbeRequest, SendStep
from bltybench.limits.probe.thresholds import CONTEXT, PLAN

NAME = "tokens"


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
        yield from send_units(context, results, limit, kept=kept)


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
            if left <= precision(bounds.refused):
                break
            size = max(1, left // 2 - TOKENS.short_prompt_tokens)
        elif documented is None:
            size *= 2
        elif bounds.accepted > TOKENS.max_documented_ratio * documented:
            break
    return (yield CancelStep())


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
        context.available_s(last_activity_s(results), idle_s(context)),
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
    documented, sizes = context.tokens_per_min or 0, with_role(results, roles.SIZE)
    if not sizes or not sizes[-1].refused:
        return documented
    charges = [used(result) for result in accepted(sizes)]
    spent, last = sum(charges), sum(charges[-1:])
    # If tokens are charged when the response ends, the last accepted prompt may have exceeded the limit.
    if (spent - last) / 2 <= documented <= 2 * (spent + used(sizes[-1])):
        return documented
    return spent - last // 2 or used(sizes[-1])


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
    return idle_s(context)
