"""Whether a limit on how many requests are in flight explains a run's refusals, and which limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bltybench.limits.fit.scoring import FLIP_RATE
from bltybench.limits.observations.evidence import NS, Row, accepted, refusal_status
from bltybench.limits.observations.observation import Bools, Ints

MOST = 2000
"""Attempts that are looked at, each against each."""
FEWEST = 5
"""Refusals below which nothing is concluded."""
LEAST_SLACK_S = 0.005
"""How much before or after the end that we see a slot may be free."""
CONCURRENCY = "concurren"


@dataclass(frozen=True, slots=True)
class ConcurrencyFit:
    """The limit that the fewest decisions contradict."""

    limit: int
    limit_range: tuple[int, int]
    """Limits that as few contradict."""
    contradictions: int
    """Requests let in though more were open, or refused though fewer were."""
    decisions: int
    refused: int
    answer_s: float
    """Median time of an accepted request."""

    @property
    def explains(self) -> bool:
        """Whether so few decisions contradict it that it may be the truth."""
        return self.refused >= FEWEST and self.contradictions <= math.ceil(FLIP_RATE * self.decisions)


@dataclass(frozen=True, slots=True)
class _Open:
    """Attempts that say something, in the order of sending, and how many others were open at each."""

    rows: list[Row]
    let_in: Bools
    refused: Bools
    least: Ints
    most: Ints
    answer_s: float


def in_flight(rows: Sequence[Row]) -> ConcurrencyFit | None:
    """Return the limit of requests in flight that suits a run best; None where nothing was let in or refused.

    A request holds a slot from its decision to its end; both are known up to the time of a refusal. The open
    ones are counted at least and at most: letting one in contradicts a limit where at least so many were
    open, refusing one where at most fewer were.
    """
    seen = _open(rows)
    if seen is None:
        return None
    limits: Ints = np.arange(1, int(seen.most.max()) + 2)
    beyond = (seen.least[seen.let_in][None, :] >= limits[:, None]).sum(axis=1)
    short = (seen.most[seen.refused][None, :] < limits[:, None]).sum(axis=1)
    best = np.flatnonzero(beyond + short == (beyond + short).min())
    return ConcurrencyFit(
        limit=int(limits[best[0]]),
        limit_range=(int(limits[best[0]]), int(limits[best[-1]])),
        contradictions=int((beyond + short).min()),
        decisions=int(seen.let_in.sum() + seen.refused.sum()),
        refused=int(seen.refused.sum()),
        answer_s=seen.answer_s,
    )


def admitted(rows: Sequence[Row], limit: int) -> list[tuple[Row, bool]]:
    """Return what a limit of requests in flight would have decided on each attempt that says something.

    Charged with what was observed; where it depends on the doubt about times, it is what was observed.
    """
    seen = _open(rows)
    if seen is None:
        return []
    fits = (seen.most < limit) | ((seen.least < limit) & seen.let_in)
    known = seen.let_in | seen.refused
    return [(row, bool(fit)) for row, fit, sure in zip(seen.rows, fits, known, strict=True) if sure]


def _open(rows: Sequence[Row]) -> _Open | None:
    status = refusal_status(rows)
    sent = sorted((row for row in rows if row["sent_ns"] is not None), key=lambda row: int(row["sent_ns"]))
    said = [(row, _decision(row, status)) for row in sent[:MOST]]
    known = [(row, decision) for row, decision in said if decision is not None or row["status"] is None]
    let_in: Bools = np.array([decision is True for _, decision in known], dtype=np.bool_)
    refused: Bools = np.array([decision is False for _, decision in known], dtype=np.bool_)
    if not let_in.any() or not refused.any():
        return None
    lo = np.array([row["sent_ns"] / NS for row, _ in known])
    head = np.array([(row["headers_ns"] or row["end_ns"]) / NS for row, _ in known])
    end = np.array([row["end_ns"] / NS for row, _ in known])
    refusal_s = float(np.median((head - lo)[refused]))
    hi = np.where(refused, head, np.minimum(head, lo + 2 * max(refusal_s, LEAST_SLACK_S)))
    slack_s = max(LEAST_SLACK_S, refusal_s)
    others = ~np.eye(len(known), dtype=np.bool_)
    holding = ~refused  # a lost answer may have held a slot
    surely = (hi[None, :] <= lo[:, None]) & (end[None, :] - slack_s > hi[:, None]) & let_in[None, :] & others
    maybe = (lo[None, :] <= hi[:, None]) & (end[None, :] + slack_s >= lo[:, None]) & holding[None, :] & others
    answer_s = float(np.median((end - lo)[let_in]))
    return _Open([row for row, _ in known], let_in, refused, surely.sum(axis=1), maybe.sum(axis=1), answer_s)


def _decision(row: Row, status: int | None) -> bool | None:
    """Return whether an attempt was let in, refusals that say that they are about concurrency included."""
    decided = accepted(row, status)
    if decided is None and CONCURRENCY in f"{row['error_code']} {row['error_type']}".lower():
        return False
    return decided
