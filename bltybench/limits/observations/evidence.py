"""From stored attempts to what the fit needs, and to what the headers claimed against what happened."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from bltybench.limits.observations.observation import Observation
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


def sights_of(rows: Sequence[Row], start_s: float = 0.0) -> list[Observation]:
    """Return what attempts say of the limit of requests; ``start_s`` is the run's start in Unix time."""
    return [sight for _, sight in seen(rows, start_s)]


def seen(rows: Sequence[Row], start_s: float = 0.0) -> list[tuple[Row, Observation]]:
    """Return the attempts that say something of the limit of requests, each with what it says.

    Left out: what was never sent, what the client got wrong, and what another limit, a bill or overload
    refused.
    """
    status = refusal_status(rows)
    slack_s = _slack_s(rows, status)
    found: list[tuple[Row, Observation]] = []
    for row in rows:
        if row["sent_ns"] is None:
            continue
        decided = accepted(row, status)
        if decided is None and not lost(row):
            continue
        sent_s = row["sent_ns"] / NS
        answered_s = seen_s = (row["headers_ns"] or row["end_ns"]) / NS
        if decided:
            # It is decided on admission, and a plain answer's headers come when all of it is ready.
            seen_s = min(seen_s, sent_s + slack_s)
        found.append((row, Observation(start_s + sent_s, start_s + seen_s, decided, start_s + answered_s)))
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


def lost(row: Row) -> bool:
    """Return whether an attempt was sent and never answered."""
    return row["status"] is None and row["sent_ns"] is not None


def _slack_s(rows: Sequence[Row], status: int | None) -> float:
    """Return how long after sending a request is surely decided on: twice what most refusals took."""
    took = sorted(
        ((row["headers_ns"] or row["end_ns"]) - row["sent_ns"]) / NS
        for row in rows
        if row["sent_ns"] is not None and accepted(row, status) is False
    )
    return max(LEAST_SLACK_S, 2 * took[int(0.9 * (len(took) - 1))]) if took else math.inf


def busiest(sights: Sequence[Observation], period_s: float = 60.0) -> tuple[int, float]:
    """Return the most that was accepted within a period, and when (Unix time of the first of them)."""
    times = sorted(sight.sent_s for sight in sights if sight.accepted)
    best, at_s, first = 0, times[0] if times else 0.0, 0
    for last, t in enumerate(times):
        while t - times[first] >= period_s:
            first += 1
        if last - first + 1 > best:
            best, at_s = last - first + 1, times[first]
    return best, at_s


def stretch(sights: Sequence[Observation], most: int = MOST) -> list[Observation]:
    """Return at most ``most`` successive sights: those among which refusals ended most often."""
    rows = sorted(sights, key=lambda sight: sight.sent_s)
    if len(rows) <= most:
        return rows
    ends = [0, *accumulate(one.accepted is False and bool(two.accepted) for one, two in pairwise(rows))]
    within = [ends[start + most - 1] - ends[start] for start in range(len(rows) - most + 1)]
    start = within.index(max(within))
    return rows[start : start + most]
