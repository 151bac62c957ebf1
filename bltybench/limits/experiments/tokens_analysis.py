"""Token limit and how tokens are charged, from the results of the token experiment."""

from collections.abc import Sequence
from typing import Literal

from bltybench.limits.experiments import tokens_roles as roles
from bltybench.limits.experiments.results import accepted, refused, with_role
from bltybench.limits.experiments.thresholds import TOKENS
from bltybench.limits.experiments.tokens_period import period_and_algorithm, unit_size
from bltybench.limits.experiments.tokens_roles import (
    charged_at_end,
    equal_units,
    exact_bounds,
    fill_bounds,
    max_used,
    reservation_outcome,
    token_decisions,
    unit_verdict,
    used,
)
from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.answer import Answer, cannot_tell, sure
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext

LIMIT = "token_limit"
CHARGED, CHARGED_AT = "tokens_charged", "tokens_charged_at"
SAYS = {
    "refunded": "Prompt tokens and max_tokens are reserved, and the unused part is refunded at the end.",
    "reserved": "Prompt tokens and max_tokens are charged in full, however many are used.",
    "used": "Only used tokens are charged, whatever max_tokens allows.",
    "admission": "Tokens are charged when the request is accepted.",
    "end": "Tokens are charged when the response ends, so concurrent requests can exceed the limit.",
}


def analyze(results: Sequence[ProbeResult], context: ProbeContext) -> list[Answer]:
    """Return the token limit, its period and algorithm, and how and when tokens are charged."""
    if not results:
        return _unknown("the budget or the request limit allowed no experiment")
    failed = sum(
        result.accepted is None and result.status != 400 and not result.cancelled for result in results
    )
    if failed > len(results) // 4:
        return _unknown(f"{failed} of {len(results)} requests failed")
    if any(result.about_concurrency for result in results):
        return _unknown("the concurrency limit refused requests first")
    verdict = unit_verdict(results, context)
    results = token_decisions(results)
    if fill_bounds(results).refused is not None:
        return _reserved(results, context, verdict)
    if verdict.refused:
        return _used(results, context, verdict)
    return _unlimited(results)


def _unknown(reason: str, *, least: float | None = None) -> list[Answer]:
    others = ("token_period_s", "token_algorithm", "tokens_charged", "tokens_charged_at")
    return [cannot_tell(LIMIT, reason, least=least), *(cannot_tell(question, reason) for question in others)]


def _unlimited(results: Sequence[ProbeResult]) -> list[Answer]:
    spent = [
        used(result) for result in accepted(with_role(results, roles.SIZE, roles.UNIT, roles.RESIZED_UNIT))
    ]
    reserved = fill_bounds(results).accepted
    reason = f"{reserved:,} tokens in flight and {sum(spent):,} used within the budget met no refusal"
    # The period is unknown. Only the tokens of one request certainly count together.
    return _unknown(reason, least=float(max(spent, default=0)))


def _reserved(results: Sequence[ProbeResult], context: ProbeContext, verdict: Verdict) -> list[Answer]:
    """Return the answers if prompt + max_tokens are charged on admission."""
    fill, refill = fill_bounds(results), fill_bounds(results, roles.REFILL)
    best = verdict.best
    unit = max(map(max_used, accepted(equal_units(results))), default=0)
    refusals = len(refused(with_role(results, roles.FILL)))
    role, least, most = roles.FILL, fill.accepted, fill.refused or 0
    evidence = (
        f"streams that could use {least:,} tokens in total were accepted; {most:,} were refused "
        f"({refusals} refusals)"
    )
    if refill.refused is not None:
        role, least, most = roles.REFILL, refill.accepted, refill.refused
        evidence = f"at the start of a period, {least:,} tokens in flight were accepted, {most:,} refused"
    if best is not None and not _agree(least, most, best.limit_range, unit):
        return _unknown(
            f"{least:,} tokens were accepted in one fill but {best.limit} requests of {unit:,} later: "
            "a window reset in between, or other clients share the quota"
        )
    # The limit may have refilled during the fill, and the server's count of the prompts is unknown.
    streams = with_role(results, role)
    least = max(1, round(least - _refilled_fraction(verdict, streams) * least))
    slack = TOKENS.prompt_slack_tokens * len(streams)
    least, most = max(1, least - slack), most + slack
    outcome = reservation_outcome(results)
    charging = _charged_as_reserved(outcome, results, most, (evidence,))
    documented = context.tokens_per_min is not None and least <= context.tokens_per_min < most
    if best is not None and role == roles.FILL and not documented:
        # Earlier use may have counted during the fill, so the whole limit can be higher.
        most = max(most, (best.limit_range[1] + 1) * unit)
    if best is not None or documented:
        limit = _limit(least, most - 1, context, sure(refusals), evidence)
    else:
        reason = "the period is unknown, so earlier use may have counted, or the limit may have refilled"
        # A single request always fits.
        largest = max(map(max_used, accepted(results)), default=0)
        limit = cannot_tell(LIMIT, reason, (evidence,), least=largest)
    unit_tokens = unit_size(results, kept=charging[0].value == "reserved")
    return [limit, *period_and_algorithm(verdict, limit, unit_tokens, context.tokens_per_min), *charging]


def _agree(least: int, most: int, units: tuple[int, int], unit: int) -> bool:
    """Return whether a limit within the bounds fits the number of units, plus or minus one."""
    return least <= (units[1] + 2) * unit and most >= (units[0] - 1) * unit


