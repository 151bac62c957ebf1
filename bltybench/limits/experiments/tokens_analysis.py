"""What the experiment with tokens implies: pure, and the same of a record as of the probe that made it."""

from __future__ import annotations

from collections.abc import Sequence

from bltybench.limits.experiments.tokens_period import ASKED, period, unit_size
from bltybench.limits.experiments.tokens_roles import (
    AFTER,
    FILL,
    LATER,
    ONE_BY_ONE,
    PART,
    PROMPT_SLACK,
    REFILL,
    SIZE,
    TOGETHER,
    UNIT,
    bounds,
    charged_of,
    cost,
    own,
    unit_verdict,
    used,
)
from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.answer import Answer, cannot_tell, sure
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext

QUESTIONS = {
    "token_limit": "how many tokens are allowed",
    **ASKED,
    "tokens_charged": "how tokens are charged",
    "tokens_charged_at": "when tokens are charged",
}


def judge(seen: Sequence[ProbeResult], known: ProbeContext) -> list[Answer]:
    """Return the limit of tokens, its period and algorithm, and what is charged when."""
    if not seen:
        return _silent("the budget, or the limit of requests, allowed no experiment")
    failed = [each for each in seen if each.accepted is None and each.status != 400 and not each.cancelled]
    if len(failed) > len(seen) // 4:
        return _silent(f"{len(failed)} of {len(seen)} requests failed")
    if any(each.about_concurrency for each in seen):
        return _silent("the limit of requests in flight refused first")
    verdict = unit_verdict(seen, known)
    seen = own(seen)
    filled = bounds(seen)
    if filled is not None and filled[1] is not None:
        return _reserved(seen, known, verdict, filled[0], filled[1])
    if verdict.refused:
        return _used(seen, known, verdict)
    return _never(seen, known)


def _silent(reason: str, *, least: float | None = None, evidence: Sequence[str] = ()) -> list[Answer]:
    return [
        cannot_tell(name, what, reason, evidence, least=least if name == "token_limit" else None)
        for name, what in QUESTIONS.items()
    ]


def _never(seen: Sequence[ProbeResult], known: ProbeContext) -> list[Answer]:
    reserved = (bounds(seen) or (0, None))[0]
    taken = [used(each) for each in seen if each.role in {SIZE, UNIT} and each.accepted]
    reason = f"{reserved:,} tokens in flight and {sum(taken):,} used within the budget met no refusal"
    # Over what time they would be counted is not known: one request's are counted together in any case.
    return _silent(reason, least=float(max(taken, default=0)))


