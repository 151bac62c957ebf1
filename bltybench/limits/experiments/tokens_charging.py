"""How and when tokens are charged, from the results of the token experiment."""

from collections.abc import Sequence
from typing import Literal

from bltybench.limits.experiments import tokens_roles as roles
from bltybench.limits.experiments.results import with_role
from bltybench.limits.experiments.tokens_roles import max_used
from bltybench.limits.observations.answer import Answer, cannot_tell, sure
from bltybench.limits.observations.probe_result import ProbeResult

CHARGED, CHARGED_AT = "tokens_charged", "tokens_charged_at"
SAYS = {
    "refunded": "Prompt tokens and max_tokens are reserved, and the unused part is refunded at the end.",
    "reserved": "Prompt tokens and max_tokens are charged in full, however many are used.",
    "used": "Only used tokens are charged, whatever max_tokens allows.",
    "admission": "Tokens are charged when the request is accepted.",
    "end": "Tokens are charged when the response ends, so concurrent requests can exceed the limit.",
}


def charged_as_reserved(
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


def charged_as_used(
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


def charged_at_end(batch: Sequence[ProbeResult], min_limit: int) -> bool | None:
    """Return whether concurrent requests are charged when they end; None if that is ambiguous.

    If all are accepted, none was charged on admission. If one is refused before ``min_limit`` of them have
    ended, they were. A later refusal may have either reason.
    """
    refused = [result for result in batch if result.refused and result.end_s is not None]
    if not refused:
        return True if batch and all(result.accepted for result in batch) else None
    # Another response's end can take as long to arrive as the refusal did.
    refused_s = min(2 * (result.end_s or 0.0) - result.sent_s for result in refused)
    ended = [result for result in batch if result.accepted and result.end_s and result.end_s <= refused_s]
    return False if len(ended) < min_limit else None
