"""What counts against the request limit, and whose limit it is, from the charges experiment."""

from collections.abc import Sequence
from itertools import combinations
from math import inf

from bltybench.limits.experiments import charges_steps as steps
from bltybench.limits.experiments.charges_replay import latest_available_s, mismatch
from bltybench.limits.experiments.results import accepted, last_activity_s, refused, with_role
from bltybench.limits.experiments.thresholds import CHARGES
from bltybench.limits.fit.result import Fit
from bltybench.limits.observations.answer import Answer, cannot_tell, sure
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import Kind

KINDS: dict[Kind, tuple[str, str]] = {
    "malformed": ("malformed_counts", "malformed requests"),
    "unknown_model": ("unknown_model_counts", "requests for an unknown model"),
    "models": ("models_endpoint_counts", "requests to /models"),
    "wrong_key": ("wrong_key_counts", "requests with a wrong key"),
}
"""Question about each tested kind of request, and its name in answers."""
REFUSED = "refused_counts"
REFUSED_SAYS = {
    True: "Refused requests count against the limit, so a client that keeps retrying keeps being refused.",
    False: "Refused requests do not count against the limit.",
}
SCOPES = {
    steps.SECOND_KEY: ("limit_per_key", "no second key is set (--probe-second-key-env)"),
    steps.OTHER_MODEL: ("limit_per_model", "the API lists no other model, and none is set (--probe-model)"),
    steps.MODELS: ("models_endpoint_shares", "it was not tested"),
}
"""Question that the requests with a role answer, and the reason if none was sent."""
SCOPE_SAYS = {
    ("limit_per_key", True): "Each key has its own limit.",
    ("limit_per_key", False): "Both keys share one limit.",
    ("limit_per_model", True): "Each model has its own limit.",
    ("limit_per_model", False): "Models share one limit.",
    ("models_endpoint_shares", True): "/models shares the limit: it is refused while chat requests are.",
    (
        "models_endpoint_shares",
        False,
    ): "/models is accepted while chat requests are refused.",
}


def analyze(results: Sequence[ProbeResult], context: ProbeContext) -> list[Answer]:
    """Return what counts against the request limit, and whose limit it is."""
    tested = {kind: with_role(results, role) for kind, role in steps.TESTED.items()}
    kinds = [kind for kind in KINDS if kind != "wrong_key" or context.with_401 or tested[kind]]
    if results and context.fits:
        counts = [_kind_counts(kind, results, context) for kind in kinds]
        return [*counts, _refused_count(results, context), *(_scope(role, results) for role in SCOPES)]
    reason = "the budget was too small" if context.fits else "the request limit is not known well enough"
    questions = [*(KINDS[kind][0] for kind in kinds), REFUSED, *(question for question, _ in SCOPES.values())]
    return [cannot_tell(question, reason) for question in questions]


def _kind_counts(kind: Kind, results: Sequence[ProbeResult], context: ProbeContext) -> Answer:
    question, name = KINDS[kind]
    if not _drain_fits(results, context, steps.unit_size(context) - 1):
        reason = "a drain without them did not fit the limit either: other clients may share the quota"
        return cannot_tell(question, reason)
    cycle = _cycle_with(results, steps.TESTED[kind])
    tested, drain = with_role(cycle, steps.TESTED[kind]), with_role(cycle, steps.DRAIN)
    if not tested or not drain:
        return cannot_tell(question, "the budget was too small")
    statuses = sorted({str(result.status) for result in tested if result.status is not None})
    status = f"status {', '.join(statuses)}"
    if statuses not in (["200"], ["429"]) if kind == "models" else accepted(tested):
        return cannot_tell(question, f"the responses had {status}")
    if not refused(drain):
        return cannot_tell(question, "the limit was not reached after them")
    drained = f"{len(accepted(drain))} of {context.burst} valid requests were accepted"
    evidence = f"after {len(tested)} of them ({status}), {drained}"
    counts = {other: len(with_role(cycle, role)) for other, role in steps.TESTED.items() if other != kind}
    others = [f"{count} {KINDS[other][1]}" for other, count in counts.items() if count]
    if others:
        evidence += f"; also sent before: {', '.join(others)}"
    verdicts = {_counts(fit, cycle, kind) for fit in context.fits}
    if len(verdicts) > 1 or None in verdicts:
        return cannot_tell(question, "the number of accepted requests is ambiguous", [evidence])
    value = verdicts == {True}
    says = f"{name[0].upper()}{name[1:]} {'count' if value else 'do not count'} against the request limit."
    return Answer(question, value, says, sure(min(3, len(tested))), (evidence,))


def _cycle_with(results: Sequence[ProbeResult], role: str) -> list[ProbeResult]:
    """Return the requests with a role, the next drain, and what else was sent before that drain."""
    cycles: list[list[ProbeResult]] = [[]]
    own = with_role(results, steps.FIRST, steps.DRAIN, *steps.TESTED.values())
    for result in sorted(own, key=lambda result: result.sent_s):
        if result.role != steps.DRAIN and with_role(cycles[-1][-1:], steps.DRAIN):
            cycles.append([])
        cycles[-1].append(result)
    return next((cycle for cycle in cycles if with_role(cycle, role)), [])


