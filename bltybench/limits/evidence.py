"""From stored attempts to what the fit needs, and to what the headers claimed against what happened."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from bltybench.limits.sights import Sight
from bltybench.runs.attempt import Outcome

Row = Mapping[str, Any]

OTHER_LIMITS = ("token", "concurren")
"""In the code of a refusal: another limit than that of requests refused it."""
OVERLOAD = "overload"
"""In what a refusal says: the server was too busy, which is no limit of anyone's rate."""
STAND_INS = (503, 403)
"""What some limiters refuse with where nothing says so."""
MOST = 1200
"""Attempts of a long run that are fitted: enough to tell, and few enough to take seconds."""
NS = 1e9
LEAST_SLACK_S = 0.05


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with Wilson's 95% interval."""

    count: int
    of: int

    def interval(self) -> tuple[float, float] | None:
        """Return the interval of the share, None of nothing."""
        if not self.of:
            return None
        z, p = 1.96, self.count / self.of
        middle = (p + z * z / (2 * self.of)) / (1 + z * z / self.of)
        half = z / (1 + z * z / self.of) * math.sqrt(p * (1 - p) / self.of + z * z / (4 * self.of**2))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class Honesty:
    """What the headers said, against what happened."""

    announced_limit: int | None
    """The limit that most answers named."""
    dialect: str | None
    remaining_steps: Share
    """Of successive acceptances, one after the other: how often Remaining fell by exactly one."""
    retry_enough: Share
    """Of the first requests sent once Retry-After was over: how many were accepted."""
    retry_early: Share
    """Of requests answered more than a second before it was over: how many were accepted all the same."""
    without_retry_after: Share
    """Of the refusals: how many had none."""


def refusal_status(rows: Sequence[Row]) -> int | None:
    """Return the status that requests are refused with for their rate; None where none was."""
    rows = [row for row in rows if not _overloaded(row)]
    known = Counter(row["status"] for row in rows if row["outcome"] == Outcome.RATE_LIMITED)
    if known:
        return int(known.most_common(1)[0][0])
    answered = Counter(row["status"] for row in rows if row["status"] in STAND_INS)
    if not answered or not any(row["outcome"] == Outcome.OK for row in rows):
        return None
    return int(answered.most_common(1)[0][0])


def sights_of(rows: Sequence[Row], start_s: float = 0.0) -> list[Sight]:
    """Return what attempts say of the limit of requests; ``start_s`` is the run's start in Unix time."""
    return [sight for _, sight in seen(rows, start_s)]


def seen(rows: Sequence[Row], start_s: float = 0.0) -> list[tuple[Row, Sight]]:
    """Return the attempts that say something of the limit of requests, each with what it says.

    Left out: what was never sent, what the client got wrong, and what another limit, a bill or overload
    refused.
    """
    status = refusal_status(rows)
    slack_s = _slack_s(rows, status)
    found: list[tuple[Row, Sight]] = []
    for row in rows:
        if row["sent_ns"] is None:
            continue
        decided = accepted(row, status)
        if decided is None and not _lost(row):
            continue
        sent_s = row["sent_ns"] / NS
        answered_s = seen_s = (row["headers_ns"] or row["end_ns"]) / NS
        if decided:
            # It is decided on admission, and a plain answer's headers come when all of it is ready.
            seen_s = min(seen_s, sent_s + slack_s)
        found.append((row, Sight(start_s + sent_s, start_s + seen_s, decided, start_s + answered_s)))
    return found


def accepted(row: Row, status: int | None) -> bool | None:
    """Return whether the limit of requests let an attempt in; None where that cannot be said."""
    outcome = row["outcome"]
    refused = outcome == Outcome.RATE_LIMITED or (status in STAND_INS and row["status"] == status)
    if _overloaded(row):
        return None
    if refused:
        said = f"{row['error_code']} {row['error_type']}".lower()
        return None if any(word in said for word in OTHER_LIMITS) else False
    if outcome == Outcome.CLIENT_ERROR or row["status"] is None:
        return None
    return True


def _overloaded(row: Row) -> bool:
    if row["outcome"] == Outcome.OK:
        return False
    said = f"{row['error_code']} {row['error_type']} {row.get('error_message')}"
    return OVERLOAD in said.lower()


def _lost(row: Row) -> bool:
    return row["status"] is None and row["sent_ns"] is not None


def _slack_s(rows: Sequence[Row], status: int | None) -> float:
    """Return how long after sending a request is surely decided on: twice what most refusals took."""
    took = sorted(
        ((row["headers_ns"] or row["end_ns"]) - row["sent_ns"]) / NS
        for row in rows
        if row["sent_ns"] is not None and accepted(row, status) is False
    )
    return max(LEAST_SLACK_S, 2 * took[int(0.9 * (len(took) - 1))]) if took else math.inf


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
        without_retry_after=Share(sum(row["retry_after_s"] is None for row in refused), len(refused)),
    )


def _steps(sent: Sequence[Row], status: int | None) -> Share:
    count = of = 0
    for one, two in pairwise(sent):
        before, after = one["remaining_requests"], two["remaining_requests"]
        apart = one["end_ns"] <= two["sent_ns"] <= one["end_ns"] + 0.25 * NS
        if before is None or after is None or not apart or not before:
            continue
        if accepted(one, status) and accepted(two, status) and after <= before:
            of += 1
            count += before - after == 1
    return Share(count, of)


def _after_wait(
    sent: Sequence[Row], refused: Sequence[Row], status: int | None, *, undisturbed: bool
) -> Share:
    """Each end of a wait is asked about once, by the first request within a second after it."""
    count = of = 0
    asked: set[int] = set()
    times = [row["sent_ns"] for row in sent]
    ends = sorted(row["headers_ns"] or row["end_ns"] for row in sent)
    # Those that may have taken what the wait was for, what was lost on the way among them.
    taking = [row for row in sent if accepted(row, status) or _lost(row)]
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
    return Share(count, of)


def _before_wait(sent: Sequence[Row], refused: Sequence[Row], status: int | None) -> Share:
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
    return Share(count, of)


def busiest(sights: Sequence[Sight], period_s: float = 60.0) -> tuple[int, float]:
    """Return the most that was accepted within a period, and when (Unix time of the first of them)."""
    times = sorted(sight.sent_s for sight in sights if sight.accepted)
    best, at_s, first = 0, times[0] if times else 0.0, 0
    for last, t in enumerate(times):
        while t - times[first] >= period_s:
            first += 1
        if last - first + 1 > best:
            best, at_s = last - first + 1, times[first]
    return best, at_s


def stretch(sights: Sequence[Sight], most: int = MOST) -> list[Sight]:
    """Return at most ``most`` successive sights: those among which refusals ended most often."""
    rows = sorted(sights, key=lambda sight: sight.sent_s)
    if len(rows) <= most:
        return rows
    ends = [0, *accumulate(one.accepted is False and bool(two.accepted) for one, two in pairwise(rows))]
    within = [ends[start + most - 1] - ends[start] for start in range(len(rows) - most + 1)]
    start = within.index(max(within))
    return rows[start : start + most]