def _used(results: Sequence[ProbeResult], context: ProbeContext, verdict: Verdict) -> list[Answer]:
    """Return the answers if only used tokens count."""
    unit = max(map(max_used, accepted(equal_units(results))), default=0)
    best = verdict.best
    if best is None:
        return _unknown(f"with requests of {unit:,} tokens each, {verdict.reason}", least=float(unit))
    min_units, max_units = best.limit_range
    tries = [with_role(results, role) for role in roles.BATCHES]
    batch = next((one for one in tries if charged_at_end(one, min_units) is not None), tries[0])
    at_end = charged_at_end(batch, min_units)
    refills = any(candidate.traits.refills_gradually for candidate in verdict.consistent)
    least, most = (min_units - 1 - refills) * unit + 1, max_units * unit
    if at_end is False:
        least, most = least + unit - 1, most + unit - 1
    elif at_end is None:
        most += unit - 1
    for role in roles.PARTS:
        parts = with_role(results, role)
        exact = exact_bounds(parts, at_end)
        if exact is not None:
            refilled = _refilled_fraction(verdict, parts) * most
            least, most = max(least, round(exact[0] - refilled)), min(most, exact[1])
    least = max(1, least)
    if least > most:
        return _unknown("the measurements contradict each other: other clients may share the quota")
    evidence = f"{best.limit} requests of {unit:,} tokens each were accepted, and no more"
    limit = _limit(least, most, context, verdict.confidence or 0.0, evidence)
    return [
        limit,
        *period_and_algorithm(verdict, limit, unit_size(results, kept=False), context.tokens_per_min),
        *_charged_as_used(fill_bounds(results).accepted, most, batch, min_units, best.limit),
    ]


def _charged_as_reserved(
    outcome: Literal["reserved", "refunded"] | None,
    results: Sequence[ProbeResult],
    max_limit: int,
    evidence: Sequence[str],
) -> list[Answer]:
    """Return the answers if prompt + max_tokens are charged on admission."""
    when = Answer(CHARGED_AT, "admission", SAYS["admission"], sure(2), tuple(evidence))
    requests = with_role(results, roles.FIRST_REFUND, roles.REFUND_WAIT, roles.NEXT_REFUND)
    fits_without_refunds = sum(max_used(request) for request in requests if request.accepted) < max_limit
    if outcome is None or (outcome == "refunded" and fits_without_refunds):
        reason = "the test did not show whether reservations are refunded"
        return [cannot_tell(CHARGED, reason), when]
    decisions = [
        request.accepted
        for request in requests
        if request.role != roles.REFUND_WAIT and request.accepted is not None
    ]
    accepted, count = sum(decisions), len(decisions)
    confidence = sure(max(1, accepted if outcome == "refunded" else count - accepted))
    test = f"{accepted} of {count} requests that could use half of the limit, but used little, were accepted"
    return [Answer(CHARGED, outcome, SAYS[outcome], confidence, (test,)), when]


def _charged_as_used(
    in_flight: int, max_limit: int, batch: Sequence[ProbeResult], min_units: int, units: int
) -> list[Answer]:
    """Return the answers if ``in_flight`` tokens could be reserved without a refusal."""
    if in_flight <= max_limit:
        reason = f"{in_flight:,} tokens in flight were too few to show whether tokens are reserved"
        return [cannot_tell(CHARGED, reason), cannot_tell(CHARGED_AT, reason)]
    evidence = f"{in_flight:,} tokens in flight met no refusal, so they are not reserved"
    rule = Answer(CHARGED, "used", SAYS["used"], sure(2), (evidence,))
    at_end = charged_at_end(batch, min_units)
    if at_end is None:
        reason = "the budget allowed no concurrent requests"
        if batch:
            reason = "too many concurrent requests had ended before the others were refused"
        return [rule, cannot_tell(CHARGED_AT, reason)]
    accepted = sum(bool(result.accepted) for result in batch)
    evidence = f"{accepted} of {len(batch)} concurrent requests were accepted, and the limit fits {units}"
    when = "end" if at_end else "admission"
    return [rule, Answer(CHARGED_AT, when, SAYS[when], sure(2), (evidence,))]


def _refilled_fraction(verdict: Verdict, fill: Sequence[ProbeResult]) -> float:
    """Return the maximum fraction of the limit that may have refilled during a fill."""
    periods_s = [
        candidate.period_range_s[0] for candidate in verdict.consistent if candidate.traits.refills_gradually
    ]
    if not periods_s or not fill:
        return 0.0
    times_s = [result.sent_s for result in fill]
    return min(1.0, (max(times_s) - min(times_s)) / min(periods_s))


def _limit(least: int, most: int, context: ProbeContext, confidence: float, evidence: str) -> Answer:
    value = roundest(least, most, context.tokens_per_min)
    bounds = "" if least == most else f" (between {least:,} and {most:,})"
    says = f"The token limit is {value:,}{bounds}."
    return Answer(LIMIT, value, says, confidence, (evidence,), range=(least, most))


def roundest(least: int, most: int, documented: int | None = None) -> int:
    """Return the likeliest limit within the bounds: the documented one, else the roundest number."""
    if documented is not None and least <= documented <= most:
        return documented
    step = int(10 ** len(str(most)))
    while step > 1:
        for multiple_of in (step, step // 2):
            value = most // multiple_of * multiple_of
            if value > 0 and value >= least:
                return value
        step //= 10
    return most
