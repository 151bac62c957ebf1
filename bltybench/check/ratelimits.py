"""Expectations for rate-limit headers, by the names and meanings in the reference."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import pairwise

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import Evidence
from bltybench.check.judge import Group, Verdict, broken, holds, skipped, unclear, verdict

group = Group("rate limits")

LIMIT = "X-RateLimit-Limit"
REMAINING = "X-RateLimit-Remaining"
RESET = "X-RateLimit-Reset"
RETRY_AFTER = "Retry-After"

CLOCK_SLACK_S = 2.0
"""Tolerance in seconds: whole-second headers, plus the time the response took."""
LIKELY_EPOCH_S = (1_000_000_000, 10_000_000_000)
"""Range of a Unix time in seconds, 2001 to 2286."""
MAX_DIGITS = 15


def whole(answer: CheckResponse, name: str) -> int | None:
    """Return a header as a non-negative integer, or None."""
    value = answer.headers.get(name, "").strip()
    return int(value) if re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", value) else None


def told(answer: CheckResponse, name: str) -> str:
    """Return a header's value for display."""
    return answer.show(answer.headers[name]) if name in answer.headers else "not sent"


def server_time(answer: CheckResponse) -> float:
    """Return the server's clock at its response, in Unix seconds: its Date header, or the local clock."""
    try:
        date = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return answer.ended_s
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp()


def other_dialect(answer: CheckResponse) -> str:
    """Return the rate-limit headers that were sent under other names, as a hint."""
    ours = {LIMIT.lower(), REMAINING.lower(), RESET.lower(), RETRY_AFTER.lower()}
    found = [name for name in answer.headers if "ratelimit" in name.lower() and name.lower() not in ours]
    return f"; sent instead: {answer.show(', '.join(found[:4]))}" if found else ""


@group.about("plain", LIMIT, "an integer of 1 or more")
def limit(answer: CheckResponse) -> Verdict:
    """Check that the limit is reported."""
    found = whole(answer, LIMIT)
    return verdict(found is not None and found > 0, told(answer, LIMIT) + other_dialect(answer))


@group.expect(
    "limit as documented",
    f"{LIMIT} is the documented requests per minute",
    remedy="see limits.requests_per_min of the target in scenarios.toml",
)
def documented(evidence: Evidence) -> Verdict:
    """Check that the reported limit is the documented one."""
    answer = evidence.plain
    if evidence.limit_requests is None:
        return skipped("the target has no limits.requests_per_min")
    if answer is None or answer.status != 200 or (found := whole(answer, LIMIT)) is None:
        return skipped(f"there is no {LIMIT}")
    return verdict(found == evidence.limit_requests, f"{found}, documented {evidence.limit_requests}")


@group.about("plain", REMAINING, f"an integer below {LIMIT}")
def remaining(answer: CheckResponse) -> Verdict:
    """Check that the remaining quota is reported, with this request deducted."""
    found, most = whole(answer, REMAINING), whole(answer, LIMIT)
    if found is None:
        return broken(told(answer, REMAINING))
    return verdict(most is None or found < most, f"{found} of {told(answer, LIMIT)}")


@group.expect(
    "counts down by one",
    f"{REMAINING} falls by one with each completion",
    remedy="another client with the same key makes it fall faster",
)
def countdown(evidence: Evidence) -> Verdict:
    """Check that the remaining quota falls with use.

    Completions on both sides of a reset prove nothing. A step of 0 is ambiguous if a request could have been
    refilled meanwhile, as in a token bucket. A step of several is ambiguous because the key may be shared.
    """
    answers = evidence.completions()
    steps: list[int] = []
    spans: list[float] = []
    for one, next_ in pairwise(answers):
        before, after = whole(one, REMAINING), whole(next_, REMAINING)
        reset = whole(one, RESET)
        if before is None or after is None or (reset is not None and server_time(next_) >= reset):
            continue
        # Date and Reset are whole seconds, so a new window can begin before Date shows it.
        begun = whole(next_, RESET)
        if after > before and reset is not None and begun is not None and begun > reset:
            continue
        steps.append(before - after)
        spans.append(next_.ended_s - one.sent_s)
    if not steps:
        return unclear("no two completions in one window to compare")
    shown = " ".join(told(answer, REMAINING) for answer in answers)
    if all(step == 1 for step in steps):
        return holds(shown)
    earned_s = evidence.window_s / (evidence.limit_requests or 60)
    for step, span in zip(steps, spans, strict=True):
        if step < 1 and span < earned_s:
            return broken(shown)
    return unclear(f"{shown}: another client uses this key, or requests were refilled meanwhile")


