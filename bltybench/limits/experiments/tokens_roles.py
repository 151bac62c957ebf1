"""Roles of the token experiment's requests, and what the results with these roles show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bltybench.limits.experiments.results import accepted, refused, with_role
from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.observations.observation import Observation, decision_slack_s
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext

FILL, REFILL = "fill", "fill again"
FIRST_REFUND, REFUND_WAIT, NEXT_REFUND = "right after", "later", "one by one"
SIZE, UNIT, RESIZED_UNIT = "size", "unit", "resized unit"
PARTS = ("part of a unit", "part of a unit again")
"""Roles of the requests that measure the exact size, at the first and at the second try."""
BATCHES = ("together", "together again")


@dataclass(frozen=True, slots=True)
class FillBounds:
    """The tokens reserved by open streams, and the fewest in total at which one was refused."""

    accepted: int = 0
    refused: int | None = None


def fill_bounds(results: Sequence[ProbeResult], role: str = FILL) -> FillBounds:
    """Return how many tokens could be reserved concurrently."""
    reserved, refused_at = 0, None
    for result in with_role(token_decisions(results), role):
        total = reserved + max_used(result)
        if result.accepted:
            reserved = total
        elif result.refused:
            refused_at = min(refused_at or total, total)
    return FillBounds(reserved, refused_at)


def max_used(result: ProbeResult) -> int:
    """Return the maximum tokens that a request could use."""
    return result.prompt_tokens + result.max_tokens


def used(result: ProbeResult) -> int:
    """Return the tokens that a request used."""
    return result.prompt_tokens + result.completion_tokens


def spent(results: Sequence[ProbeResult]) -> int:
    """Return the tokens that count against the probe's budget: those of refused requests do not."""
    return sum(used(result) for result in results if not result.refused)


def reservation_outcome(results: Sequence[ProbeResult]) -> Literal["reserved", "refunded"] | None:
    """Return whether unused reservations are kept (reserved) or refunded; None if unknown."""
    tests = with_role(token_decisions(results), NEXT_REFUND)
    if refused(tests):
        return "reserved"
    refused_at = fill_bounds(results).refused
    total = sum(map(max_used, accepted(with_role(results, FIRST_REFUND, REFUND_WAIT, NEXT_REFUND))))
    # If reservations were kept, this many tokens would not have fit.
    return "refunded" if accepted(tests) and refused_at is not None and total >= refused_at else None


def largest_max_tokens(results: Sequence[ProbeResult]) -> int | None:
    """Return the largest max_tokens that the model accepted; None if it rejected none."""
    if not any(result.status == 400 for result in results):
        return None
    return max((result.max_tokens for result in accepted(results)), default=None)


def equal_units(results: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Return the requests of equal size to fit: the resized ones, if there are any."""
    return with_role(results, RESIZED_UNIT) or with_role(results, UNIT)


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


def exact_bounds(parts: Sequence[ProbeResult], at_end: bool | None) -> tuple[int, int] | None:
    """Return the minimum and maximum limit after units and then parts of a unit were sent."""
    refusals = refused(parts)
    if not refusals or any(part.accepted is None for part in parts):
        return None
    charges = [used(part) for part in accepted(parts)]
    total = sum(charges)
    least = total if at_end is False else total - sum(charges[-1:]) + 1
    most = total if at_end else total + max_used(refusals[0]) - 1
    return least, most


def token_decisions(results: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Return the results, with refusals by other limits as undecided if any refusal names tokens."""
    if not any(result.refused and result.about_tokens for result in results):
        return list(results)
    return [
        replace(result, decision=None) if result.refused and not result.about_tokens else result
        for result in results
    ]


def unit_observations(results: Sequence[ProbeResult]) -> list[Observation]:
    """Return the units as observations of a request limit. One whose response was lost may have counted."""
    units = [result for result in equal_units(token_decisions(results)) if result.decided_s is not None]
    slack_s = decision_slack_s((unit.decided_s or 0.0) - unit.sent_s for unit in refused(units))
    return [
        Observation(unit.sent_s, min(unit.decided_s or 0.0, unit.sent_s + slack_s), unit.accepted, unit=True)
        for unit in units
        if unit.accepted is not None or unit.lost
    ]


def unit_verdict(results: Sequence[ProbeResult], context: ProbeContext) -> Verdict:
    """Fit the units, unless the request limit may have refused them."""
    verdict = fit_limiter(unit_observations(results), hints_s=(context.expected_token_period_s,))
    named = any(unit.about_tokens for unit in equal_units(results))
    max_limit = max((candidate.limit_range[1] for candidate in verdict.consistent), default=0)
    if context.fits and max_limit >= context.burst and not named:
        reason = (
            "as many requests were accepted as the request limit allows, so it may have refused the others"
        )
        return replace(verdict, status="unknown", fits=(), consistent=(), confidence=None, reason=reason)
    return verdict
