"""What the author of a client should do, from the findings."""

import math

from bltybench.limits.findings.model import Findings, Value
from bltybench.limits.findings.thresholds import FINDINGS
from bltybench.limits.fit.result import Fit
from bltybench.limits.fit.thresholds import EVIDENCE

BURST = {
    "fixed_window": "each window accepts {limit} requests at any pace, then refuses all others until it "
    "resets.",
    "first_hit_window": "each window accepts {limit} requests at any pace, then refuses all others until "
    "{period} after its first request.",
    "sliding_log": "at most {limit} requests. They become available again in the same burst, {period} later.",
    "sliding_counter": "none. After a full window, the server accepts only a trickle.",
    "first_hit_counter": "none. After a full window, the server accepts only a trickle.",
    "token_bucket": "at most {limit} requests, after {period} without any.",
    "whole_token_bucket": "at most {limit} requests, after {period} without any. Space others a little "
    "wider than the rate, because each accepted request discards a partly refilled token.",
    "interval_refill": "send in step with the refill. Nothing becomes available between two ticks.",
    "leaky_queue": "pace requests on the client. Faster ones queue at the server, which adds to latency and "
    "TTFT.",
}
"""Advice about bursts by family."""
STATUS: dict[int, str] = {
    503: "Status 503: treat it as a refusal. Slow down as after a 429, instead of only retrying.",
    403: "Status 403: treat it as a refusal. Wait and retry it yourself, because SDKs don't.",
}
REMAINING: dict[Value, str] = {
    "honest": "Remaining: use it to slow down in time. It is accurate.",
    "wrong": "Remaining: don't schedule by it. It is wrong.",
}
BANNED: dict[bool | None, str] = {
    True: "stop sending while you are refused, because each refusal restarts the ban.",
    None: "stop sending while you are refused, because each refusal may restart the ban.",
    False: "avoid them. All are refused until the ban ends.",
}
"""Advice about early retries, by whether each refusal restarts a ban."""
CHARGED: dict[Value, str] = {
    "reserved": " The server charges all of max_tokens, so set it no higher than you need.",
    "refunded": " The server reserves max_tokens until the response ends, so set it no higher than you need.",
}
"""Advice about max_tokens, by how tokens are charged."""
EXACT = 1 + 1e-9
"""Factor by which a computed number can miss a round one."""


def advice(findings: Findings) -> list[str]:
    """Return what a client should do. Each line begins with its topic and a colon."""
    verdict = findings.verdict
    lines = [*_pace(findings), _concurrency(findings), _tokens(findings)]
    if findings.refused_by:
        lines += [_after_refusal(findings), *map(STATUS.get, findings.refusal_statuses)]
    if verdict.best is not None and verdict.best.count_refused:
        lines.append("Early retries: avoid them. Refused requests count, so they prolong the refusals.")
    if verdict.starved_pause_s is not None:
        lines.append(
            "Early retries: stop sending while you are refused, because each retry may prolong the refusals. "
            f"Pauses of up to {seconds(verdict.starved_pause_s)} did not end them."
        )
    if verdict.ban is not None:
        lines.append(f"Early retries: {BANNED[verdict.ban.restarts]}")
    lines.append(REMAINING.get(findings.value("remaining_header")))
    # The next probe would find the same ban.
    if verdict.status == "unknown" and verdict.fits and verdict.ban is None:
        lines.append(
            "Probe again: if the limit was in use shortly before, send nothing for some minutes first. The "
            "probe can't see earlier requests."
        )
    return [line for line in lines if line is not None]


def _pace(findings: Findings) -> list[str]:
    """Return the advice about rate, bursts, and the boundary of windows."""
    verdict, best, documented = findings.verdict, findings.verdict.slowest, findings.documented_per_min
    if (ban := verdict.ban) is not None:
        return [f"Rate: {pace(ban.safe_rate_per_min)}. A refusal starts a ban."]
    if best is None:
        queued = verdict.status == "never_refused" and verdict.queue is not None
        return [f"Burst: {BURST['leaky_queue']}"] if queued else []
    slowest = best.safe_rate_per_min
    rate = f"Rate: {pace(slowest)}"
    if documented is not None and best.rate_per_min < FINDINGS.min_documented_fraction * documented:
        rate += f", not the documented {documented}"
    sure = verdict.status == "found"
    if (long := verdict.exhausted) is not None:
        rate += f", and at most {long.accepted} requests in more than {seconds(long.lasted_s)}"
    lines = [f"{rate}." if sure else f"{rate}. Every candidate limiter accepts that."]
    if slowest < best.rate_per_min:
        lines[0] += " This run does not show that more is accepted for long."
    elif _is_untested(findings, slowest):
        lines[0] += (
            f" At most {findings.busiest_count} were accepted within 60 s, so a longer limit of as many or "
            "more is possible."
        )
    kinds = {candidate.traits.kind for candidate in verdict.consistent}
    if sure or kinds == {"window"}:
        lines.append("Burst: " + BURST[best.family].format(limit=best.limit, period=seconds(best.period_s)))
    else:
        lines.append("Burst: none. It is uncertain when the server accepts more.")
    if best.also is not None:
        period = seconds(best.also.period_s)
        lines[1] = f"Burst: at most {best.also.limit} requests, and no more than these per {period}."
    elif best.seats is not None:
        lines[1] = f"Burst: at most {best.limit} requests. Others wait, which adds to latency and TTFT."
    elif best.spread:
        lines[1] = (
            "Burst: none. The server spreads requests out over each window, which adds to latency and TTFT."
        )
    elif kinds == {"window"}:
        lines.append(f"Window boundary: {boundary(best)}")
    return lines


