"""What was found, in sentences, and what a client's author should do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bltybench.limits.fit.in_flight import ConcurrencyFit
from bltybench.limits.fit.queueing import QueueTiming
from bltybench.limits.fit.result import ANY_LIMIT_FITS, Fit
from bltybench.limits.observations.proportion import Proportion

if TYPE_CHECKING:
    from bltybench.limits.findings.conclude import Findings

NAMES = {
    "fixed_window": "fixed window",
    "first_hit_window": "fixed window that begins with its first request",
    "sliding_log": "sliding window (log)",
    "sliding_counter": "weighted sliding counter",
    "first_hit_counter": "weighted sliding counter that begins with its first request",
    "token_bucket": "token bucket",
    "interval_refill": "bucket refilled in lumps",
    "leaky_queue": "leaky queue that lets requests wait their turn",
}

WAITING = {
    "fixed_window": "After a refusal wait for the window to turn: nothing is let in before, then all.",
    "first_hit_window": "After a refusal wait one period from your first request; then all is free.",
    "sliding_log": "Spread requests evenly: a burst comes back as a burst, one period later.",
    "sliding_counter": "Spread requests evenly: after a full window only a trickle is let in.",
    "first_hit_counter": "Spread requests evenly: after a full window only a trickle is let in.",
    "token_bucket": "Send at the rate, and burst no more than the bucket holds.",
    "interval_refill": "Send in step with the refill: between two ticks nothing comes back.",
    "leaky_queue": "Pace requests yourself: what comes faster waits there, which your latency and TTFT hold.",
}
WITH_COUNTS = {"limit_header", "retry_after"}
"""Answers that have sentences with counts of their own."""
SHORT_OF = 0.95
"""Of the documented rate: less than this observed is worth a word."""


def sentences(found: Findings) -> list[str]:
    """Say what was found."""
    verdict, best = found.verdict, found.verdict.best
    lines: list[str] = []
    if verdict.status == "never_refused":
        lines.append(
            f"At least {found.busiest_count} requests within 60 s are let in: {verdict.reason}, so "
            "the limit, if there is one, is higher."
        )
        if verdict.queue is not None:
            lines.append(f"But requests wait their turn: {_spaced(verdict.queue)}.")
    elif best is None and found.in_flight is not None:
        lines.append(_slots(found.in_flight))
        if verdict.reason == ANY_LIMIT_FITS:
            lines.append(f"It may as well be a limit of the rate: {ANY_LIMIT_FITS}.")
    elif best is None:
        if verdict.status != "nothing_sent" or not found.answers:
            lines.append(f"Cannot tell: {verdict.reason}.")
    elif verdict.status == "ambiguous" and len(verdict.families) == 1:
        lines.append(f"Perhaps a {NAMES[best.family]}: {described(best)} Cannot tell: {verdict.reason}.")
    elif verdict.status == "ambiguous":
        names = " or a ".join(NAMES[family] for family in verdict.families)
        lines.append(f"Cannot tell whether it is a {names}. If it is the first: {described(best)}")
    else:
        lines.append(f"A {NAMES[best.family]}: {described(best)}")
    if best is not None and found.in_flight is not None:
        lines.append(f"It may as well be another limit. {_slots(found.in_flight)}")
    lines += _against_documented(found) + _headers(found)
    return lines + [each.says for each in found.answers if each.question not in WITH_COUNTS]


def advice(found: Findings) -> list[str]:
    """Say what a client should do, given what was found."""
    verdict, best = found.verdict, found.verdict.best
    lines: list[str] = []
    if best is not None:
        documented = found.documented_per_min
        if documented is not None and best.rate_per_min < SHORT_OF * documented:
            lines.append(f"Plan with {best.rate_per_min:.4g} a minute, not with the {documented} documented.")
        if verdict.status == "found":
            lines.append(WAITING[best.family])
        else:
            slowest = min(each.rate_per_min for each in verdict.consistent)
            lines.append(f"Send evenly, at most {slowest:.4g} a minute: all that it may be lets that in.")
        if best.count_refused:
            lines.append("Do not retry early: refused requests count, so hammering keeps you out.")
    if verdict.status == "unknown" and verdict.fits:
        lines.append(
            "If the limit was in use shortly before, leave it alone for some minutes and ask again: what was "
            "sent before cannot be seen."
        )
    if verdict.status == "never_refused" and verdict.queue is not None:
        lines.append(WAITING["leaky_queue"])
    if found.in_flight is not None:
        most = found.in_flight.limit
        lines.append(f"Keep at most {most} in flight: after a refusal wait until an answer of yours ends.")
    if verdict.refused:
        lines += _retrying(found)
    remaining = found.value("remaining_header")
    if remaining == "honest":
        lines.append("Remaining can be used to slow down in time: it is what is left.")
    elif remaining == "wrong":
        lines.append("Do not schedule by Remaining: it is not what is left.")
    return lines


def _retrying(found: Findings) -> list[str]:
    told, lines = found.value("retry_after"), []
    if told == "absent":
        lines.append(
            "Bring a wait of your own: refusals name no Retry-After, and without one the openai SDK's two "
            "retries are over after about 1.5 s."
        )
    elif told == "too_short" or found.honesty.retry_enough.count < found.honesty.retry_enough.of:
        lines.append(
            "Wait longer than Retry-After says, by a growing and random share: it was not always enough."
        )
    elif told == "too_long":
        lines.append(
            "Obeying Retry-After is safe but waits longer than needed: pacing by the limit found is faster."
        )
    elif told == "honest":
        lines.append("Obey Retry-After: waiting so long was enough each time.")
    if found.refusal_status == 503:
        lines.append("Take a 503 for a refusal: slow down, as after a 429, and do not only try again.")
    elif found.refusal_status == 403:
        lines.append("Take a 403 for a refusal: wait and retry it yourself, for SDKs do not.")
    return lines


def _against_documented(found: Findings) -> list[str]:
    documented = found.documented_per_min
    if documented is None or found.busiest_count <= documented:
        return []
    when = datetime.fromtimestamp(found.busiest_at_s, UTC)
    line = f"Documented {documented} a minute; {found.busiest_count} accepted within 60 s at {when:%H:%M:%S}"
    kept = [NAMES[family] for family in found.verdict.families]
    broken = [
        NAMES[each.family]
        for each in found.verdict.fits
        if each.family not in found.verdict.families
        and each.family == "sliding_log"
        and not each.count_refused
    ]
    if kept:
        line += f"; consistent with a {' or a '.join(kept)}"
        line += f", not with a {broken[0]}" if broken else ""
    return [line + "."]


def _headers(found: Findings) -> list[str]:
    told, best = found.honesty, found.verdict.best
    lines: list[str] = []
    announced = told.announced_limit
    if announced is not None and best is not None:
        least, most = best.limit_range
        if not least <= announced <= most:
            lines.append(f"The headers announce a limit of {announced}; {best.limit} was observed.")
    if told.without_retry_after.count:
        lines.append(f"{_words(told.without_retry_after)} refusals had no Retry-After that can be read.")
    if told.retry_enough.of:
        lines.append(f"Waiting as long as Retry-After said was enough in {_words(told.retry_enough)} cases.")
    if found.value("retry_after") == "too_long":
        lines.append(
            f"Retry-After was more than needed: {_words(told.retry_early)} requests answered over a "
            "second before its end were accepted."
        )
    return lines


def described(best: Fit) -> str:
    """Return the parameters of a fit as a sentence's end."""
    if best.family == "token_bucket":
        return f"{best.rate_per_min:.4g} a minute, bursts of up to {best.limit}."
    if best.family == "leaky_queue":
        at_once = f", {best.free + 1} at once" if best.free else ""
        return (
            f"{best.rate_per_min:.4g} a minute are served, one each {best.period_s / best.limit:.4g} s"
            f"{at_once}; up to {best.limit - 1} wait, and more are refused."
        )
    aligned = {"clock": ", aligned to the clock", "other": ", not aligned to the clock"}.get(
        best.phase or "", ""
    )
    refused = ", refused requests count too" if best.count_refused else ""
    width = best.precision
    around = f" (within {_percent(width)})" if width >= 0.0005 else ""
    lumps = f", in {best.ticks} lumps" if best.ticks else ""
    return f"{best.limit} in {best.period_s:.4g} s{around}{lumps}{aligned}{refused}."


def _spaced(held: QueueTiming) -> str:
    return (
        f"one is served each {held.interval_s:.4g} s ({held.rate_per_min:.4g} a minute), and {held.held} of "
        f"{held.answers} waited, up to {held.longest_wait_s:.2g} s"
    )


def _words(value: Proportion) -> str:
    return f"{value.count} of {value.of}"


def _slots(slots: ConcurrencyFit) -> str:
    least, most = slots.limit_range
    said = f"{least}" if least == most else f"{least} to {most}"
    explained = slots.decisions - slots.contradictions
    return f"At most {said} in flight at a time: that explains {explained} of {slots.decisions} decisions."


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.1g}%"
