"""Compare the rate-limit headers with the decisions about an ordinary run's requests."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bltybench.limits.headers.thresholds import HEADERS
from bltybench.limits.observations.classify import classify, refusal_statuses
from bltybench.limits.observations.extract import NS, answered_ns
from bltybench.limits.observations.proportion import Proportion
from bltybench.runs.attempt import Attempt


@dataclass(frozen=True, slots=True)
class Honesty:
    """What the headers announced, compared with what happened."""

    announced_limit: int | None
    """The most frequent limit."""
    dialect: str | None
    """The most frequent header format."""
    remaining_steps: Proportion
    """Successive acceptances between which Remaining fell by exactly one."""
    retry_enough: Proportion
    """First requests after a Retry-After expired that were accepted."""
    retry_early: Proportion
    """Requests answered more than 1 s before it expired that were accepted."""
    without_retry_after: Proportion
    """Refusals without a Retry-After."""


@dataclass(frozen=True, slots=True)
class _Request:
    """An attempt with its times and its decision."""

    attempt: Attempt
    sent_ns: int
    answered_ns: int
    accepted: bool | None
    """Whether the request limit accepted it; None if that is unknown."""
    may_have_counted: bool


def honesty(attempts: Sequence[Attempt], *, undisturbed: bool = False) -> Honesty:
    """Compare headers with decisions; ``undisturbed`` uses only waits during which nothing was sent."""
    sent = _requests(attempts)
    limits = Counter(one.attempt.limit_requests for one in sent if one.attempt.limit_requests is not None)
    dialects = Counter(one.attempt.header_dialect for one in sent if one.attempt.header_dialect is not None)
    refused = [request for request in sent if request.accepted is False]
    silent = sum(request.attempt.retry_after_s is None for request in refused)
    return Honesty(
        announced_limit=limits.most_common(1)[0][0] if limits else None,
        dialect=dialects.most_common(1)[0][0] if dialects else None,
        remaining_steps=_remaining_steps(sent),
        retry_enough=_after_wait(sent, refused, undisturbed=undisturbed),
        retry_early=_before_wait_ends(sent),
        without_retry_after=Proportion(silent, len(refused)),
    )


def _requests(attempts: Sequence[Attempt]) -> list[_Request]:
    statuses = refusal_statuses(attempts)
    requests: list[_Request] = []
    for attempt in attempts:
        if attempt.sent_ns is None:
            continue
        decision = classify(attempt, statuses)
        accepted = decision.by_request_limit
        counted = accepted is True or decision.unanswered
        requests.append(_Request(attempt, attempt.sent_ns, answered_ns(attempt), accepted, counted))
    return sorted(requests, key=lambda request: request.sent_ns)


def _remaining_steps(sent: Sequence[_Request]) -> Proportion:
    count = of = 0
    for one, two in pairwise(sent):
        before, after = one.attempt.remaining_requests, two.attempt.remaining_requests
        end_ns = one.attempt.end_ns
        if not before or after is None or not end_ns <= two.sent_ns <= end_ns + HEADERS.max_step_gap_s * NS:
            continue
        if one.accepted and two.accepted and after <= before:
            of += 1
            count += before - after == 1
    return Proportion(count, of)


def _after_wait(sent: Sequence[_Request], refused: Sequence[_Request], *, undisturbed: bool) -> Proportion:
    """Test each end of a wait once, by the first request after it."""
    count = of = 0
    tested: set[int] = set()
    times = [request.sent_ns for request in sent]
    ends = sorted(request.answered_ns for request in sent)
    # Requests, also those without a response, that may have taken what the wait was for.
    taking = [request for request in sent if request.may_have_counted]
    taking_sent = [request.sent_ns for request in taking]
    taking_ends = sorted(request.answered_ns for request in taking)
    for request in refused:
        wait_s = request.attempt.retry_after_s
        if wait_s is None:
            continue
        over_ns = request.answered_ns + wait_s * NS
        after = bisect_left(times, over_ns)
        if (
            after == len(sent)
            or times[after] > over_ns + HEADERS.wait_test_s * NS
            or after in tested
            or bisect_left(taking_sent, over_ns) > bisect_right(taking_ends, request.sent_ns)
            or (undisturbed and after - bisect_right(ends, request.sent_ns) > 1)
        ):
            continue
        accepted = sent[after].accepted
        if accepted is not None:
            tested.add(after)
            of += 1
            count += accepted
    return Proportion(count, of)


def _before_wait_ends(sent: Sequence[_Request]) -> Proportion:
    """Test each wait by the next request, if even its response came before the wait ended."""
    count = of = 0
    for request, following in pairwise(sent):
        wait_s = request.attempt.retry_after_s
        if wait_s is None or request.accepted is not False:
            continue
        left_s = (request.sent_ns - following.answered_ns) / NS + wait_s
        after = following.sent_ns >= request.answered_ns
        if following.accepted is not None and after and left_s > HEADERS.wait_rounding_s:
            of += 1
            count += following.accepted
    return Proportion(count, of)
