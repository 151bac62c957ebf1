"""Concurrency limit, from the results of the concurrency experiment."""

from collections.abc import Sequence
from math import inf
from statistics import median

from bltybench.limits.experiments.concurrency_steps import CONTROL, HELD, RETRY
from bltybench.limits.experiments.results import accepted, refused, with_role
from bltybench.limits.experiments.thresholds import CONCURRENCY
from bltybench.limits.observations.answer import Answer, cannot_tell, sure
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext

LIMIT = "concurrency_limit"
"""The question that a limit answers."""
_SlotTest = tuple[bool, float] | None
"""Whether a cancellation freed the slot, and after how many seconds; None if another stream ended first."""


def analyze(results: Sequence[ProbeResult], context: ProbeContext) -> list[Answer]:
    """Return the concurrency limit, the fate of excess requests, and whether cancelling releases a slot."""
    results = sorted(results, key=lambda result: result.sent_s)
    cancels_s = sorted(
        result.end_s for result in results if result.cancelled and result.end_s and result.begun_s
    )
    first_cancel_s = cancels_s[0] if cancels_s else inf
    refusals = [result for result in refused(results) if result.sent_s < first_cancel_s]
    if not results:
        return _unknown("the budget or the request limit is too small to hold streams open")
    if any(refusal.about_tokens for refusal in refusals):
        return _unknown("the limit on tokens refused requests first")
    if refusals:
        return _refusing(results, refusals, cancels_s, context)
    queued = [result for result in with_role(results, HELD) if _was_queued(result, results, first_cancel_s)]
    if queued:
        return _queueing(results, queued, cancels_s)
    return _unlimited(results)


def _unknown(reason: str, *, least: int | None = None, evidence: Sequence[str] = ()) -> list[Answer]:
    others = [cannot_tell(question, reason) for question in ("concurrency_excess", "cancelled_frees_slot")]
    return [cannot_tell(LIMIT, reason, evidence, least=least), *others]


def _unlimited(results: Sequence[ProbeResult]) -> list[Answer]:
    open_streams = _max_open(results)
    failed = [result for result in results if result.accepted is None]
    if failed:
        codes = ", ".join(sorted({str(result.status or "no response") for result in failed}))
        return _unknown(f"{len(failed)} of {len(results)} streams failed ({codes})", least=open_streams)
    if open_streams < len(results) and any(
        not result.cancelled and not result.open for result in with_role(results, HELD)
    ):
        return _unknown(f"streams ended before more than {open_streams} were open", least=open_streams)
    reason = f"{open_streams} streams were accepted, and the budget or the request limit allowed no more"
    evidence = [f"{open_streams} streams were open concurrently"]
    return _unknown(reason, least=open_streams, evidence=evidence)


def _refusing(
    results: Sequence[ProbeResult],
    refusals: Sequence[ProbeResult],
    cancels_s: Sequence[float],
    context: ProbeContext,
) -> list[Answer]:
    low = _max_open(results)
    high = min(_max_open_at(results, refusal) for refusal in refusals)
    retries, controls = with_role(results, RETRY), with_role(results, CONTROL)
    retries_accepted, controls_accepted = accepted(retries), accepted(controls)
    controls_refused = len(refused(controls))
    named = sum(refusal.about_concurrency for refusal in refusals)
    evidence = [
        f"with {low} streams open, {len(refusals)} more were refused",
        f"after a stream was cancelled, {len(retries_accepted)} of {len(retries)} retries were accepted",
    ]
    if controls:
        evidence.append(f"{controls_refused} of {len(controls)} requests after that were refused")
    if named:
        evidence.append(f"{named} of {len(refusals)} refusals named concurrency as the reason")
    own_end_s = _first_own_end_s(results, cancels_s[0]) if cancels_s else inf
    control_was_early = any((control.decided_s or 0.0) < own_end_s for control in controls_accepted)
    slot_was_freed = any((retry.decided_s or 0.0) < own_end_s for retry in retries_accepted)
    control_was_in_time = any((control.decided_s or inf) < own_end_s for control in controls)
    request_limit_is_known = context.fits or context.never_refused
    reason = ""
    if not retries and not named:
        reason = "the experiment was cut short before a request could be retried"
    elif not retries_accepted and not named:
        reason = "refusals did not end when streams did, so another limit caused them"
    elif not named and control_was_early:
        reason = "a request was accepted although no slot was free, so another limit caused the refusals"
    elif not (slot_was_freed or named or request_limit_is_known or low == context.concurrency):
        reason = "refusals ended no sooner than streams did, so the unknown request limit may be the cause"
    elif not (control_was_in_time or named or request_limit_is_known or low == context.concurrency):
        reason = "streams ended before it was tested that no slot was free, so another limit may be the cause"
    elif low > high:
        reason = "refusals did not depend on how many streams were open"
    if reason:
        return _unknown(reason, least=low, evidence=evidence)
    votes = len(retries_accepted) + controls_refused + min(named, 2)
    confidence = sure(votes, len(controls_accepted)) / (1 + high - low)
    says = f"At most {low} requests can be in flight."
    limit = Answer(LIMIT, low, says, confidence, tuple(evidence), range=(low, high))
    says = f"Excess requests are refused with status {refusals[0].status}."
    confidence = sure(len(refusals) + len(retries_accepted))
    excess = Answer("concurrency_excess", "refused", says, confidence, (evidence[0],))
    tested_s = cancels_s[: CONCURRENCY.cancellations]
    return [limit, excess, _frees_slot([_after_refusals(results, at_s, cancels_s) for at_s in tested_s])]


