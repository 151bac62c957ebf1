"""What the experiment with requests in flight implies: pure, and the same of a record as of the probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bltybench.limits.experiments.concurrency_steps import AGAIN, CONTROL, HELD, LATE, PATIENCE_S, TRIALS
from bltybench.limits.observations.answer import Answer, cannot_tell, sure, times
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext

SOON = 0.9
"""After so much of what others lasted, a dropped stream may have ended by itself."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """One dropped stream, and what followed."""

    freed: bool | None
    """None: another answer ended meanwhile, or nothing followed."""
    after_s: float


def judge(seen: Sequence[ProbeResult], known: ProbeContext) -> list[Answer]:
    """Return the most in flight, what becomes of more, and whether a dropped stream frees its slot."""
    rows = sorted(seen, key=lambda each: each.sent_s)
    drops = sorted(each.end_s for each in rows if each.cancelled and each.end_s and each.begun_s)
    first_drop = drops[0] if drops else float("inf")
    refused = [each for each in rows if each.refused]
    before = [each for each in refused if each.sent_s < first_drop]
    if not rows:
        return _silent("nothing could be held within the budget and the limit of requests")
    if any(each.about_tokens for each in before):
        return _silent("the limit of tokens refused first")
    if before:
        return _refusing(rows, before, drops, known)
    late = [each for each in rows if each.role == HELD and _waited(each, rows, first_drop)]
    if late:
        return _queueing(rows, late, drops)
    return _never(rows)


def _silent(reason: str, *, least: int | None = None, evidence: Sequence[str] = ()) -> list[Answer]:
    return [
        cannot_tell("concurrency_limit", "how many may be in flight", reason, evidence, least=least),
        cannot_tell("concurrency_excess", "what becomes of more than that", reason),
        cannot_tell("cancelled_frees_slot", "whether a cancelled stream frees its slot", reason),
    ]


def _never(rows: Sequence[ProbeResult]) -> list[Answer]:
    most = _most_open(rows)
    failed = [each for each in rows if each.accepted is None]
    if failed:
        codes = ", ".join(sorted({str(each.status or "no answer") for each in failed}))
        return _silent(f"{len(failed)} of {len(rows)} streams failed ({codes})", least=most)
    ended = [each for each in rows if not each.cancelled and each.role == HELD and not each.open]
    if ended and most < len(rows):
        return _silent(f"the answers ended before more than {most} were open", least=most)
    reason = f"{most} at a time were let in, and the budget or the limit of requests allowed no more"
    return _silent(reason, least=most, evidence=[f"{most} streams were open at the same time"])


def _refusing(
    rows: Sequence[ProbeResult], before: Sequence[ProbeResult], drops: Sequence[float], known: ProbeContext
) -> list[Answer]:
    least = _most_open(rows)
    most = min(_may_be_open(rows, each) for each in before)
    again = [each for each in rows if each.role == AGAIN]
    let_in = [each for each in again if each.accepted]
    controls = [each for each in rows if each.role == CONTROL]
    named = sum(each.about_concurrency for each in before)
    evidence = [
        f"{least} streams were open at the same time; {len(before)} more were refused meanwhile",
        f"after a slot was freed {len(let_in)} of {len(again)} tries were let in",
    ]
    if controls:
        evidence.append(
            f"{sum(each.refused for each in controls)} of {len(controls)} sent after that were refused"
        )
    if named:
        evidence.append(f"{named} refusals say that it is about concurrency")
    if not let_in and not named:
        reason = "refusals did not end when answers did, so another limit refused"
        return _silent(reason, least=least, evidence=evidence)
    ended_s = _first_own_end(rows, drops[0]) if drops else float("inf")
    if not named and any(each.accepted and (each.decided_s or 0.0) < ended_s for each in controls):
        reason = "one more was let in though no slot had been freed, so another limit refused"
        return _silent(reason, least=least, evidence=evidence)
    sooner = any((each.decided_s or 0.0) < ended_s for each in let_in)
    if not (sooner or named or known.fits or known.never_refused or least == known.concurrency):
        reason = (
            "refusals ended no sooner than answers did; the limit of requests, not known, may have refused"
        )
        return _silent(reason, least=least, evidence=evidence)
    if least > most:
        return _silent("refusals did not depend on how many were open", least=least, evidence=evidence)
    votes = len(let_in) + sum(each.refused for each in controls) + min(named, 2)
    confidence = sure(votes, sum(bool(each.accepted) for each in controls))
    limit = Answer(
        question="concurrency_limit",
        value=least,
        range=(least, most),
        says=f"{least} requests may be in flight at a time.",
        confidence=confidence if least == most else confidence / (1 + most - least),
        evidence=tuple(evidence),
    )
    excess = Answer(
        question="concurrency_excess",
        value="refused",
        says=f"More than that are refused, with {before[0].status}.",
        confidence=sure(len(before) + len(let_in)),
        evidence=(evidence[0],),
    )
    return [limit, excess, _freed(rows, [_refusing_trial(rows, at_s, drops) for at_s in drops[:TRIALS]])]


def _refusing_trial(rows: Sequence[ProbeResult], dropped_s: float, drops: Sequence[float]) -> _Trial:
    until_s = min((at_s for at_s in drops if at_s > dropped_s), default=float("inf"))
    tries = [each for each in rows if each.role == AGAIN and dropped_s < each.sent_s < until_s]
    taken = next((each for each in tries if each.accepted), None)
    last = taken or (tries[-1] if tries else None)
    if last is None:
        return _Trial(None, 0.0)
    ended = _first_own_end(rows, dropped_s)
    before_end = [each for each in tries if each.decided_s is not None and each.decided_s < ended]
    if taken is not None and taken in before_end:
        return _Trial(True, taken.sent_s - dropped_s)
    return _Trial(False, before_end[-1].sent_s - dropped_s) if before_end else _Trial(None, 0.0)


def _queueing(
    rows: Sequence[ProbeResult], late: Sequence[ProbeResult], drops: Sequence[float]
) -> list[Answer]:
    first_drop = drops[0] if drops else float("inf")
    waiting = [each for each in late if each.begun_s is None or each.begun_s >= first_drop]
    serving = sum(
        1 for each in rows if each.begun_s is not None and each.begun_s < first_drop and _on(each, first_drop)
    )
    evidence = [f"{serving} streams had begun and {len(waiting)} more waited"]
    if len(waiting) < len(late) or not waiting or not drops:
        reason = "streams began late without a slot being freed: the server is slow under load"
        return _silent(reason, least=_most_open(rows), evidence=evidence)
    trials = [_queueing_trial(rows, waiting, at_s, drops) for at_s in drops[:TRIALS]]
    own_end = _first_own_end(rows, first_drop)
    let_in = [each for each in waiting if each.begun_s is not None]
    if not let_in:
        reason = "what waited never began, whatever ended"
        return _silent(reason, least=serving, evidence=evidence)
    early = [each for each in let_in if each.begun_s is not None and each.begun_s < own_end]
    freed = sum(trial.freed is True for trial in trials)
    evidence.append(f"{len(early)} of them began when a stream was dropped")
    if len(early) > freed:
        reason = "more began than slots were freed: the server is slow under load"
        return _silent(reason, least=_most_open(rows), evidence=evidence)
    limit = Answer(
        question="concurrency_limit",
        value=serving,
        range=(serving, serving),
        says=f"{serving} requests are served at a time.",
        confidence=sure(len(waiting[:2]) + len(let_in[:2])),
        evidence=tuple(evidence),
    )
    excess = Answer(
        question="concurrency_excess",
        value="queued",
        says="More than that wait until one of them has ended.",
        confidence=sure(len(let_in)),
        evidence=tuple(evidence),
    )
    return [limit, excess, _freed(rows, trials)]


def _queueing_trial(
    rows: Sequence[ProbeResult], waiting: Sequence[ProbeResult], dropped_s: float, drops: Sequence[float]
) -> _Trial:
    until_s = min((at_s for at_s in drops if at_s > dropped_s), default=float("inf"))
    until_s = min(until_s, _first_own_end(rows, dropped_s))
    begun = [each.begun_s for each in waiting if each.begun_s and dropped_s < each.begun_s <= until_s]
    if begun:
        return _Trial(True, min(begun) - dropped_s)
    return _Trial(False, until_s - dropped_s) if until_s < float("inf") else _Trial(None, 0.0)


def _freed(rows: Sequence[ProbeResult], trials: Sequence[_Trial]) -> Answer:
    told = [trial for trial in trials if trial.freed is not None]
    yes = [trial for trial in told if trial.freed]
    if not told or (yes and len(yes) < len(told)):
        reason = "tries disagree" if told else "other answers ended before it could be seen"
        return cannot_tell("cancelled_frees_slot", "whether a cancelled stream frees its slot", reason)
    slowest = max(trial.after_s for trial in told)
    if yes:
        says = f"A cancelled stream frees its slot, within {slowest:.2g} s."
    else:
        says = f"A cancelled stream keeps its slot: it was taken still {slowest:.2g} s later."
    return Answer(
        question="cancelled_frees_slot",
        value=bool(yes),
        says=says,
        confidence=sure(len(told)),
        evidence=(f"seen {times(len(told))}; the longest wait was {slowest:.3g} s",),
    )


def _most_open(rows: Sequence[ProbeResult]) -> int:
    """Return how many were being answered at the same time, for sure."""
    served = [(each.begun_s or each.decided_s, each.end_s) for each in rows if each.accepted]
    known = [(start, end) for start, end in served if start is not None]
    return max(
        (sum(s <= start and (e is None or e >= start) for s, e in known) for start, _ in known), default=0
    )


def _may_be_open(rows: Sequence[ProbeResult], refused: ProbeResult) -> int:
    """Return how many may have been open when one was refused."""
    decided_s = refused.decided_s or refused.end_s or refused.sent_s
    return sum(
        1
        for each in rows
        if each.accepted and each.sent_s <= decided_s and (each.end_s is None or each.end_s >= refused.sent_s)
    )


def _waited(each: ProbeResult, rows: Sequence[ProbeResult], first_drop: float) -> bool:
    """Say whether a stream began much later than most, or had not when the first was dropped or it ended."""
    took = [one.begun_s - one.sent_s for one in rows if one.begun_s is not None and one.begun_s < first_drop]
    if not took:
        return False
    began_s = each.begun_s if each.begun_s is not None else min(first_drop, each.end_s or first_drop)
    return began_s - each.sent_s >= max(PATIENCE_S[0], LATE * median(took)) * 0.99


def _on(each: ProbeResult, at_s: float) -> bool:
    return each.end_s is None or each.end_s >= at_s


def _first_own_end(rows: Sequence[ProbeResult], after_s: float) -> float:
    """Return when an answer may have ended by itself: one was seen to, or the one dropped then would have."""
    lasted = [
        each.end_s - each.begun_s
        for each in rows
        if each.accepted and not each.cancelled and each.end_s is not None and each.begun_s is not None
    ]
    ends = [
        each.begun_s + SOON * median(lasted)
        for each in rows
        if lasted and each.end_s == after_s and each.begun_s is not None
    ]
    ends += [
        each.end_s
        for each in rows
        if each.accepted and not each.cancelled and each.end_s is not None and each.end_s > after_s
    ]
    return min(ends, default=float("inf"))