def _counts(fit: Fit, cycle: Sequence[ProbeResult], kind: Kind) -> bool | None:
    """Return whether a kind of request counts, from the combination of kinds that fits the results."""
    sent = {other: with_role(cycle, role) for other, role in steps.TESTED.items() if with_role(cycle, role)}
    first = [result for result in with_role(cycle, steps.FIRST) if not result.refused]
    drain = [*first, *with_role(cycle, steps.DRAIN)]
    cost = {True: inf, False: inf}
    for size in range(len(sent) + 1):
        for counting in combinations(sent, size):
            counted = [result for other in counting for result in sent[other]]
            cost[kind in counting] = min(cost[kind in counting], mismatch(fit, drain, counted))
    slack = min(map(len, sent.values())) - 1
    if min(cost.values()) > slack or abs(cost[True] - cost[False]) <= slack:
        return None
    return cost[True] < cost[False]


def _drain_fits(results: Sequence[ProbeResult], context: ProbeContext, slack: int) -> bool:
    """Return whether the second drain, with nothing sent before it, is as long as the limiter's."""
    drain = with_role(results, steps.SECOND_DRAIN)
    if steps.shown_by_retry(context, results) and not with_role(results, steps.PREDICTED):
        drain = [*with_role(results, steps.RETRY)[-1:], *drain]
    return not drain or any(mismatch(fit, drain) <= slack for fit in context.fits)


def _refused_count(results: Sequence[ProbeResult], context: ProbeContext) -> Answer:
    # Two limits are fitted on the assumption that refused requests count in neither.
    by_fit = None if context.fits[0].also else context.fits[0].count_refused
    tests, retries = with_role(results, steps.PREDICTED), with_role(results, steps.WHILE_REFUSED)
    role, when = steps.SECOND_DRAIN, "at the predicted time"
    if not tests and steps.shown_by_retry(context, results):
        tests, role, when = with_role(results, steps.RETRY)[-1:], steps.DRAIN, "after Retry-After"
        retries = refused(with_role(results, steps.DRAIN, steps.CONTROL, steps.EARLY, steps.RETRY))
    count = len(refused(retries))
    if not tests or count < CHARGES.min_refused_retries:
        if by_fit is not None and len(context.fits) == 1:
            return Answer(REFUSED, by_fit, REFUSED_SAYS[by_fit], sure(1), ("implied by the algorithm",))
        reason = "too few requests were sent while the limit was exhausted"
        return cannot_tell(REFUSED, reason)
    if accepted(retries):
        return cannot_tell(REFUSED, "a request was accepted earlier than predicted")
    test, later = tests[0], accepted(with_role(results, steps.LATER))
    evidence = (
        f"after {len(accepted(with_role(results, role)))} accepted requests, {count} more were "
        f"refused; the next one, {when}, was {'accepted' if test.accepted else 'refused'}"
    )
    if test.accepted:
        return Answer(REFUSED, False, REFUSED_SAYS[False], sure(2 if by_fit is not True else 0), (evidence,))
    reason = _other_reason(results, context, test) if later else "no later request was accepted either"
    if reason:
        return cannot_tell(REFUSED, reason, [evidence])
    after = f"a request {later[0].sent_s - test.sent_s:.3g} s later was accepted"
    return Answer(REFUSED, True, REFUSED_SAYS[True], sure(2 if by_fit is not False else 1), (evidence, after))


def _other_reason(results: Sequence[ProbeResult], context: ProbeContext, predicted: ProbeResult) -> str:
    """Return another possible reason for a refusal at the predicted time; empty if there is none."""
    if not _drain_fits(results, context, 0):
        return "other clients may share the quota, and may have used what was available"
    if all(limit.traits.kind == "window" for limit in context.limits):
        return "a window resets even if refused requests count, so its end was not known well enough"
    drain = with_role(results, steps.SECOND_DRAIN)
    if predicted.sent_s <= latest_available_s(context.fits, drain, last_activity_s(drain)):
        return "the time at which the limit is available again was not known well enough"
    return ""


def _scope(role: str, results: Sequence[ProbeResult]) -> Answer:
    question, reason = SCOPES[role]
    tested, controls = with_role(results, role), with_role(results, steps.CONTROL)
    # The control request was sent last. If it was refused, the limit was still exhausted.
    valid = [result for result, control in zip(tested, controls, strict=False) if control.refused]
    count, refusals = len(accepted(valid)), len(refused(valid))
    if not count and not refusals:
        if valid:
            reason = f"the response had status {tested[0].status or 'none'}"
        elif tested:
            reason = "the limit was available again before the test"
        return cannot_tell(question, reason)
    # An accepted request can be one that the limit has refilled, but a refused one shares the limit.
    shared = refusals > 0
    value = shared if role == steps.MODELS else not shared
    evidence = f"while the probe's own requests were refused, {count} of {count + refusals} were accepted"
    votes = refusals if shared else count
    return Answer(question, value, SCOPE_SAYS[question, value], sure(votes), (evidence,))