def _reserved(
    seen: Sequence[ProbeResult], known: ProbeContext, verdict: Verdict, least: int, most: int
) -> list[Answer]:
    fills = [each for each in seen if each.role == FILL]
    refused = sum(each.refused for each in fills)
    evidence = [
        f"streams that could use {least:,} tokens in all were let in; where it would have been {most:,}, "
        f"one was refused ({refused} refusals)"
    ]
    best = verdict.best
    unit = max((cost(each) for each in seen if each.role == UNIT and each.accepted), default=0)
    again = bounds(seen, REFILL)
    role = FILL
    if again is not None and again[1] is not None:
        least, most, role = again[0], again[1], REFILL
        evidence = [
            f"{least:,} tokens in flight were let in, {most:,} were not, at the beginning of a period"
        ]
    if best is not None and not _agree(least, most, best.limit_range, unit):
        return _silent(
            f"{least:,} tokens were let in at once, and {best.limit} requests of {unit:,} each: "
            "a window may have turned meanwhile, or others use the same quota"
        )
    # What came back while it was being filled may have been more than fits at once.
    least = max(1, round(least - _came_back(verdict, _took_s(seen, role)) * least))
    # What the server counts for their prompts is not told: none of them ended.
    slack = PROMPT_SLACK * sum(each.role == role for each in seen)
    least, most = max(1, least - slack), most + slack
    after = [each for each in seen if each.role in {AFTER, LATER, ONE_BY_ONE} and each.accepted is not None]
    charged = charged_of(seen)
    if charged == "refunded" and sum(cost(each) for each in after if each.accepted) < most:
        charged = None  # all of them fit, were they kept or not: of a greater limit than was first seen
    documented = known.tokens_per_min is not None and least <= known.tokens_per_min < most
    if best is not None and role == FILL and not documented:
        # Something may have been used before: what was refused then may fit into all of it.
        most = max(most, (best.limit_range[1] + 1) * unit)
    if best is not None or documented:
        limit = _limit(least, most - 1, known, sure(refused), evidence)
    else:
        reason = (
            "its period is not known, so some may have been used before, or come back while it was filled"
        )
        # One by itself fits in any case.
        one = max((cost(each) for each in seen if each.accepted), default=0)
        limit = cannot_tell("token_limit", QUESTIONS["token_limit"], reason, evidence, least=one)
    answers = [
        limit,
        *period(verdict, limit, unit_size(seen, kept=charged == "reserved"), known.tokens_per_min),
    ]
    if charged is None:
        return [
            *answers,
            *_uncharged("whether reservations come back was not seen"),
            _at("admission", evidence),
        ]
    after = [each for each in after if each.role != LATER]
    let_in = sum(bool(each.accepted) for each in after)
    told = f"of {len(after)} that might have used about half, and used next to nothing, {let_in} were let in"
    says = {
        "refunded": "Prompt + max_tokens are reserved; what was not used comes back when the answer ends.",
        "reserved": "Prompt + max_tokens are charged in full, whatever was used.",
    }[charged]
    rule = Answer(
        question="tokens_charged",
        value=charged,
        says=says,
        confidence=sure(max(1, let_in if charged == "refunded" else len(after) - let_in)),
        evidence=(told,),
    )
    return [*answers, rule, _at("admission", evidence)]


def _used(seen: Sequence[ProbeResult], known: ProbeContext, verdict: Verdict) -> list[Answer]:
    units = [each for each in seen if each.role == UNIT]
    size = max((cost(each) for each in units if each.accepted), default=0)
    best = verdict.best
    reserved = (bounds(seen) or (0, None))[0]
    if best is None:
        return _silent(f"of requests of {size:,} tokens each: {verdict.reason}", least=float(size))
    together = [each for each in seen if each.role == TOGETHER]
    let_in = sum(bool(each.accepted) for each in together)
    fewest, greatest = best.limit_range
    at_end = charged_at_end(together, fewest)
    gives_back = any(each.traits.refills_gradually for each in verdict.consistent)
    least, most = (fewest - 1 - gives_back) * size + 1, greatest * size
    if at_end is False:
        least, most = least + size - 1, most + size - 1
    elif at_end is None:
        most += size - 1
    parts = _parts(seen, at_end)
    if parts is not None:
        back = _came_back(verdict, _took_s(seen, PART)) * most
        least, most = max(least, round(parts[0] - back)), min(most, parts[1])
    least = max(1, least)
    if least > most:
        return _silent("the experiments contradict each other: others may use the same quota")
    unused = f"{reserved:,} tokens were in flight at a time and met no refusal, so they are not reserved"
    evidence = [f"{best.limit} requests of {size:,} tokens each were let in and no more"]
    limit = _limit(least, most, known, verdict.confidence or 0.0, evidence)
    answers = [limit, *period(verdict, limit, unit_size(seen, kept=False), known.tokens_per_min)]
    if reserved <= most:
        reason = f"{reserved:,} tokens in flight were too few to see whether they are reserved"
        return [
            *answers,
            *_uncharged(reason),
            cannot_tell("tokens_charged_at", QUESTIONS["tokens_charged_at"], reason),
        ]
    rule = Answer(
        question="tokens_charged",
        value="used",
        says="Only what was used is charged, whatever max_tokens allows.",
        confidence=sure(2),
        evidence=(unused,),
    )
    if at_end is None:
        reason = "the budget did not reach to send all at once"
        if together:
            reason = (
                "when others were refused, so many of those sent together had ended that both is possible"
            )
        return [*answers, rule, cannot_tell("tokens_charged_at", QUESTIONS["tokens_charged_at"], reason)]
    told = [f"of {len(together)} sent together, where {best.limit} fit, {let_in} were let in"]
    return [*answers, rule, _at("end" if at_end else "admission", told)]