def _after_refusals(results: Sequence[ProbeResult], cancel_s: float, cancels_s: Sequence[float]) -> _SlotTest:
    until_s = min((at_s for at_s in cancels_s if at_s > cancel_s), default=inf)
    own_end_s = _first_own_end_s(results, cancel_s)
    begun_s = min(_begun_s(result) for result in results if result.end_s == cancel_s)
    in_time: list[ProbeResult] = []
    for retry in with_role(results, RETRY):
        if not cancel_s < retry.sent_s < until_s:
            continue
        if retry.decided_s is not None and retry.decided_s < own_end_s:
            in_time.append(retry)
        if retry.accepted:
            break
    if not in_time:
        return None
    last, freed = in_time[-1], bool(in_time[-1].accepted)
    if freed and len(in_time) > 1 and (last.decided_s or 0.0) - begun_s > _longest_life_s(results):
        return None  # no stream has lasted that long, so it may have ended by itself
    return freed, last.sent_s - cancel_s


def _queueing(
    results: Sequence[ProbeResult], queued: Sequence[ProbeResult], cancels_s: Sequence[float]
) -> list[Answer]:
    first_cancel_s = cancels_s[0] if cancels_s else inf
    waiting = [result for result in queued if _begun_s(result) >= first_cancel_s]
    serving = sum(_begun_s(result) < first_cancel_s <= _end_s(result) for result in results)
    evidence = [f"{serving} streams had started and {len(waiting)} more were queued"]
    if len(waiting) < len(queued) or not waiting or not cancels_s:
        reason = "streams started late without a free slot: the server is slow under load"
        return _unknown(reason, least=_max_open(results), evidence=evidence)
    starts_s = [result.begun_s for result in waiting if result.begun_s is not None]
    if not starts_s:
        reason = "queued streams never started, even after others ended"
        return _unknown(reason, least=serving, evidence=evidence)
    tested_s = cancels_s[: CONCURRENCY.cancellations]
    outcomes = [_while_queueing(results, starts_s, at_s, cancels_s) for at_s in tested_s]
    own_end_s = _first_own_end_s(results, first_cancel_s)
    started_early = sum(start_s < own_end_s for start_s in starts_s)
    evidence.append(f"{started_early} of them started when a stream was cancelled")
    if started_early > sum(outcome is not None and outcome[0] for outcome in outcomes):
        reason = "more streams started than slots were freed: the server is slow under load"
        return _unknown(reason, least=_max_open(results), evidence=evidence)
    says = f"At most {serving} requests are served concurrently."
    confidence = sure(len(waiting[:2]) + len(starts_s[:2]))
    limit = Answer(LIMIT, serving, says, confidence, tuple(evidence), range=(serving, serving))
    says = "Excess requests are queued until another one ends."
    excess = Answer("concurrency_excess", "queued", says, sure(len(starts_s)), tuple(evidence))
    return [limit, excess, _frees_slot(outcomes)]


