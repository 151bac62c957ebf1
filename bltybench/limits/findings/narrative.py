"""Describe the findings in sentences."""

from datetime import UTC, datetime

from bltybench.limits.findings.advice import advice, seconds
from bltybench.limits.findings.model import Findings
from bltybench.limits.findings.replay import replay_sentence
from bltybench.limits.findings.thresholds import FINDINGS
from bltybench.limits.fit.evidence import FEW_RECOVERIES, RATE_IS_OPEN
from bltybench.limits.fit.in_flight import ConcurrencyFit
from bltybench.limits.fit.result import ANY_LIMIT_FITS, Fit, Verdict
from bltybench.limits.models.families import with_article
from bltybench.limits.observations.classify import LIMIT_NAMES, REQUEST_REFUSALS
from bltybench.limits.observations.proportion import Proportion

WITH_COUNTS = {"limit_header", "retry_after"}
"""Questions that have a sentence with counts here."""


def summary(findings: Findings) -> list[str]:
    """Return all sentences: what was found, then the advice."""
    return [*sentences(findings), *advice(findings)]


def sentences(findings: Findings) -> list[str]:
    """Return what was found."""
    lines = [*_request_limit(findings), *_full(findings), *_waits(findings), *_refusals(findings)]
    lines += [*_above_documented(findings), *_headers(findings)]
    return lines + [answer.says for answer in findings.answers if answer.question not in WITH_COUNTS]


def _request_limit(findings: Findings) -> list[str]:
    verdict, best, slots = findings.verdict, findings.verdict.best, findings.in_flight
    if best is not None:
        names = " or ".join(map(with_article, verdict.families))
        if verdict.status != "ambiguous":
            line = f"The limiter is {names}: {described(best)}"
        elif len(verdict.families) == 1:
            line = f"The limiter may be {names}: {described(best)} It can't be confirmed: {verdict.reason}."
        else:
            line = f"The limiter is {names}; this run can't distinguish them. If it is the first: "
            line += described(best)
        if best.also is not None:
            line = _two_limits(best, best.also, verdict.refused)
        other = [] if slots is None else [f"Another limit fits as well. {_concurrency(slots)}"]
        replayed = findings.replayed if verdict.status == "found" else None
        same = [] if replayed is None else [replay_sentence(replayed)]
        return [line, *same, *_exhausted(verdict), *other]
    if verdict.status == "never_refused":
        why = "only other limits refused" if findings.refused_by else verdict.reason
        lines = [
            f"At least {findings.busiest_count} requests are accepted within 60 s: {why}, so any "
            f"{'request ' if findings.refused_by else ''}limit is higher."
        ]
        queue = verdict.queue
        if queue is not None:
            lines.append(
                f"Requests are queued: the server serves one per {queue.interval_s:.4g} s "
                f"({queue.rate_per_min:.4g} per minute). {queue.held} of {queue.answers} responses were "
                f"delayed, by up to {queue.longest_wait_s:.2g} s."
            )
        return lines
    if slots is not None:
        rate_fits = verdict.reason.startswith((ANY_LIMIT_FITS, RATE_IS_OPEN, FEW_RECOVERIES))
        other = [f"It could also be a rate limit: {verdict.reason}."] if rate_fits else []
        return [_concurrency(slots), *other]
    if (ban := verdict.ban) is not None:
        restarts = ", and each further refusal restarts it" if ban.restarts else ""
        same = [] if findings.replayed is None else [replay_sentence(findings.replayed)]
        return [
            f"A refusal starts {ban.described()}{restarts}. Outside bans, the server accepts "
            f"{ban.described_limit()}.",
            *same,
        ]
    if verdict.status == "nothing_sent" and findings.answers:
        return []
    return [f"The request limit is unknown: {verdict.reason}."]


def _exhausted(verdict: Verdict) -> list[str]:
    """Return what a longer limit refused."""
    long = verdict.exhausted
    if long is None:
        return []
    return [
        f"A longer limit refused too: this one does not explain the last {long.refused} refusals, for "
        f"{seconds(long.lasted_s)} after {long.accepted} requests were accepted within "
        f"{seconds(long.within_s)}. When it ends is unknown."
    ]


def _full(findings: Findings) -> list[str]:
    """Return which refusals the measured limit on requests in flight explains."""
    if not findings.full_refusals:
        return []
    return [
        f"{findings.full_refusals} refusals came while as many requests were in flight as are allowed. They "
        "say nothing about the request limit."
    ]


