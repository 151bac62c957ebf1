"""Whether headers tell the truth: Limit, Remaining, Reset, Retry-After against the limiter that was found.

It errs one way: what is called wrong is wrong wherever in its exchange each request was decided on, and for
every choice of parameters that explains the decisions as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from bltybench.limits.fit.result import Fit
from bltybench.limits.headers.honesty import Honesty
from bltybench.limits.headers.replay import Moment, contradicted, moments_of
from bltybench.limits.observations.answer import Answer, cannot_tell, sure
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.observations.proportion import Proportion
from bltybench.limits.probe.context import ProbeContext

HONEST = 0.9
"""Share of the answers that must be right: a few lie where what was found is off by more than it seems."""
NEAR = 1.5
"""How far a Remaining may be from what is left: by its rounding, and by the request itself."""
RESET_NEAR_S = 1.2
"""How far a reset may be off: it is mostly in whole seconds."""
SHORTEST_S = 4 * RESET_NEAR_S
"""Of a shorter period a reset in whole seconds says nothing."""
FEWEST = 5
FAILED = 2
"""A Retry-After is called too short once so many waits were, and half of them: others may come first. Where
the limit is not known, all of twice as many must be. It is called too long once so many were let in before
its end."""


def judge(
    rows: Sequence[ProbeResult], doubtful: Sequence[ProbeResult], told: Honesty, known: ProbeContext
) -> list[Answer]:
    """Return whether each header is honest.

    ``rows`` are all requests that count in one limit, ``doubtful`` those of which that is not known.
    """
    moments = moments_of(known.fits, rows, doubtful)
    if _of_another_limit(rows, told, known):
        reason = "it is about another limit: it falls with each request, and does not come back in a period"
        return [
            cannot_tell("limit_header", "whether the announced limit is true", reason),
            cannot_tell("remaining_header", "whether Remaining is true", reason),
            cannot_tell("reset_header", "what Reset means", reason),
            _retry_after(told, known),
        ]
    return [
        _limit(told, known.fits, rows),
        _remaining(moments, rows),
        _reset(moments, rows, known.fits),
        _retry_after(told, known),
    ]


def _of_another_limit(rows: Sequence[ProbeResult], told: Honesty, known: ProbeContext) -> bool:
    """Say whether the headers count what cannot be the limit that was found: one of a day, for example."""
    steps, announced = told.remaining_steps, told.announced_limit
    if not known.fits or announced is None or announced <= max(each.limit_range[1] for each in known.fits):
        return False
    values = [
        each.remaining
        for each in sorted(rows, key=lambda each: each.sent_s)
        if each.accepted and each.remaining is not None
    ]
    falls = all(two <= one for one, two in pairwise(values))
    return falls and steps.of >= FEWEST and steps.count >= HONEST * steps.of


def _limit(told: Honesty, fits: Sequence[Fit], rows: Sequence[ProbeResult]) -> Answer:
    name, asked = "limit_header", "whether the announced limit is true"
    announced = told.announced_limit
    if announced is None or announced < 1 or not fits:
        # Servers announce 0 or less where they have nothing to say.
        silent = announced is None or announced < 1
        reason = "no header announces one" if silent else "the limit itself is not known"
        return cannot_tell(name, asked, reason)
    evidence = (f"announced {announced}, observed {fits[0].limit}",)
    if any(each.traits.kind == "bucket" and each.limit != announced for each in fits):
        reason = "it may be a rate: of a bucket the burst is observed"
        return cannot_tell(name, asked, reason, evidence)
    if {each.limit for each in fits} == {announced}:
        says = "The announced limit is true."
        return Answer(question=name, value="honest", says=says, confidence=sure(2), evidence=evidence)
    least, most = min(each.limit_range[0] for each in fits), max(each.limit_range[1] for each in fits)
    if least <= announced <= most or not contradicted(fits, rows, announced):
        return cannot_tell(name, asked, "what was decided suits other limits as well", evidence)
    says = f"The announced limit is wrong: {announced}, where {fits[0].limit} are let in."
    return Answer(question=name, value="wrong", says=says, confidence=sure(2), evidence=evidence)


def _remaining(moments: Sequence[Moment], rows: Sequence[ProbeResult]) -> Answer:
    name, asked = "remaining_header", "whether Remaining is true"
    told = [(each.seen.remaining, each.remaining) for each in moments if each.seen.remaining is not None]
    if len(told) < FEWEST:
        absent = all(each.remaining is None for each in rows)
        return cannot_tell(name, asked, "no header gives it" if absent else "the limit itself is not known")
    right = Proportion(sum(_within(said, left) for said, left in told), len(told))
    evidence = (f"{right.count} of {right.of} were what was left, within one",)
    values = {said for said, _ in told}
    if right.count >= HONEST * right.of:
        if any(sum(_within(same, left) for _, left in told) >= HONEST * right.of for same in values):
            return cannot_tell(name, asked, "it would hardly have changed anyhow", evidence)
        says = "Remaining is what is left."
        return Answer(question=name, value="honest", says=says, confidence=sure(3), evidence=evidence)
    if sum(said > left[1] + NEAR for said, left in told) <= (1 - HONEST) * right.of:
        reason = "it is less than should be left: others may use the same quota, or each node counts alone"
        return cannot_tell(name, asked, reason, evidence)
    says = f"Remaining is not what is left: wrong in {right.of - right.count} of {right.of} answers."
    if len(values) == 1:
        says = f"Remaining never changes: it is {told[0][0]} always."
    return Answer(question=name, value="wrong", says=says, confidence=sure(2), evidence=evidence)


def _within(said: float, left: tuple[float, float]) -> bool:
    return left[0] - NEAR <= said <= left[1] + NEAR


def _reset(moments: Sequence[Moment], rows: Sequence[ProbeResult], fits: Sequence[Fit]) -> Answer:
    name, asked = "reset_header", "what Reset means"
    if not any(each.reset_s is not None for each in rows):
        return cannot_tell(name, asked, "no header gives it")
    told = [(each.seen.reset_s, each) for each in moments if each.seen.reset_s is not None and each.alone]
    if not fits or len(told) < FEWEST:
        reason = "too few requests were sent alone" if fits else "the limit itself is not known"
        return cannot_tell(name, asked, reason)
    if min(each.period_s for each in fits) < SHORTEST_S:
        return cannot_tell(name, asked, "the period is too short for a value in whole seconds")
    periods = min(each.period_s for each in fits), max(each.period_s for each in fits)
    meanings = {
        "window_end": [(said, each.window_s) for said, each in told],
        "next_request": [(said, each.unit_s) for said, each in told],
        "whole_period": [(said, periods) for said, _ in told],
    }
    bucket = fits[0].traits.kind == "bucket"
    words = {
        "window_end": "until all is free" if bucket else "until the window ends",
        "next_request": "until the next request is let in",
        "whole_period": "always a whole period",
    }
    right = {
        meaning: sum(_about(said, expected) for said, expected in pairs)
        for meaning, pairs in meanings.items()
    }
    meaning = max(right, key=lambda each: right[each])
    share = Proportion(right[meaning], len(told))
    ahead_s = median(said - median(expected) for said, expected in meanings["window_end"])
    if share.count < HONEST * share.of and _varies(meanings["window_end"]):
        shifted = sum(_about(said - ahead_s, expected) for said, expected in meanings["window_end"])
        if shifted >= HONEST * share.of:
            says = f"Reset is the time {words['window_end']}, by a clock that is {_off(ahead_s)} yours."
            evidence = (f"{shifted} of {share.of} were off by {ahead_s:.3g} s, within {RESET_NEAR_S:g} s",)
            return Answer(question=name, value="window_end", says=says, confidence=sure(2), evidence=evidence)
    evidence = (f"{share.count} of {share.of} were the time {words[meaning]}, within {RESET_NEAR_S:g} s",)
    if share.count >= HONEST * share.of:
        says = f"Reset is {'' if meaning == 'whole_period' else 'the time '}{words[meaning]}."
        return Answer(question=name, value=meaning, says=says, confidence=sure(3), evidence=evidence)
    says = "Reset is neither the end of the window nor the time until the next request."
    return Answer(question=name, value="wrong", says=says, confidence=sure(2), evidence=evidence)


def _about(said: float, expected: tuple[float, float]) -> bool:
    return expected[0] - RESET_NEAR_S <= said <= expected[1] + RESET_NEAR_S


def _varies(pairs: Sequence[tuple[float, tuple[float, float]]]) -> bool:
    """Say whether what is expected changes enough that a constant difference is no chance."""
    expected = [median(each) for _, each in pairs]
    return max(expected) - min(expected) > 2 * SHORTEST_S


def _off(ahead_s: float) -> str:
    return f"{abs(ahead_s):.3g} s {'ahead of' if ahead_s > 0 else 'behind'}"


def _retry_after(told: Honesty, known: ProbeContext) -> Answer:
    name, asked = "retry_after", "whether Retry-After is true"
    enough, early, without = told.retry_enough, told.retry_early, told.without_retry_after
    if without.of and without.count == without.of:
        says = "Refusals have no Retry-After that can be read."
        return Answer(question=name, value="absent", says=says, confidence=sure(without.of))
    evidence = (
        f"{enough.count} of {enough.of} waits of that length were enough",
        f"{early.count} of {early.of} requests answered over a second before its end were let in",
    )
    failed = enough.of - enough.count
    # Who has others beside him is refused after an honest wait too; where no limiter explains what was seen,
    # there may be others.
    short = failed >= enough.count if known.fits else failed >= 2 * FAILED and not enough.count
    if failed >= FAILED and short:
        value, votes = "too_short", sure(failed, enough.count)
        says = "Retry-After is too short: who waits so long is refused again."
    elif failed > (1 - HONEST) * enough.of:
        reason = "it was not always enough, but others may use the same quota"
        return cannot_tell(name, asked, reason, evidence)
    elif early.count >= FAILED or early.count > (1 - HONEST) * early.of:
        value, votes = "too_long", sure(early.count)
        says = "Retry-After is longer than needed."
    elif not enough.of:
        reason = "no request was sent just after the time that it named"
        return cannot_tell(name, asked, reason, evidence if early.of else ())
    else:
        value, votes = "honest", sure(enough.count)
        says = "Retry-After is honest: a wait of that length is enough, and not much less is."
        says = says if early.of else "Retry-After is long enough."
    return Answer(question=name, value=value, says=says, confidence=votes, evidence=evidence)
