"""The limit on requests in flight that fits a run's decisions best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bltybench.limits.fit.evidence import allowed_contradictions, missing_refusals
from bltybench.limits.fit.thresholds import CONCURRENCY
from bltybench.limits.observations.classify import classify, refusal_statuses
from bltybench.limits.observations.extract import NS, answered_ns
from bltybench.limits.observations.observation import Bools, Ints
from bltybench.limits.observations.thresholds import OBSERVATIONS
from bltybench.runs.attempt import Attempt


@dataclass(frozen=True, slots=True)
class ConcurrencyFit:
    """The limit on requests in flight that the fewest decisions contradict."""

    limit: int
    limit_range: tuple[int, int]
    """Limits with equally few contradictions."""
    contradictions: int
    """Requests accepted though the limit was reached, or refused though it was not."""
    decisions: int
    refused: int
    explained: int
    """Refusals while the limit may have been reached."""
    latency_s: float
    """Median duration of an accepted request, in seconds."""

    @property
    def explains(self) -> bool:
        """Whether it explains enough refusals to be claimed, and whether its limit is known."""
        allowed = allowed_contradictions(self.decisions, min(self.refused, self.decisions - self.refused))
        low, high = self.limit_range
        return (
            missing_refusals(self.refused, probed=False) is None
            and self.contradictions <= allowed
            and high <= CONCURRENCY.max_range_ratio * low
        )


@dataclass(frozen=True, slots=True)
class _Load:
    """Attempts in the order of sending, and the bounds of how many others were in flight at each."""

    attempts: list[Attempt]
    accepted: Bools
    refused: Bools
    least: Ints
    most: Ints
    latency_s: float


def fit_concurrency(attempts: Sequence[Attempt]) -> ConcurrencyFit | None:
    """Return the limit on requests in flight that fits best; None without acceptances or refusals.

    A request holds a slot from its decision to its end. Both times are uncertain by the duration of a
    refusal, so the number in flight has two bounds. An acceptance contradicts a limit that the lower bound
    reaches; a refusal contradicts one that the upper bound does not reach. Accepted requests that certainly
    held slots at the same moment need that many slots, in whatever order the server decided on them.
    """
    load = _load(attempts)
    if load is None:
        return None
    limits: Ints = np.arange(1, int(load.most.max()) + 2)
    beyond = (load.least[load.accepted][None, :] >= limits[:, None]).sum(axis=1)
    short = (load.most[load.refused][None, :] < limits[:, None]).sum(axis=1)
    best = np.flatnonzero(beyond + short == (beyond + short).min())
    return ConcurrencyFit(
        limit=int(limits[best[0]]),
        limit_range=(int(limits[best[0]]), int(limits[best[-1]])),
        contradictions=int((beyond + short).min()),
        decisions=int(load.accepted.sum() + load.refused.sum()),
        refused=int(load.refused.sum()),
        explained=int(load.refused.sum() - short[best[0]]),
        latency_s=load.latency_s,
    )


def unless_full(attempts: Sequence[Attempt], limit: int) -> list[Attempt]:
    """Return the attempts without refusals for which a limit on requests in flight is a reason.

    It is one if that many other requests, none of them refused, were open at a moment between sending and
    refusal.
    """
    statuses = refusal_statuses(attempts)
    refused = [classify(attempt, statuses).by_concurrency_limit is False for attempt in attempts]
    holding = [
        attempt
        for attempt, is_refused in zip(attempts, refused, strict=True)
        if not is_refused and attempt.sent_ns is not None
    ]
    begins: Ints = np.sort(np.array([attempt.sent_ns for attempt in holding], dtype=np.int64))
    ends: Ints = np.sort(np.array([attempt.end_ns for attempt in holding], dtype=np.int64))

    def is_full(attempt: Attempt) -> bool:
        sent_ns = attempt.sent_ns or 0
        first, last = np.searchsorted(begins, (sent_ns, answered_ns(attempt)), side="right")
        times = np.append(begins[first:last], sent_ns)
        open_requests = np.searchsorted(begins, times, side="right") - np.searchsorted(ends, times)
        return bool(open_requests.max() >= limit)

    return [
        attempt
        for attempt, is_refused in zip(attempts, refused, strict=True)
        if not (is_refused and is_full(attempt))
    ]


def predict_accepted(attempts: Sequence[Attempt], limit: int) -> list[tuple[Attempt, bool]]:
    """Return whether a limit on requests in flight would have accepted each attempt.

    It is charged with what was observed. If timing uncertainty leaves the prediction open, it is the observed
    decision.
    """
    load = _load(attempts)
    if load is None:
        return []
    fits = (load.most < limit) | ((load.least < limit) & load.accepted)
    known = load.accepted | load.refused
    return [
        (attempt, bool(fit)) for attempt, fit, sure in zip(load.attempts, fits, known, strict=True) if sure
    ]


def _load(attempts: Sequence[Attempt]) -> _Load | None:
    statuses = refusal_statuses(attempts)
    sent = sorted((attempt.sent_ns, i) for i, attempt in enumerate(attempts) if attempt.sent_ns is not None)
    decided = [(attempts[i], classify(attempts[i], statuses)) for _, i in sent[: CONCURRENCY.max_attempts]]
    known = [
        (attempt, decision)
        for attempt, decision in decided
        if decision.by_concurrency_limit is not None or decision.unanswered
    ]
    accepted: Bools = np.array(
        [decision.by_concurrency_limit is True for _, decision in known], dtype=np.bool_
    )
    refused: Bools = np.array(
        [decision.by_concurrency_limit is False for _, decision in known], dtype=np.bool_
    )
    if not accepted.any() or not refused.any():
        return None
    lo = np.array([(attempt.sent_ns or 0) / NS for attempt, _ in known])
    head = np.array([answered_ns(attempt) / NS for attempt, _ in known])
    end = np.array([attempt.end_ns / NS for attempt, _ in known])
    refusal_s = float(np.median((head - lo)[refused]))
    longest_s = OBSERVATIONS.refusal_factor * max(refusal_s, CONCURRENCY.min_slack_s)
    hi = np.where(refused, head, np.minimum(head, lo + longest_s))
    slack_s = max(CONCURRENCY.min_slack_s, refusal_s)
    others = ~np.eye(len(known), dtype=np.bool_)
    holding = ~refused  # a request without a response may have held a slot
    held_until = end - slack_s
    # Requests that hold slots at the same moment were accepted in some order: the last one found the others
    # holding theirs. A request that may have ended by ``hi`` shows only what held slots when it was sent.
    rank = np.argsort(np.lexsort((lo, hi)))
    before = np.where((held_until > hi)[:, None], rank[None, :] < rank[:, None], hi[None, :] <= lo[:, None])
    surely = before & (held_until[None, :] > hi[:, None]) & accepted[None, :] & others
    maybe = (lo[None, :] <= hi[:, None]) & (end[None, :] + slack_s >= lo[:, None]) & holding[None, :] & others
    latency_s = float(np.median((end - lo)[accepted]))
    return _Load(
        [attempt for attempt, _ in known], accepted, refused, surely.sum(axis=1), maybe.sum(axis=1), latency_s
    )
