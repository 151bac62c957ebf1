"""Steps of the charges experiment: what counts against the request limit, and whose limit it is.

1. With the whole limit available, the probe sends requests of one invalid kind, twice as many of the next
   kind, and so on, then valid requests until a refusal. How many are accepted shows which kinds counted.
2. While the limit is exhausted, it tries another key, model, and endpoint, with a control request that must
   still be refused. Then it sends requests just before and after the time in Retry-After.
3. It exhausts the limit again and keeps sending. If refused requests do not count, the limit is available at
   the predicted time. For windows, step 2 shows that already, so the probe only exhausts the next window.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace

from bltybench.limits.experiments.charges_replay import available_s, latest_available_s
from bltybench.limits.experiments.results import last_activity_s, refused, with_role
from bltybench.limits.experiments.thresholds import CHARGES
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import Experiment, Kind, ProbeRequest, SendStep, Step

NAME = "charges"
FIRST, DRAIN, SECOND_DRAIN = "first", "drain", "second drain"
SECOND_KEY, OTHER_MODEL, MODELS, CONTROL = "second key", "other model", "models", "own again"
EARLY, RETRY = "before Retry-After is over", "after Retry-After"
WHILE_REFUSED, PREDICTED, LATER = "hammer", "when it should be free", "later"
TESTED: dict[Kind, str] = {
    "malformed": "malformed",
    "unknown_model": "unknown model",
    "models": "list of models",
    "wrong_key": "wrong key",
}
"""Roles of the requests that may not count, by kind."""


def steps(context: ProbeContext, now_s: float) -> Experiment:
    """Yield the steps, starting at ``now_s`` (Unix time) or later."""
    if context.fit is None or context.burst < 1:
        return
    results: Sequence[ProbeResult] = ()
    for group in _groups(context):
        tested = sum(count for _, count in group)
        if context.requests_left - len(results) < _drain_size(context) + tested + CHARGES.spare_requests:
            return
        requests = (ProbeRequest(role=FIRST),) * _first_requests(context, tested)
        for kind, count in group:
            requests += (ProbeRequest(role=TESTED[kind], kind=kind),) * count
        at_s = context.available_s(last_activity_s(results, now_s))
        purpose = f"sending {tested} requests that may not count"
        yield SendStep(requests, at_s, max_in_flight=context.drain_in_flight, purpose=purpose)
        results = yield _drain(context, DRAIN)
    results = yield from _test_scope(context)
    results = yield from _follow_retry_after(context, results)
    needed = _drain_size(context) + CHARGES.refused_retries + 2 * CHARGES.spare_requests
    if context.requests_left - len(results) < needed:
        return
    if shown_by_retry(context, results):
        yield _drain(context, SECOND_DRAIN)
    else:
        yield from _test_refused(context, results)


def shown_by_retry(context: ProbeContext, results: Sequence[ProbeResult]) -> bool:
    """Return whether a window accepted a request just after Retry-After, so that all of it is available."""
    retries = with_role(results, RETRY)
    return bool(retries and retries[-1].accepted) and all(fit.traits.kind == "window" for fit in context.fits)


def _groups(context: ProbeContext) -> list[list[tuple[Kind, int]]]:
    """Return the kinds to send before each drain, with their numbers of requests.

    The numbers are 1, 2, 4, ... times a unit, so each combination of kinds has a different sum.
    """
    kinds: list[Kind] = [kind for kind in TESTED if kind != "wrong_key" or context.with_401]
    unit = unit_size(context)
    fraction = CHARGES.max_invalid_fraction
    if _refills_gradually(context):
        fraction = CHARGES.max_invalid_fraction_refilling
    groups: list[list[tuple[Kind, int]]] = []
    while kinds:
        group = [(kind, unit << place) for place, kind in enumerate(kinds)]
        while len(group) > 1 and sum(count for _, count in group) > fraction * context.burst:
            group.pop()
        groups.append(group)
        kinds = kinds[len(group) :]
    return groups


def unit_size(context: ProbeContext) -> int:
    """Return the number of requests of the first kind."""
    minimum = 2 if context.burst >= CHARGES.min_limit_for_two else 1
    return max(minimum, context.burst // CHARGES.limit_per_unit)


def _refills_gradually(context: ProbeContext) -> bool:
    return any(limit.traits.kind == "bucket" for limit in context.limits)


def _first_requests(context: ProbeContext, tested: int) -> int:
    """Return the valid requests to send first: a full bucket would refill what the tested ones cost."""
    if not _refills_gradually(context):
        return 0
    refill = tested * context.latency_s / context.drain_in_flight * context.burst / context.period_s
    return min(context.burst // 3, 2 + int(refill))


def _drain_size(context: ProbeContext) -> int:
    """Return the number of requests that certainly exhausts the limit, even if it refills meanwhile."""
    return context.burst + context.burst // 2 + CHARGES.spare_requests


def _drain(context: ProbeContext, role: str, at_s: float = 0.0) -> SendStep:
    return SendStep(
        (ProbeRequest(role=role),) * _drain_size(context),
        at_s,
        max_in_flight=context.drain_in_flight,
        until_refused=True,
        purpose="sending until the first refusal",
    )


def _test_scope(context: ProbeContext) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    requests = [ProbeRequest(role=MODELS, kind="models")]
    if context.second_key:
        requests.append(ProbeRequest(role=SECOND_KEY, second_key=True))
    if context.other_model is not None:
        requests.append(ProbeRequest(role=OTHER_MODEL, model=context.other_model))
    results: Sequence[ProbeResult] = ()
    # A request that a bucket has refilled looks like a separate limit. Another round shows the difference.
    for _ in range(CHARGES.scope_rounds + _refills_gradually(context)):
        # Send them concurrently: the limit must still be exhausted when the last one is decided.
        batch = (*requests, ProbeRequest(role=CONTROL))
        results = yield SendStep(batch, max_in_flight=len(requests), purpose="testing whose limit it is")
    return results


def _follow_retry_after(
    context: ProbeContext, results: Sequence[ProbeResult]
) -> Generator[Step, Sequence[ProbeResult], Sequence[ProbeResult]]:
    counts_refused = any(fit.count_refused for fit in context.fits)
    roles = [CONTROL, DRAIN]
    for _ in range(CHARGES.max_retry_after_waits):
        refusals = refused(with_role(results, *roles))
        wait_s = refusals[-1].retry_after_s if refusals else None
        if wait_s is None or wait_s > CHARGES.max_retry_after_s:
            break
        end_s = (refusals[-1].decided_s or refusals[-1].sent_s) + wait_s
        if wait_s > CHARGES.early_s + CHARGES.min_early_wait_s and not counts_refused:
            yield _one(EARLY, end_s - CHARGES.early_s, "testing just before Retry-After ends")
        results = yield _one(RETRY, end_s + CHARGES.after_s, "testing just after Retry-After ends")
        roles = [RETRY]
        if not results[-1].refused:
            break
    return results


def _one(role: str, at_s: float, purpose: str) -> SendStep:
    return SendStep((ProbeRequest(role=role),), at_s, purpose=purpose)


def _test_refused(context: ProbeContext, results: Sequence[ProbeResult]) -> Experiment:
    """Exhaust the limit, send requests that are refused, and test whether it is available as predicted."""
    results = yield _drain(context, SECOND_DRAIN, context.available_s(last_activity_s(results)))
    drain = with_role(results, SECOND_DRAIN)
    if not refused(drain):
        return
    last_s = last_activity_s(results)
    end_s = max(available_s(fit, drain, last_s) for fit in context.fits)
    # If refused requests count, those sent must exceed what a log has released by the time of the test.
    soon_s = min(result.sent_s for result in drain) + 2 * CHARGES.margin_periods * context.period_s
    count = min(
        CHARGES.refused_retries + sum(result.sent_s <= soon_s for result in drain),
        context.requests_left - len(results) - CHARGES.spare_requests,
        int((end_s - last_s) / (2 * context.latency_s)) - 1,
    )
    for number in range(1, count + 1):
        at_s = last_s + (end_s - last_s) * number / (count + 1)
        yield _one(WHILE_REFUSED, at_s, "testing whether refused requests count")
    test_s = latest_available_s(context.fits, drain, last_s) + CHARGES.margin_periods * context.period_s
    results = yield _one(PREDICTED, test_s, "testing whether the limit is available")
    for periods in CHARGES.later_waits_periods:
        if not results[-1].refused:
            return
        retry = _one(LATER, 0.0, "testing whether the limit is available")
        results = yield replace(retry, after_s=periods * context.period_s)