def charged_at_end(together: Sequence[ProbeResult], fewest: int) -> bool | None:
    """Say whether requests that were sent together are charged when they end; None where that is open.

    All let in: nothing was charged before. A refusal before as many had ended as the limit holds at least:
    they were charged before. A refusal after that may be for either.
    """
    if not together:
        return None
    ended = [each.end_s for each in together if each.accepted and each.end_s is not None]
    # What ended on the server is seen to have ended here as much later as an answer takes.
    refused = [2 * each.end_s - each.sent_s for each in together if each.refused and each.end_s is not None]
    if not refused:
        return True if all(each.accepted for each in together) else None
    return False if sum(at_s <= min(refused) for at_s in ended) < fewest else None


def _agree(least: int, most: int, units: tuple[int, int], size: int) -> bool:
    """Say whether a limit between two bounds lets in so many units and no more, give or take one."""
    return least <= (units[1] + 2) * size and most >= (units[0] - 1) * size


def _came_back(verdict: Verdict, took_s: float) -> float:
    """Return the share of the limit that may have been given back in some time, whichever family is true."""
    periods_s = [each.period_range_s[0] for each in verdict.consistent if each.traits.refills_gradually]
    return min(1.0, took_s / min(periods_s)) if periods_s else 0.0


def _took_s(seen: Sequence[ProbeResult], role: str) -> float:
    times = [each.sent_s for each in seen if each.role == role]
    return max(times) - min(times) if times else 0.0


def _parts(seen: Sequence[ProbeResult], at_end: bool | None) -> tuple[int, int] | None:
    """Return the bounds that units and then parts of them give."""
    rows = [each for each in seen if each.role == PART]
    refused = next((each for each in rows if each.refused), None)
    if refused is None or any(each.accepted is None for each in rows):
        return None
    let_in = [used(each) for each in rows if each.accepted]
    total = sum(let_in)
    if at_end:
        return total - let_in[-1] + 1, total
    if at_end is None:
        return total - let_in[-1] + 1, total + cost(refused) - 1
    return total, total + cost(refused) - 1


def _limit(least: int, most: int, known: ProbeContext, confidence: float, evidence: Sequence[str]) -> Answer:
    value = rounded(least, most, known.tokens_per_min)
    around = "" if least == most else f" (between {least:,} and {most:,})"
    return Answer(
        question="token_limit",
        value=value,
        range=(least, most),
        says=f"{value:,} tokens{around}.",
        confidence=confidence,
        evidence=tuple(evidence),
    )


def rounded(least: int, most: int, documented: int | None = None) -> int:
    """Return what people would have chosen between two bounds: the documented, else the roundest number."""
    if documented is not None and least <= documented <= most:
        return documented
    step = 10 ** len(str(most))
    while step > 1:
        for part in (step, step // 2):
            nearest = (most // part) * part if part else 0
            if nearest >= least and nearest > 0:
                return nearest
        step //= 10
    return most


def _uncharged(reason: str) -> list[Answer]:
    return [cannot_tell("tokens_charged", QUESTIONS["tokens_charged"], reason)]


def _at(when: str, evidence: Sequence[str]) -> Answer:
    says = {
        "admission": "Tokens are charged when a request is let in.",
        "end": "Tokens are charged when the answer ends: what is in flight together can overshoot the limit.",
    }[when]
    return Answer(
        question="tokens_charged_at", value=when, says=says, confidence=sure(2), evidence=tuple(evidence)
    )
