"""Whether headers tell the truth: Limit, Remaining, Reset, Retry-After against the limiter that was found."""

from __future__ import annotations

from collections.abc import Sequence

from bltybench.limits.answer import Answer, cannot_tell, sure
from bltybench.limits.ask import Seen
from bltybench.limits.evidence import Honesty, Share
from bltybench.limits.fit import Fit
from bltybench.limits.known import Known

HONEST = 0.9
"""Share of the answers that must be right, for what cannot be seen exactly: clocks, and what is in flight."""
NEAR = 1.5
"""How far a Remaining may be from the number that is left: rounding, and a request in flight."""
RESET_NEAR_S = 1.2
"""How far a reset may be off: it is mostly in whole seconds."""
SHORTEST_S = 4 * RESET_NEAR_S
"""Of a shorter period a reset in whole seconds says nothing."""
FEWEST = 5


def judge(rows: Sequence[Seen], told: Honesty, known: Known) -> list[Answer]:
    """Return whether each header is honest; ``rows`` are all requests that count in one limit."""
    best = known.fit if len({each.limit for each in known.fits}) == 1 else None
    replayed = [] if best is None else _replay(best, rows)
    return [
        _limit(told, best),
        _remaining(replayed, rows),
        _reset(replayed, rows, best),
        _retry_after(told),
    ]


def _limit(told: Honesty, best: Fit | None) -> Answer:
    name, asked = "limit_header", "whether the announced limit is true"
    if told.announced_limit is None:
        return cannot_tell(name, asked, "no header announces one")
    if best is None:
        return cannot_tell(name, asked, "the limit itself is not known")
    least, most = best.limit_range
    evidence = (f"announced {told.announced_limit}, observed {best.limit}",)
    if least <= told.announced_limit <= most:
        return Answer(
            question=name,
            value="honest",
            says="The announced limit is true.",
            confidence=sure(2),
            evidence=evidence,
        )
    if best.family == "token_bucket":
        reason = "it may be a rate: of a bucket the burst is observed"
        return cannot_tell(name, asked, reason, evidence)
    says = f"The announced limit is wrong: {told.announced_limit}, where {best.limit} are let in."
    return Answer(question=name, value="wrong", says=says, confidence=sure(2), evidence=evidence)


class _Moment:
    """One answer that was let in, and what the limiter that was found says of that moment."""

    def __init__(self, seen: Seen, remaining: float, window_s: float, unit_s: float) -> None:
        self.seen = seen
        self.remaining = remaining
        self.window_s = window_s
        self.unit_s = unit_s


def _replay(best: Fit, rows: Sequence[Seen]) -> list[_Moment]:
    model = best.model()
    moments: list[_Moment] = []
    timed = sorted(
        (((each.sent_s + (each.decided_s or each.sent_s)) / 2, each) for each in rows), key=lambda x: x[0]
    )
    for at_s, each in timed:
        if each.accepted or (each.refused and best.count_refused):
            model.charge(at_s)
        if each.accepted:
            peeked = model.peek(at_s)
            moments.append(_Moment(each, peeked.remaining, peeked.reset_s, peeked.retry_after_s or 0.0))
    return moments


def _remaining(moments: Sequence[_Moment], rows: Sequence[Seen]) -> Answer:
    name, asked = "remaining_header", "whether Remaining is true"
    if not any(each.remaining is not None for each in rows):
        return cannot_tell(name, asked, "no header gives it")
    told = [(each.seen.remaining, each.remaining) for each in moments if each.seen.remaining is not None]
    if len(told) < FEWEST:
        return cannot_tell(name, asked, "the limit itself is not known")
    right = Share(sum(abs(said - left) <= NEAR for said, left in told), len(told))
    evidence = (f"{right.count} of {right.of} were what was left, within one",)
    if right.count >= HONEST * right.of:
        says = "Remaining is what is left."
        return Answer(question=name, value="honest", says=says, confidence=sure(3), evidence=evidence)
    if len({said for said, _ in told}) == 1:
        says = f"Remaining never changes: it is {told[0][0]} always."
        return Answer(question=name, value="wrong", says=says, confidence=sure(3), evidence=evidence)
    says = f"Remaining is not what is left: wrong in {right.of - right.count} of {right.of} answers."
    return Answer(question=name, value="wrong", says=says, confidence=sure(2), evidence=evidence)


def _reset(moments: Sequence[_Moment], rows: Sequence[Seen], best: Fit | None) -> Answer:
    name, asked = "reset_header", "what Reset means"
    if not any(each.reset_s is not None for each in rows):
        return cannot_tell(name, asked, "no header gives it")
    told = [each for each in moments if each.seen.reset_s is not None]
    if best is None or len(told) < FEWEST:
        return cannot_tell(name, asked, "the limit itself is not known")
    if best.period_s < SHORTEST_S:
        return cannot_tell(name, asked, "the period is too short for a value in whole seconds")
    meanings = {
        "window_end": sum(abs((each.seen.reset_s or 0.0) - each.window_s) <= RESET_NEAR_S for each in told),
        "next_request": sum(abs((each.seen.reset_s or 0.0) - each.unit_s) <= RESET_NEAR_S for each in told),
        "whole_period": sum(abs((each.seen.reset_s or 0.0) - best.period_s) <= RESET_NEAR_S for each in told),
    }
    words = {
        "window_end": "until all is free" if best.family == "token_bucket" else "until the window ends",
        "next_request": "until the next request is let in",
        "whole_period": "always a whole period",
    }
    meaning = max(meanings, key=lambda each: meanings[each])
    share = Share(meanings[meaning], len(told))
    evidence = (f"{share.count} of {share.of} were the time {words[meaning]}, within {RESET_NEAR_S:g} s",)
    if share.count >= HONEST * share.of:
        says = f"Reset is the time {words[meaning]}."
        return Answer(question=name, value=meaning, says=says, confidence=sure(3), evidence=evidence)
    says = "Reset is neither the end of the window nor the time until the next request."
    return Answer(question=name, value="wrong", says=says, confidence=sure(2), evidence=evidence)


def _retry_after(told: Honesty) -> Answer:
    name, asked = "retry_after", "whether Retry-After is true"
    enough, early, without = told.retry_enough, told.retry_early, told.without_retry_after
    if without.of and without.count == without.of:
        says = "Refusals have no Retry-After that can be read."
        return Answer(question=name, value="absent", says=says, confidence=sure(without.of))
    evidence = (
        f"{enough.count} of {enough.of} waits of that length were enough",
        f"{early.count} of {early.of} requests sent over a second before its end were let in",
    )
    if not enough.of and not early.of:
        return cannot_tell(name, asked, "no request was sent about the time that it named")
    if enough.of and enough.count < HONEST * enough.of:
        says = "Retry-After is too short: who waits so long is refused again."
        return Answer(
            question=name,
            value="too_short",
            says=says,
            confidence=sure(enough.of - enough.count, enough.count),
            evidence=evidence,
        )
    if early.count > (1 - HONEST) * early.of:
        says = "Retry-After is longer than needed."
        return Answer(
            question=name, value="too_long", says=says, confidence=sure(early.count), evidence=evidence
        )
    if not enough.of:
        return cannot_tell(name, asked, "no request was sent just after the time that it named", evidence)
    says = "Retry-After is honest: a wait of that length is enough, and not much less is."
    if not early.of:
        says = "Retry-After is long enough."
    return Answer(question=name, value="honest", says=says, confidence=sure(enough.count), evidence=evidence)