def _while_queueing(
    results: Sequence[ProbeResult], starts_s: Sequence[float], cancel_s: float, cancels_s: Sequence[float]
) -> _SlotTest:
    next_cancel_s = min((at_s for at_s in cancels_s if at_s > cancel_s), default=inf)
    until_s = min(next_cancel_s, _first_own_end_s(results, cancel_s))
    start_s = min((at_s for at_s in starts_s if cancel_s < at_s <= until_s), default=None)
    if start_s is not None:
        return True, start_s - cancel_s
    return (False, until_s - cancel_s) if until_s < inf else None


def _frees_slot(outcomes: Sequence[_SlotTest]) -> Answer:
    clear = [outcome for outcome in outcomes if outcome is not None]
    known = [(freed, after_s) for freed, after_s in clear if freed or after_s >= CONCURRENCY.min_kept_s]
    if clear and not known:
        longest_s = max(after_s for _, after_s in clear)
        reason = f"the slot was watched for only {longest_s:.2g} s after the cancellation"
        return cannot_tell("cancelled_frees_slot", reason)
    if len({freed for freed, _ in known}) != 1:
        reason = "the attempts disagree" if known else "other streams ended first"
        return cannot_tell("cancelled_frees_slot", reason)
    freed, longest_s = known[0][0], max(after_s for _, after_s in known)
    if freed:
        says = f"A cancelled stream frees its slot within {longest_s:.2g} s."
    else:
        says = f"A cancelled stream keeps its slot: it was still taken {longest_s:.2g} s later."
    evidence = (
        f"{len(known)} of {len(outcomes)} cancellations show it; the longest wait was {longest_s:.3g} s"
    )
    return Answer("cancelled_frees_slot", freed, says, sure(len(known)), (evidence,))


def _begun_s(result: ProbeResult) -> float:
    return inf if result.begun_s is None else result.begun_s


def _end_s(result: ProbeResult) -> float:
    return inf if result.end_s is None else result.end_s


def _max_open(results: Sequence[ProbeResult]) -> int:
    """Return how many streams were certainly open concurrently."""
    started = [stream for stream in accepted(results) if stream.begun_s or stream.decided_s]
    spans = [(stream.begun_s or stream.decided_s or 0.0, _end_s(stream)) for stream in started]
    return max((sum(start_s <= at_s <= end_s for start_s, end_s in spans) for at_s, _ in spans), default=0)


def _max_open_at(results: Sequence[ProbeResult], refusal: ProbeResult) -> int:
    """Return how many streams may have been open when one was refused."""
    decided_s = refusal.decided_s or refusal.end_s or refusal.sent_s
    streams = accepted(results)
    return sum(stream.sent_s <= decided_s and _end_s(stream) >= refusal.sent_s for stream in streams)


def _was_queued(result: ProbeResult, results: Sequence[ProbeResult], first_cancel_s: float) -> bool:
    """Return whether a stream started much later than most, or not before the first cancellation."""
    starts_s = [_begun_s(other) - other.sent_s for other in results if _begun_s(other) < first_cancel_s]
    if not starts_s:
        return False
    began_s = result.begun_s if result.begun_s is not None else min(first_cancel_s, result.end_s or inf)
    late_s = max(CONCURRENCY.min_patience_s, CONCURRENCY.late_start_ratio * median(starts_s))
    return began_s - result.sent_s >= CONCURRENCY.late_start_tolerance * late_s


def _longest_life_s(results: Sequence[ProbeResult]) -> float:
    """Return the longest time for which a stream was open after it had begun, in seconds."""
    return max(
        (result.end_s - result.begun_s for result in accepted(results) if result.end_s and result.begun_s),
        default=0.0,
    )


def _first_own_end_s(results: Sequence[ProbeResult], cancel_s: float) -> float:
    """Return when a slot may have been released without the cancellation at ``cancel_s``.

    Either another stream ended, or the cancelled one would have ended by then.
    """
    ended = [result for result in accepted(results) if not result.cancelled and not result.open]
    durations_s = [_end_s(result) - result.begun_s for result in ended if result.begun_s is not None]
    ends_s = [_end_s(result) for result in ended if _end_s(result) > cancel_s]
    if durations_s:
        lifetime_s = CONCURRENCY.min_lifetime_ratio * median(durations_s)
        ends_s += [_begun_s(result) + lifetime_s for result in results if result.end_s == cancel_s]
    return min(ends_s, default=inf)
