"""Expectations for rate-limit headers, by the names and meanings in the reference."""

import re
from collections.abc import Callable
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
RESET_SLACK_S = 3.0
"""Longest time, in seconds, by which a window can begin before Date reaches Reset: Reset is rounded up, Date
is rounded down, and servers renew Date once per second."""
LIKELY_EPOCH_S = (1_000_000_000, 10_000_000_000)
"""Range of a Unix time in seconds, 2001 to 2286."""
MAX_DIGITS = 15


def whole(response: CheckResponse, name: str) -> int | None:
    """Return a header as a non-negative integer, or None."""
    value = response.headers.get(name, "").strip()
    return int(value) if re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", value) else None


def _shown(response: CheckResponse, name: str) -> str:
    return response.show(response.headers[name]) if name in response.headers else "not sent"


def server_time(response: CheckResponse) -> float:
    """Return the server's clock at its response, in Unix seconds: its Date header, or the local clock."""
    try:
        date = parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return response.ended_s
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp()


@group.about("plain", LIMIT, "an integer of 1 or more")
def _limit(response: CheckResponse) -> Verdict:
    expected = {name.lower() for name in (LIMIT, REMAINING, RESET, RETRY_AFTER)}
    names = [name.lower() for name in response.headers if "ratelimit" in name.lower()]
    others = [name for name in names if name not in expected]
    hint = f"; sent instead: {response.show(', '.join(others[:4]))}" if others else ""
    return verdict((whole(response, LIMIT) or 0) > 0, _shown(response, LIMIT) + hint)


@group.expect(
    "limit as documented",
    f"{LIMIT} is the documented request limit",
    remedy="see limits of the target in scenarios.toml",
)
def _documented(evidence: Evidence) -> Verdict:
    plain = evidence.plain
    if evidence.limit_requests is None:
        return skipped("the target documents no request limit")
    if plain is None or plain.status != 200 or (limit := whole(plain, LIMIT)) is None:
        return skipped(f"there is no {LIMIT}")
    return verdict(limit == evidence.limit_requests, f"{limit}, documented {evidence.limit_requests}")


@group.about("plain", REMAINING, f"an integer below {LIMIT}")
def _remaining(response: CheckResponse) -> Verdict:
    remaining, limit = whole(response, REMAINING), whole(response, LIMIT)
    if remaining is None:
        return broken(_shown(response, REMAINING))
    return verdict(limit is None or remaining < limit, f"{remaining} of {_shown(response, LIMIT)}")


@group.expect(
    "counts down by one",
    f"{REMAINING} falls by one with each completion",
    remedy="another client with the same key makes it fall faster",
)
def _countdown(evidence: Evidence) -> Verdict:
    completions = (evidence.plain, evidence.stream, evidence.cut)
    responses = [response for response in completions if response is not None and response.status == 200]
    steps: list[tuple[int, float]] = []
    for first, second in pairwise(responses):
        before, after = whole(first, REMAINING), whole(second, REMAINING)
        reset, next_reset = whole(first, RESET), whole(second, RESET)
        # Completions on both sides of a reset prove nothing.
        if before is None or after is None or (reset is not None and server_time(second) >= reset):
            continue
        # Date and Reset are whole seconds, so a new window can begin before Date shows it.
        moved = reset is not None and next_reset is not None and next_reset > reset
        if moved and (after > before or server_time(second) + RESET_SLACK_S >= (reset or 0)):
            continue
        steps.append((before - after, second.ended_s - first.sent_s))
    if not steps:
        return unclear("no two completions in one window to compare")
    shown = " ".join(_shown(response, REMAINING) for response in responses)
    if all(step == 1 for step, _ in steps):
        return holds(shown)
    # A longer step without a decrease is ambiguous: a token bucket can have refilled a request.
    refill_s = evidence.window_s / (evidence.limit_requests or 60)
    if any(step < 1 and span_s < refill_s for step, span_s in steps):
        return broken(shown)
    return unclear(f"{shown}: another client uses this key, or requests were refilled meanwhile")


@group.expect(RESET, "a Unix time in seconds, in the future, at most one window ahead")
def _reset(evidence: Evidence) -> Verdict:
    plain = evidence.plain
    if plain is None or plain.status != 200 or plain.failure:
        return skipped("no completion")
    reset_s = whole(plain, RESET)
    if reset_s is None:
        return broken(f"{_shown(plain, RESET)}: not an integer")
    earliest, latest = LIKELY_EPOCH_S
    if reset_s < earliest:
        return broken(f"{reset_s}: a number of seconds, not a Unix time")
    if reset_s > latest:
        return broken(f"{reset_s}: not in seconds")
    ahead_s = reset_s - server_time(plain)
    inside = -CLOCK_SLACK_S <= ahead_s <= evidence.window_s + CLOCK_SLACK_S
    return verdict(inside, f"{reset_s}, {ahead_s:.0f} s ahead of the server's clock")


@group.about("stream", "on streams too", f"{LIMIT}, {REMAINING} and {RESET} on a streamed answer")
def _on_streams(response: CheckResponse) -> Verdict:
    missing = [name for name in (LIMIT, REMAINING, RESET) if name not in response.headers]
    return broken(f"without {', '.join(missing)}") if missing else holds("all three")


@group.expect("a 429 is met", "requests above the limit are refused with 429")
def _met(evidence: Evidence) -> Verdict:
    refused = evidence.refused
    if refused is None:
        return skipped(evidence.skipped.get("refused", "no 429 was provoked"))
    after = f"after {evidence.drained} requests in {evidence.drained_s:.1f} s"
    if refused.status == 429:
        return holds(after)
    # Two windows can hold twice the limit: only a faster drain proves that there is no limit.
    if refused.status == 200 and evidence.drained_s >= evidence.window_s:
        return unclear(f"none {after}: too slow to exceed the limit")
    return broken(f"{refused.summary()} {after}")


def _on_429(name: str, expected: str) -> Callable[[Callable[[CheckResponse, Evidence], Verdict]], None]:
    """Register a function of the 429 and the evidence as an expectation."""

    def register(judge: Callable[[CheckResponse, Evidence], Verdict]) -> None:
        @group.expect(name, expected)
        def _judge(evidence: Evidence) -> Verdict:
            refused = evidence.refused
            if refused is None:
                return skipped("no 429 was provoked")
            if refused.status != 429:
                return skipped(f"no 429 came: {refused.summary()}")
            return judge(refused, evidence)

    return register


@_on_429("nothing remains", f"{REMAINING} is 0 on a 429")
def _nothing_remains(refused: CheckResponse, _: Evidence) -> Verdict:
    return verdict(whole(refused, REMAINING) == 0, _shown(refused, REMAINING))


@_on_429(RETRY_AFTER, "an integer number of seconds on a 429, at most one window")
def _retry_after(refused: CheckResponse, evidence: Evidence) -> Verdict:
    wait_s = whole(refused, RETRY_AFTER)
    good = wait_s is not None and wait_s <= evidence.window_s + CLOCK_SLACK_S
    return verdict(good, _shown(refused, RETRY_AFTER))


@_on_429("waiting helps", f"a request sent {RETRY_AFTER} seconds after a 429 succeeds")
def _waiting_helps(_: CheckResponse, evidence: Evidence) -> Verdict:
    after_wait = evidence.after_wait
    if after_wait is None:
        return skipped(evidence.skipped.get("after_wait", "no wait was reported"))
    return verdict(after_wait.status == 200, f"after {evidence.waited_s:g} s: {after_wait.summary()}")
