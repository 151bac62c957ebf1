"""Expectations on rate-limit headers, by the names and meanings of the reference."""

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
"""Whole-second headers, and the time that the answer took to come."""
LIKELY_EPOCH_S = (1_000_000_000, 10_000_000_000)
"""2001 to 2286: what a Unix time in seconds lies between."""
MAX_DIGITS = 15


def whole(answer: CheckResponse, name: str) -> int | None:
    """Return a header as a whole number of 0 or more, None if it is not one."""
    value = answer.headers.get(name, "").strip()
    return int(value) if re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", value) else None


def told(answer: CheckResponse, name: str) -> str:
    """Return what a header says, for people."""
    return answer.show(answer.headers[name]) if name in answer.headers else "not sent"


def server_time(answer: CheckResponse) -> float:
    """Return the server's clock when it answered: its Date header, else this machine's clock (Unix s)."""
    try:
        date = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return answer.ended_s
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp()


def other_dialect(answer: CheckResponse) -> str:
    """Name the rate-limit headers that were sent under other names, for the reader's orientation."""
    ours = {LIMIT.lower(), REMAINING.lower(), RESET.lower(), RETRY_AFTER.lower()}
    found = [name for name in answer.headers if "ratelimit" in name.lower() and name.lower() not in ours]
    return f"; sent instead: {answer.show(', '.join(found[:4]))}" if found else ""


@group.about("plain", LIMIT, "a whole number of 1 or more")
def limit(answer: CheckResponse) -> Verdict:
    """The limit is told."""
    found = whole(answer, LIMIT)
    return verdict(found is not None and found > 0, told(answer, LIMIT) + other_dialect(answer))


@group.expect(
    "limit as documented",
    f"{LIMIT} is the documented requests per minute",
    remedy="see limits.requests_per_min of the target in scenarios.toml",
)
def documented(evidence: Evidence) -> Verdict:
    """The limit that is told is the one that is documented."""
    answer = evidence.plain
    if evidence.limit_requests is None:
        return skipped("the target has no limits.requests_per_min")
    if answer is None or answer.status != 200 or (found := whole(answer, LIMIT)) is None:
        return skipped(f"there is no {LIMIT}")
    return verdict(found == evidence.limit_requests, f"{found}, documented {evidence.limit_requests}")


@group.about("plain", REMAINING, f"a whole number, less than {LIMIT}")
def remaining(answer: CheckResponse) -> Verdict:
    """What is left is told, this request taken off."""
    found, most = whole(answer, REMAINING), whole(answer, LIMIT)
    if found is None:
        return broken(told(answer, REMAINING))
    return verdict(most is None or found < most, f"{found} of {told(answer, LIMIT)}")


@group.expect(
    "counts down by one",
    f"{REMAINING} falls by one with each completion",
    remedy="a client that uses the same key meanwhile makes it fall faster",
)
def countdown(evidence: Evidence) -> Verdict:
    """What is left falls as it is used.

    Completions that straddle a reset tell nothing. A step of none is unclear where the time between would
    have earned a request back, as in a token bucket; a step of several, since the key may be shared.
    """
    answers = evidence.completions()
    steps: list[int] = []
    spans: list[float] = []
    for one, next_ in pairwise(answers):
        before, after = whole(one, REMAINING), whole(next_, REMAINING)
        reset = whole(one, RESET)
        if before is None or after is None or (reset is not None and server_time(next_) >= reset):
            continue
        # Date and Reset are whole seconds: a new window may have begun before Date says so.
        begun = whole(next_, RESET)
        if after > before and reset is not None and begun is not None and begun > reset:
            continue
        steps.append(before - after)
        spans.append(next_.ended_s - one.sent_s)
    if not steps:
        return unclear("there are not two completions of one window to compare")
    shown = " ".join(told(answer, REMAINING) for answer in answers)
    if all(step == 1 for step in steps):
        return holds(shown)
    earned_s = evidence.window_s / (evidence.limit_requests or 60)
    for step, span in zip(steps, spans, strict=True):
        if step < 1 and span < earned_s:
            return broken(shown)
    return unclear(f"{shown}: another client with this key, or requests earned back meanwhile")


@group.expect(RESET, "a Unix time in seconds, in the future, no further than one window")
def reset(evidence: Evidence) -> Verdict:
    """The time of the reset can be waited for."""
    answer = evidence.plain
    if answer is None or answer.status != 200 or answer.failure:
        return skipped("there is no completion")
    found = whole(answer, RESET)
    if found is None:
        return broken(f"{told(answer, RESET)}: not a whole number")
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
    """A client that only streams learns the same."""
    gone = [name for name in (LIMIT, REMAINING, RESET) if name not in answer.headers]
    return verdict(not gone, f"without {', '.join(gone)}" if gone else "all three")


def _refused(evidence: Evidence) -> CheckResponse | Verdict:
    answer = evidence.refused
    if answer is None:
        return skipped("no 429 was provoked")
    if answer.status != 429:
        return skipped(f"no 429 came: {answer.summary()}")
    return answer


@group.expect("a 429 is met", "requests beyond the limit are refused with 429")
def met(evidence: Evidence) -> Verdict:
    """The limit exists.

    Twice the limit fits into two windows, so none of it being refused proves something only where it was sent
    faster than that.
    """
    answer = evidence.refused
    if answer is None:
        return skipped(evidence.skipped.get("refused", "no 429 was provoked"))
    after = f"after {evidence.drained} requests in {evidence.drained_s:.1f} s"
    if answer.status == 429:
        return holds(after)
    if answer.status == 200 and evidence.drained_s >= evidence.window_s:
        return unclear(f"none {after}: too slow to go past the limit")
    return broken(f"{answer.summary()} {after}")


@group.expect("nothing remains", f"{REMAINING} is 0 on a 429")
def nothing_remains(evidence: Evidence) -> Verdict:
    """A refusal and the headers agree. Not so where another limit (tokens, concurrency) refused."""
    answer = _refused(evidence)
    if not isinstance(answer, CheckResponse):
        return answer
    return verdict(whole(answer, REMAINING) == 0, told(answer, REMAINING))


@group.expect(RETRY_AFTER, "a whole number of seconds on a 429, no more than one window")
def retry_after(evidence: Evidence) -> Verdict:
    """A refusal says when to come back."""
    answer = _refused(evidence)
    if not isinstance(answer, CheckResponse):
        return answer
    found = whole(answer, RETRY_AFTER)
    good = found is not None and found <= evidence.window_s + CLOCK_SLACK_S
    return verdict(good, told(answer, RETRY_AFTER))


@group.expect("waiting helps", f"a request sent {RETRY_AFTER} seconds after a 429 succeeds")
def waiting_helps(evidence: Evidence) -> Verdict:
    """The wait that is told is enough."""
    answer = _refused(evidence)
    if not isinstance(answer, CheckResponse):
        return answer
    if evidence.after_wait is None:
        return skipped(evidence.skipped.get("after_wait", "the wait was not told"))
    return verdict(
        evidence.after_wait.status == 200, f"after {evidence.waited_s:g} s: {evidence.after_wait.summary()}"
    )