def _is_untested(findings: Findings, rate_per_min: float) -> bool:
    """Return whether no minute of the run and no documented limit shows that this rate is accepted.

    A short limit is measured within seconds, and many APIs have one per minute in addition.
    """
    documented = findings.documented_per_min or 0
    seen = EVIDENCE.max_rate_excess * max(findings.busiest_count, documented)
    return findings.verdict.exhausted is None and rate_per_min > seen


def seconds(value: float) -> str:
    """Return ``60 s``, ``1.25 s``, or ``500 ms``."""
    if value < 0.9995:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if value < 999.5 else f"{value:,.0f} s"


def per_minute(rate: float) -> str:
    """Return ``60 requests per minute`` or ``7.5 requests per minute``."""
    return f"{rate:,.0f} requests per minute" if rate >= 99.5 else f"{rate:.3g} requests per minute"


def pace(rate_per_min: float) -> str:
    """Return ``at most 60 requests per minute, one every 1 s``, rounded to the slower side."""
    unit = 1.0 if rate_per_min >= 99.5 else _last_place(rate_per_min)
    rate = math.floor(rate_per_min / unit * EXACT) * unit
    return f"at most {per_minute(rate)}, one every {spacing(rate_per_min)}"


def spacing(rate_per_min: float) -> str:
    """Return the time between requests at a rate, rounded up."""
    spacing_s = 60 / rate_per_min
    unit = _last_place(spacing_s)
    return seconds(math.ceil(spacing_s / unit / EXACT) * unit)


def _last_place(value: float) -> float:
    """Return the unit of the last of three significant digits."""
    return float(10.0 ** (math.floor(math.log10(value)) - 2))


def boundary(best: Fit) -> str:
    """Return why more than the limit is accepted around the boundary of two windows."""
    period = seconds(best.period_s)
    return (
        f"{period} can hold the end of one window and the start of the next, so up to {2 * best.limit} "
        f"requests can be accepted within {period}. The limit is still {best.limit} per window."
    )


def _concurrency(findings: Findings) -> str | None:
    limit, slots = findings.value("concurrency_limit"), findings.in_flight
    if isinstance(limit, int | float):
        kept = findings.value("cancelled_frees_slot") is False
        more = " A canceled stream keeps its slot until it would have ended." if kept else ""
        return f"Concurrency: at most {limit:g} requests in flight.{more}"
    if slots is not None:
        return (
            f"Concurrency: at most {slots.limit} requests in flight. After a refusal, wait for one of your "
            "responses to end."
        )
    return None


def _tokens(findings: Findings) -> str | None:
    limit, period_s = findings.value("token_limit"), findings.value("token_period_s")
    charged = CHARGED.get(findings.value("tokens_charged"), "")
    if not isinstance(limit, int | float):
        return f"Tokens:{charged}" if charged else None
    within = f" per {seconds(period_s)}" if isinstance(period_s, int | float) else ", per an unknown period"
    return f"Tokens: at most {limit:,.0f}{within}.{charged}"


def _after_refusal(findings: Findings) -> str:
    """Return how to wait after a refusal, with and without a Retry-After."""
    best, enough = findings.verdict.best, findings.honesty.retry_enough
    fallback = "1 s, then twice as long each time, with random jitter"
    if best is not None:
        fallback = f"{fallback}, up to {seconds(best.period_s)}"
    elif (pause_s := findings.verdict.starved_pause_s) is not None:
        fallback = f"longer than {seconds(pause_s)} without sending, then twice as long each time"
    elif (ban := findings.verdict.ban) is not None:
        fallback = f"{seconds(ban.length_range_s[1])} without sending, until the ban has ended"
    value = findings.value("retry_after")
    if value == "absent":
        return (
            f"After a refusal: wait {fallback}. Refusals carry no Retry-After. Without a delay of your own, "
            "the openai SDK gives up after about 1.5 s and two retries."
        )
    without = f"Without one, wait {fallback}."
    if value == "too_short" or enough.count < enough.of:
        tested = f"{enough.count} of {enough.of} tested waits of that length were enough"
        return f"After a refusal: wait longer than Retry-After, with random jitter: {tested}. {without}"
    if value == "too_long":
        return (
            "After a refusal: Retry-After is safe but longer than needed. Pacing by the measured limit is "
            f"faster. {without}"
        )
    tested = {0: "no wait was tested", 1: "the only tested wait was enough"}.get(
        enough.of, f"all {enough.of} tested waits were enough"
    )
    return f"After a refusal: wait for Retry-After ({tested}). {without}"