def _two_limits(first: Fit, second: Fit, refused: int) -> str:
    """Return both limits, and how many refusals came from which."""
    either = refused - (first.refusals or 0) - (second.refusals or 0)
    return (
        f"A request has to fit two limits. The first is {with_article(first.family)}: {described(first)} The "
        f"second is {with_article(second.family)}: {described(second)} Of {refused} refusals, "
        f"{first.refusals} came from the first alone, {second.refusals} from the second alone, and {either} "
        "can be by either."
    )


def _waits(findings: Findings) -> list[str]:
    """Return how long accepted requests waited, unless the sentence on the limit says why."""
    waits = findings.waits
    if waits is None or findings.verdict.explains_waits:
        return []
    return [
        f"{waits.waited} of {waits.accepted} accepted requests waited, up to {waits.longest_s:.2g} s (usual: "
        f"{waits.usual_s:.2g} s): the server may delay requests before it refuses any."
    ]


def _refusals(findings: Findings) -> list[str]:
    """Return which limits refused, if any but the request limit did, and with which statuses, if several."""
    lines: list[str] = []
    if findings.refused_by.keys() - REQUEST_REFUSALS:
        counts = ", ".join(f"{LIMIT_NAMES[limit]} {count}" for limit, count in findings.refused_by.items())
        lines.append(f"Refusals by the limit that the server names: {counts}.")
    if len(findings.refusal_statuses) > 1:
        counts = ", ".join(f"{count} with {status}" for status, count in findings.refusal_statuses.items())
        lines.append(f"Refusals have several statuses: {counts}.")
    return lines


def _above_documented(findings: Findings) -> list[str]:
    documented, verdict = findings.documented_per_min, findings.verdict
    if documented is None or findings.busiest_count <= documented:
        return []
    when = datetime.fromtimestamp(findings.busiest_at_s, UTC)
    line = f"Documented: {documented} per minute. Accepted: {findings.busiest_count} within 60 s at "
    line += f"{when:%H:%M:%S} UTC"
    if verdict.families:
        line += f"; consistent with {' or '.join(map(with_article, verdict.families))}"
        if "sliding_log" not in verdict.families and any(
            candidate.family == "sliding_log" and not candidate.count_refused for candidate in verdict.fits
        ):
            line += f", not with {with_article('sliding_log')}"
    return [line + "."]


def _headers(findings: Findings) -> list[str]:
    honesty, best = findings.honesty, findings.verdict.best
    announced = honesty.announced_limit
    lines: list[str] = []
    if announced is not None and best is not None:
        low, high = best.limit_range
        if not low <= announced <= high:
            lines.append(f"The headers announce a limit of {announced}; the measured limit is {best.limit}.")
    if honesty.without_retry_after.count:
        lines.append(f"{_of(honesty.without_retry_after)} refusals had no readable Retry-After.")
    if honesty.retry_enough.of:
        lines.append(f"Waiting for Retry-After was enough in {_of(honesty.retry_enough)} tested waits.")
    if findings.value("retry_after") == "too_long":
        lines.append(
            f"Retry-After was longer than needed: the server accepted {_of(honesty.retry_early)} requests "
            "more than 1 s before it expired."
        )
    return lines


def described(best: Fit) -> str:
    """Return the parameters of a fit, as the end of a sentence."""
    if best.traits.refills_singly:
        return f"{best.rate_per_min:.4g} requests per minute, with bursts of up to {best.limit}."
    if best.family == "leaky_queue":
        immediately = f", {best.free + 1} of them immediately" if best.free else ""
        return (
            f"it serves {best.rate_per_min:.4g} requests per minute, one per "
            f"{best.period_s / best.limit:.4g} s{immediately}. Up to {best.limit - 1} wait; it refuses more."
        )
    around = f" (within {_percent(best.precision)})" if best.precision >= FINDINGS.min_precision else ""
    ticks = f", in {best.ticks} ticks" if best.ticks else ""
    aligned = {
        "clock": ", aligned to the clock",
        "first_hit": ", starting at the first request",
        "other": ", not aligned to the clock",
    }
    refused = ". Refused requests count too" if best.count_refused else ""
    if best.spread:
        refused += ". It delays all except the first, so that they are spread out over the window"
    if best.seats is not None:
        refused += f". At least {best.seats} more wait until they fit; it refuses others"
    return (
        f"{best.limit} requests per {best.period_s:.4g} s{around}{ticks}{aligned.get(best.phase or '', '')}"
        f"{refused}."
    )


def _concurrency(slots: ConcurrencyFit) -> str:
    low, high = slots.limit_range
    limit = f"{low}" if low == high else f"{low} to {high}"
    return f"At most {limit} requests in flight: that explains {slots.explained} of {slots.refused} refusals."


def _of(value: Proportion) -> str:
    return f"{value.count} of {value.of}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}%" if fraction >= 0.1 else f"{100 * fraction:.1g}%"
