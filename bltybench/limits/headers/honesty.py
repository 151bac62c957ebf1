"""What the rate-limit headers claimed, compared with what happened."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bltybench.limits.observations.evidence import NS, Row, accepted, lost, refusal_status
from bltybench.limits.observations.proportion import Proportion


@dataclass(frozen=True, slots=True)
class Honesty:
    """What the headers said, against what happened."""

    announced_limit: int | None
    """The limit that most answers named."""
    dialect: str | None
    remaining_steps: Proportion
    """Of successive acceptances, one after the other: how often Remaining fell by exactly one."""
    retry_enough: Proportion
    """Of the first requests sent once Retry-After was over: how many were accepted."""
    retry_early: Proportion
    """Of requests answered more than a second before it was over: how many were accepted all the same."""
    without_retry_after: Proportion
    """Of the refusals: how many had none."""


def honesty(rows: Sequence[Row], *, undisturbed: bool = False) -> Honesty:
    """Compare headers and what happened. Rows are attempts in any order.

    ``undisturbed`` asks only about waits in which nothing was sent.
    """
    status = refusal_status(rows)
    sent = sorted((row for row in rows if row["sent_ns"] is not None), key=lambda row: int(row["sent_ns"]))
    limits = Counter(row["limit_requests"] for row in sent if row["limit_requests"] is not None)
    dialects = Counter(row["header_dialect"] for row in sent if row["header_dialect"] is not None)
    refused = [row for row in sent if accepted(row, status) is False]
    return Honesty(
        announced_limit=limits.most_common(1)[0][0] if limits else None,
        dialect=dialects.most_common(1)[0][0] if dialects else None,
        remaining_steps=_steps(sent, status),
        retry_enough=_after_wait(sent, refused, status, undisturbed=undisturbed),
        retry_early=_before_wait(sent, refused, status),
        without_retry_after=Proportion(sum(row["retry_after_s"] is None for row in refused), len(refused)),
    )


def _steps(sent: Sequence[Row], status: int | None) -> Proportion:
    count = of = 0
    for one, two in pairwise(sent):
        before, after = one["remaining_requests"], two["remaining_requests"]
        apart = one["end_ns"] <= two["sent_ns"] <= one["end_ns"] + 0.25 * NS
        if before is None or after is None or not apart or not before:
            continue
        if accepted(one, status) and accepted(two, status) and after <= before:
            of += 1
            count += before - after == 1
    return Proportion(count, of)


def _after_wait(
    sent: Sequence[Row], refused: Sequence[Row], status: int | None, *, undisturbed: bool
) -> Proportion:
    """Each end of a wait is asked about once, by the first request within a second after it."""
    count = of = 0
    asked: set[int] = set()
    times = [row["sent_ns"] for row in sent]
    ends = sorted(row["headers_ns"] or row["end_ns"] for row in sent)
    # Those that may have taken what the wait was for, what was lost on the way among them.
    taking = [row for row in sent if accepted(row, status) or lost(row)]
    takers = [row["sent_ns"] for row in taking]
    takers_ends = sorted(row["headers_ns"] or row["end_ns"] for row in taking)
    for row in refused:
        wait_s = row["retry_after_s"]
        if wait_s is None:
            continue
        over_ns = (row["headers_ns"] or row["end_ns"]) + wait_s * NS
        after = bisect_left(times, over_ns)
        if (
            after == len(sent)
            or times[after] > over_ns + NS
            or after in asked
            or bisect_left(takers, over_ns) > bisect_right(takers_ends, row["sent_ns"])
            or (undisturbed and after - bisect_right(ends, row["sent_ns"]) > 1)
        ):
            continue
        decided = accepted(sent[after], status)
        if decided is not None:
            asked.add(after)
            of += 1
            count += decided
    return Proportion(count, of)


def _before_wait(sent: Sequence[Row], refused: Sequence[Row], status: int | None) -> Proportion:
    """Rounding up to whole seconds makes an honest value up to one second too long.

    What was let in may have been so as late as when its answer came.
    """
    count = of = 0
    for row, following in pairwise(sent):
        wait_s = row["retry_after_s"]
        if wait_s is None or accepted(row, status) is not False:
            continue
        decided = accepted(following, status)
        left_s = (row["sent_ns"] - (following["headers_ns"] or following["end_ns"])) / NS + wait_s
        after = following["sent_ns"] >= (row["headers_ns"] or row["end_ns"])
        if decided is not None and after and left_s > 1:
            of += 1
            count += decided
    return Proportion(count, of)