@group.expect(RESET, "a Unix time in seconds, in the future, at most one window ahead")
def reset(evidence: Evidence) -> Verdict:
    """Check that a client can wait for the reset."""
    answer = evidence.plain
    if answer is None or answer.status != 200 or answer.failure:
        return skipped("no completion")
    found = whole(answer, RESET)
    if found is None:
        return broken(f"{told(answer, RESET)}: not an integer")
    least, most = LIKELY_EPOCH_S
    if found < least:
        return broken(f"{found}: a number of seconds, not a Unix time")
    if found > most:
        return broken(f"{found}: not in seconds")
    ahead_s = found - server_time(answer)
    inside = -CLOCK_SLACK_S <= ahead_s <= evidence.window_s + CLOCK_SLACK_S
    return verdict(inside, f"{found}, {ahead_s:.0f} s ahead of the server's clock")


@group.about("stream", "on streams too", f"{LIMIT}, {REMAINING} and {RESET} on a streamed answer")
def on_streams(answer: CheckResponse) -> Verdict:
    """Check that streams carry the same headers."""
    gone = [name for name in (LIMIT, REMAINING, RESET) if name not in answer.headers]
    return verdict(not gone, f"without {', '.join(gone)}" if gone else "all three")


def _refused(evidence: Evidence) -> CheckResponse | Verdict:
    answer = evidence.refused
    if answer is None:
        return skipped("no 429 was provoked")
    if answer.status != 429:
        return skipped(f"no 429 came: {answer.summary()}")
    return answer


@group.expect("a 429 is met", "requests above the limit are refused with 429")
def met(evidence: Evidence) -> Verdict:
    """Check that the limit exists.

    Two windows can hold twice the limit, so the absence of refusals proves something only if the requests
    were sent faster than that.
    """
    answer = evidence.refused
    if answer is None:
        return skipped(evidence.skipped.get("refused", "no 429 was provoked"))
    after = f"after {evidence.drained} requests in {evidence.drained_s:.1f} s"
    if answer.status == 429:
        return holds(after)
    if answer.status == 200 and evidence.drained_s >= evidence.window_s:
        return unclear(f"none {after}: too slow to exceed the limit")
    return broken(f"{answer.summary()} {after}")


@group.expect("nothing remains", f"{REMAINING} is 0 on a 429")
def nothing_remains(evidence: Evidence) -> Verdict:
    """Check that a refusal and the headers agree. They need not if another limit (tokens, concurrency)
    refused."""
    answer = _refused(evidence)
    if not isinstance(answer, CheckResponse):
        return answer
    return verdict(whole(answer, REMAINING) == 0, told(answer, REMAINING))


@group.expect(RETRY_AFTER, "an integer number of seconds on a 429, at most one window")
def retry_after(evidence: Evidence) -> Verdict:
    """Check that a refusal reports a wait."""
    answer = _refused(evidence)
    if not isinstance(answer, CheckResponse):
        return answer
    found = whole(answer, RETRY_AFTER)
    good = found is not None and found <= evidence.window_s + CLOCK_SLACK_S
    return verdict(good, told(answer, RETRY_AFTER))


@group.expect("waiting helps", f"a request sent {RETRY_AFTER} seconds after a 429 succeeds")
def waiting_helps(evidence: Evidence) -> Verdict:
    """Check that the reported wait is long enough."""
    answer = _refused(evidence)
    if not isinstance(answer, CheckResponse):
        return answer
    if evidence.after_wait is None:
        return skipped(evidence.skipped.get("after_wait", "no wait was reported"))
    return verdict(
        evidence.after_wait.status == 200, f"after {evidence.waited_s:g} s: {evidence.after_wait.summary()}"
    )
