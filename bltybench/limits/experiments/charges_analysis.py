"""What counts against the request limit, and whose limit it is, from the charges experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf

from bltybench.limits.experiments.charges_replay import latest_available_s, mismatch
from bltybench.limits.experiments.charges_steps import (
    CONTROL,
    DRAIN,
    FIRST,
    LATER,
    MODELS,
    OTHER_MODEL,
    PREDICTED,
    SECOND_DRAIN,
    SECOND_KEY,
    TESTED,
    WHILE_REFUSED,
    unit_size,
)
from bltybench.limits.experiments.results import last_activity_s, with_role
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
REFUSED, REFUSED_SUBJECT = "refused_counts", "whether refused requests count"
REFUSED_SAYS = {
    True: "Refused requests count against the limit, so a client that keeps retrying keeps being refused.",
    False: "Refused requests do not count against the limit.",
}


@dataclass(frozen=True, slots=True)
class _Scope:
    """A question about other requests that may have a limit of their own."""

    question: str
    subject: str
    role: str
    untested: str
    """Why no such request was sent."""
    separate: str
    """The answer if they have a limit of their own."""
    shared: str


SCOPES = (
    _Scope(
        "limit_per_key",
        "whether each key has its own limit",
        SECOND_KEY,
        "no second key is set (--probe-second-key-env)",
        "Each key has its own limit.",
        "Both keys share one limit.",
    ),
    _Scope(
        "limit_per_model",
        "whether each model has its own limit",
        OTHER_MODEL,
        "the API lists no other model, and none is set (--probe-model)",
        "Each model has its own limit.",
        "Models share one limit.",
    ),
    _Scope(
        "models_endpoint_shares",
        "whether /models shares the limit",
        MODELS,
        "it was not tested",
        "/models does not share the limit: it is accepted while chat requests are refused.",
        "/models shares the limit: it is refused while chat requests are.",
    ),
)


def analyze(results: Sequence[ProbeResult], context: ProbeContext) -> list[Answer]:
    """Return what counts against the request limit, and whose limit it is."""
    kinds = [
        kind for kind in KINDS if kind != "wrong_key" or context.with_401 or with_role(results, TESTED[kind])
    ]
    if results and context.fits:
        counts = [_kind_counts(kind, results, context) for kind in kinds]
        return [*counts, _refused_count(results, context), *(_scope(scope, results) for scope in SCOPES)]
    reason = "the budget was too small" if context.fits else "the request limit is not known well enough"
    subjects = {KINDS[kind][0]: f"whether {KINDS[kind][1]} count" for kind in kinds}
    subjects |= {REFUSED: REFUSED_SUBJECT} | {scope.question: scope.subject for scope in SCOPES}
    return [cannot_tell(question, subject, reason) for question, subject in subjects.items()]


def _kind_counts(kind: Kind, results: Sequence[ProbeResult], context: ProbeContext) -> Answer:
    question, name = KINDS[kind]
    subject = f"whether {name} count"
    if not _drain_fits(results, context, unit_size(context) - 1):
        reason = "a drain without them did not fit the limit either: other clients can share the quota"
        return cannot_tell(question, subject, reason)
    cycle = _cycle_with(results, TESTED[kind])
    tested, drain = with_role(cycle, TESTED[kind]), with_role(cycle, DRAIN)
    if not tested or not drain:
        return cannot_tell(question, subject, "the budget was too small")
    statuses = sorted({str(result.status) for result in tested if result.status is not None})
    status = f"status {', '.join(statuses)}"
    if statuses not in (["200"], ["429"]) if kind == "models" else any(result.accepted for result in tested):
        return cannot_tell(question, subject, f"the responses had {status}")
    if not any(result.refused for result in drain):
        return cannot_tell(question, subject, "the limit was not reached after them")
    accepted = sum(bool(result.accepted) for result in drain)
    evidence = f"after {len(tested)} of them ({status}), {accepted} of {context.burst} requests were accepted"
    others = [
        f"{len(with_role(cycle, TESTED[other]))} {KINDS[other][1]}"
        for other in TESTED
        if other != kind and with_role(cycle, TESTED[other])
    ]
    if others:
        evidence += f"; {' and '.join(others)} were sent before the drain too"
    verdicts = {_counts(fit, cycle, kind) for fit in context.fits}
    if len(verdicts) > 1 or None in verdicts:
        return cannot_tell(question, subject, "the number of accepted requests is ambiguous", [evidence])
    counts = verdicts == {True}
    says = f"{name[0].upper()}{name[1:]} {'count' if counts else 'do not count'} against the request limit."
    return Answer(question, counts, says, sure(min(3, len(tested))), (evidence,))


def _cycle_with(results: Sequence[ProbeResult], role: str) -> list[ProbeResult]:
    """Return the requests with a role, the next drain, and what else was sent before that drain."""
    cycles: list[list[ProbeResult]] = [[]]
    for result in sorted(
        with_role(results, FIRST, DRAIN, *TESTED.values()), key=lambda result: result.sent_s
    ):
        if result.role != DRAIN and cycles[-1] and cycles[-1][-1].role == DRAIN:
            cycles.append([])
        cycles[-1].append(result)
    return next((cycle for cycle in cycles if with_role(cycle, role)), [])


def _counts(fit: Fit, cycle: Sequence[ProbeResult], kind: Kind) -> bool | None:
    """Return whether a kind of request counts, from the combination of kinds that fits the results."""
    present = [other for other in TESTED if with_role(cycle, TESTED[other])]
    cost = {True: inf, False: inf}
    for size in range(len(present) + 1):
        for counting in combinations(present, size):
            roles = {TESTED[other] for other in counting}
            replayed = [
                result
                for result in with_role(cycle, FIRST, DRAIN, *roles)
                if result.role != FIRST or not result.refused
            ]
            cost[kind in counting] = min(cost[kind in counting], mismatch(fit, replayed, roles))
    slack = min(len(with_role(cycle, TESTED[other])) for other in present) - 1
    if min(cost.values()) > slack or abs(cost[True] - cost[False]) <= slack:
        return None
    return cost[True] < cost[False]


def _drain_fits(results: Sequence[ProbeResult], context: ProbeContext, slack: int) -> bool:
    """Return whether the second drain, with nothing sent before it, is as long as the limiter's."""
    drain = with_role(results, SECOND_DRAIN)
    return not drain or any(mismatch(fit, drain, ()) <= slack for fit in context.fits)


