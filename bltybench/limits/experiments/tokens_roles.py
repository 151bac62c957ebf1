"""What the experiment with tokens saw, read as its roles are meant: by the question and by its judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.observations.observation import Observation
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext

FILL, REFILL = "fill", "fill again"
AFTER, LATER, ONE_BY_ONE = "right after", "later", "one by one"
SIZE, UNIT, PART, TOGETHER = "size", "unit", "part of a unit", "together"

PROMPT_SLACK = 2
"""Tokens by which the server may count a short prompt otherwise than we do."""


def bounds(seen: Sequence[ProbeResult], role: str = FILL) -> tuple[int, int | None] | None:
    """Return the tokens that were reserved at once, and the least that were refused; None without a fill."""
    fills = [each for each in own(seen) if each.role == role]
    if not fills:
        return None
    least, most = 0, None
    for each in fills:
        if each.accepted:
            least += cost(each)
        elif each.refused:
            most = min(most or least + cost(each), least + cost(each))
    return least, most


def cost(each: ProbeResult) -> int:
    """Return the most that a request could use."""
    return each.prompt_tokens + each.max_tokens


def used(each: ProbeResult) -> int:
    """Return what a request used."""
    return each.prompt_tokens + each.completion_tokens


def charged_of(seen: Sequence[ProbeResult]) -> str | None:
    """Return whether reservations were given back (refunded) or kept (reserved); None where not known."""
    rest = [each for each in own(seen) if each.role == ONE_BY_ONE and each.accepted is not None]
    if any(each.refused for each in rest):
        return "reserved"
    let_in = [each for each in seen if each.role in {AFTER, LATER, ONE_BY_ONE} and each.accepted]
    most = (bounds(seen) or (0, None))[1]
    # Had they been kept, so many would not have fit.
    return "refunded" if rest and most is not None and sum(map(cost, let_in)) >= most else None


def largest(seen: Sequence[ProbeResult]) -> int | None:
    """Return the largest max_tokens that the model takes, where a larger one was a mistake; else None."""
    if not any(each.status == 400 for each in seen):
        return None
    return max((each.max_tokens for each in seen if each.accepted), default=None)


def own(seen: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Return all, what another limit refused as not decided: where some refusals name tokens, all do."""
    if not any(each.refused and each.about_tokens for each in seen):
        return list(seen)
    return [replace(each, accepted=None) if each.refused and not each.about_tokens else each for each in seen]


def unit_sights(seen: Sequence[ProbeResult]) -> list[Observation]:
    """Return what the units say of a limit of so many of them; one whose answer was lost may have counted."""
    units = [each for each in own(seen) if each.role == UNIT and each.decided_s is not None]
    took = sorted((each.decided_s or 0.0) - each.sent_s for each in units if each.refused)
    slack_s = max(0.05, 2 * took[int(0.9 * (len(took) - 1))]) if took else float("inf")
    return [
        Observation(each.sent_s, min(each.decided_s or 0.0, each.sent_s + slack_s), each.accepted, unit=True)
        for each in units
        if each.accepted is not None or each.lost
    ]


def unit_verdict(seen: Sequence[ProbeResult], known: ProbeContext) -> Verdict:
    """Return what the units say of period and algorithm."""
    verdict = fit_limiter(unit_sights(seen), hints_s=(known.expected_token_period_s,))
    named = any(each.role == UNIT and each.about_tokens for each in seen)
    greatest = max((each.limit_range[1] for each in verdict.consistent), default=0)
    if known.fits and greatest >= known.burst and not named:
        reason = "as many were let in as the limit of requests allows, so that may have refused the others"
        return replace(verdict, status="unknown", fits=(), consistent=(), confidence=None, reason=reason)
    return verdict