def _refused_count(results: Sequence[ProbeResult], context: ProbeContext) -> Answer:
    fits = context.fits
    by_fit = fits[0].count_refused
    while_refused, predicted = with_role(results, WHILE_REFUSED), with_role(results, PREDICTED)
    refused = sum(result.refused for result in while_refused)
    if not predicted or refused < CHARGES.min_refused_retries:
        if by_fit is not None and len(fits) == 1:
            return Answer(REFUSED, by_fit, REFUSED_SAYS[by_fit], sure(1), ("implied by the algorithm",))
        reason = "too few requests were sent while the limit was exhausted"
        return cannot_tell(REFUSED, REFUSED_SUBJECT, reason)
    if any(result.accepted for result in while_refused):
        return cannot_tell(REFUSED, REFUSED_SUBJECT, "a request was accepted earlier than predicted")
    drained = sum(bool(result.accepted) for result in with_role(results, SECOND_DRAIN))
    outcome = "accepted" if predicted[0].accepted else "refused"
    evidence = (
        f"after {drained} accepted requests, {refused} more were refused; "
        f"the next one, at the predicted time, was {outcome}"
    )
    if predicted[0].accepted:
        return Answer(REFUSED, False, REFUSED_SAYS[False], sure(2 if by_fit is not True else 0), (evidence,))
    later = next((result for result in with_role(results, LATER) if result.accepted), None)
    reason = _other_reason(results, context, predicted[0])
    if later is None:
        reason = "no later request was accepted either"
    if later is None or reason:
        return cannot_tell(REFUSED, REFUSED_SUBJECT, reason, [evidence])
    after = f"a request {later.sent_s - predicted[0].sent_s:.3g} s later was accepted"
    return Answer(REFUSED, True, REFUSED_SAYS[True], sure(2 if by_fit is not False else 1), (evidence, after))


def _other_reason(results: Sequence[ProbeResult], context: ProbeContext, predicted: ProbeResult) -> str:
    """Return another possible reason for a refusal at the predicted time; empty if there is none."""
    if not _drain_fits(results, context, 0):
        return "other clients can share the quota, and can have used what was available"
    if all(fit.traits.kind == "window" for fit in context.fits):
        return "a window resets even if refused requests count, so its end was not known well enough"
    drain = with_role(results, SECOND_DRAIN)
    if predicted.sent_s <= latest_available_s(context.fits, drain, last_activity_s(drain)):
        return "the time at which the limit is available again was not known well enough"
    return ""


def _scope(scope: _Scope, results: Sequence[ProbeResult]) -> Answer:
    tested = with_role(results, scope.role)
    if not tested:
        return cannot_tell(scope.question, scope.subject, scope.untested)
    # The control request was sent last. If it was refused, the limit was still exhausted.
    controls = with_role(results, CONTROL)
    valid = [result for result, control in zip(tested, controls, strict=False) if control.refused]
    if not valid:
        reason = "the limit was available again before the test"
        return cannot_tell(scope.question, scope.subject, reason)
    decided = [result for result in valid if result.accepted is not None]
    if not decided:
        reason = f"the response had status {tested[0].status}" if tested[0].status else "no response arrived"
        return cannot_tell(scope.question, scope.subject, reason)
    accepted = sum(bool(result.accepted) for result in decided)
    refused = len(decided) - accepted
    # An accepted request can be one that the limit has refilled, but a refused one shares the limit.
    shared = refused > 0
    evidence = f"while the probe's own requests were refused, {accepted} of {len(decided)} were accepted"
    value = shared if scope.role == MODELS else not shared
    says = scope.shared if shared else scope.separate
    return Answer(scope.question, value, says, sure(refused if shared else accepted), (evidence,))
