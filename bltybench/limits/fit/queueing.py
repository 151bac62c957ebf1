"""Detect limiters that delay requests instead of refusing them, and measure their rate.

A queue spaces the requests that it accepts. Let T be the interval, ``free`` the number of requests that it
serves immediately, s the time a request is sent, and b the latency of a response that did not wait:

    tat = max(s, previous tat) + T
    response = max(s, tat - (free + 1)·T) + b

This is the leaky bucket as a theoretical arrival time (ITU-T I.371, annex A), with a delay in place of a
refusal. A server that is only slow, or that has few slots, differs: it does not answer the first requests
after an idle interval quickly, or it does not space its responses evenly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from bltybench.limits.fit.thresholds import QUEUEING, WAITING
from bltybench.limits.observations.observation import Bools, Floats, Ints, Observation


@dataclass(frozen=True, slots=True)
class QueueTiming:
    """A limiter that serves one request per ``interval_s`` and delays the others."""

    interval_s: float
    interval_range_s: tuple[float, float]
    free: int
    """Requests that it serves immediately, after the first, before it spaces them."""
    explained: int
    """Responses that arrived in their turns."""
    answers: int
    held: int
    """Responses that waited."""
    longest_wait_s: float

    @property
    def rate_per_min(self) -> float:
        """Requests served per minute."""
        return 60 / self.interval_s


def detect_queue(observations: Sequence[Observation]) -> QueueTiming | None:
    """Return how the server spaces its responses; None if it does not, or if that is unknown."""
    rows = sorted(observations, key=lambda row: row.sent_s)
    rows = [row for row in rows if not row.accepted or row.answered_s is not None]
    queued, ambiguous = _split_by_turn(rows)
    explained, timing = _measure([rows[i] for i in queued])
    for lost in ambiguous if len(ambiguous) <= QUEUEING.max_lost else ():
        with_lost = sorted([*queued, lost])
        explained_with_lost, other = _measure([rows[i] for i in with_lost])
        if explained_with_lost > explained:
            queued, explained, timing = with_lost, explained_with_lost, other
    return timing


def _split_by_turn(rows: Sequence[Observation]) -> tuple[list[int], list[int]]:
    """Return which requests took a turn, and which lost ones may have taken one.

    A lost request between acceptances took one, and so did one before the first response.
    """
    before, after = _last_accepted(rows, default=True), _last_accepted(rows[::-1], default=False)[::-1]
    queued, ambiguous = [], []
    for i, row in enumerate(rows):
        if row.accepted or (row.accepted is None and before[i] and after[i]):
            queued.append(i)
        elif row.accepted is None and (before[i] or after[i]):
            ambiguous.append(i)
    return queued, ambiguous


def _last_accepted(rows: Sequence[Observation], *, default: bool) -> list[bool]:
    """Return, for each request, whether the last known decision before it was an acceptance."""
    last, result = default, []
    for row in rows:
        result.append(last)
        last = last if row.accepted is None else row.accepted
    return result


def _measure(queued: Sequence[Observation]) -> tuple[int, QueueTiming | None]:
    """Return how many responses arrive in their turns if these requests took turns, and their spacing."""
    response: Floats = np.array([row.answered_s for row in queued if row.accepted], dtype=np.float64)
    if len(response) < QUEUEING.min_waiting + QUEUEING.min_quick:
        return 0, None
    start_s = queued[0].sent_s
    sent: Floats = np.array([row.sent_s - start_s for row in queued])
    known = np.array([bool(row.accepted) for row in queued])
    # Concurrent requests have no order: the first turn belongs to the first response.
    response = np.sort(response - start_s)
    latency = response - sent[known]
    quickest_s = float(latency.min())
    # The quickest response of many is much quicker than most others that did not wait.
    usual_s = float(np.median(latency[latency <= QUEUEING.waiting_ratio * quickest_s]))
    spacing = np.diff(response)[(latency > QUEUEING.waiting_ratio * usual_s)[1:]]
    if len(spacing) < QUEUEING.min_waiting:
        return 0, None
    low, interval_s, high = (float(value) for value in np.percentile(spacing, [25, 50, 75]))
    slack_s = QUEUEING.max_irregularity * interval_s + quickest_s / 2
    if interval_s < QUEUEING.min_interval_ratio * quickest_s or high - low > slack_s:
        return 0, None
    even = spacing[np.abs(spacing - interval_s) <= slack_s]
    error_s = QUEUEING.interval_errors * float(even.std()) / len(even) ** 0.5 + quickest_s / len(even)
    intervals = np.linspace(interval_s - error_s, interval_s + error_s, QUEUEING.intervals)
    return _fit_turns(sent, known, response, intervals, latency_s=quickest_s, slack_s=slack_s)


def _fit_turns(
    sent: Floats, known: Bools, response: Floats, intervals: Floats, *, latency_s: float, slack_s: float
) -> tuple[int, QueueTiming | None]:
    for _ in range(2):
        interval_s, error_s, free = _best_interval(sent, known, response - latency_s, intervals, slack_s)
        turns = np.maximum(sent, _arrival_times(sent, interval_s) - (free + 1) * interval_s)[known]
        immediate = turns == sent[known]
        if not immediate.any():
            return 0, None
        # The quickest latency is too short for most responses, so all turns would seem late.
        latency_s = float(np.median((response - sent[known])[immediate]))
    sent = sent[known]
    latency = response - sent
    waited = latency > latency_s + slack_s
    in_turn = np.abs(turns + latency_s - response) <= slack_s
    explained, waiting = int(np.sum(in_turn)), int(np.sum(waited))
    after_idle = np.diff(sent, prepend=-np.inf) > interval_s
    quick = int(np.sum(immediate & after_idle & (latency < latency_s + slack_s)))
    if (
        interval_s < QUEUEING.min_interval_ratio * latency_s
        or waiting < QUEUEING.min_waiting
        # In a queue, each wait is one interval longer than the one before. If enough requests are served
        # immediately, responses that need not wait always fit, so the ones that waited must fit by
        # themselves.
        or np.sum(in_turn & waited) < QUEUEING.min_explained * waiting
        or explained < QUEUEING.min_explained * len(sent)
        or quick < QUEUEING.min_quick
    ):
        return explained, None
    range_s = (interval_s - error_s, interval_s + error_s)
    longest_s = float(latency[waited].max())
    return explained, QueueTiming(interval_s, range_s, free, explained, len(sent), waiting, longest_s)


def _best_interval(
    sent: Floats, known: Bools, turns: Floats, intervals: Floats, slack_s: float
) -> tuple[float, float, int]:
    """Return the interval that explains the most turns, its error, and ``free``.

    Over many turns in a row an error of the interval adds up, so few of ``intervals`` explain them.
    """
    explained = np.array([_explained(sent, known, turns, interval, slack_s) for interval in intervals])
    free = int(explained.max(axis=0).argmax())
    best = intervals[explained[:, free] >= explained[:, free].max() - QUEUEING.interval_slack]
    middle_s = float(best.min() + best.max()) / 2
    return middle_s, float(best.max() - best.min() + intervals[1] - intervals[0]) / 2, free


def _explained(sent: Floats, known: Bools, turns: Floats, interval_s: float, slack_s: float) -> Ints:
    """Return how many turns fit, for each number of requests served immediately."""
    arrival = _arrival_times(sent, interval_s)[known]
    # All these numbers in one batch: one by one, they would take as long as the rest of a fit.
    expected = np.maximum(sent[known], arrival - interval_s * np.arange(1, QUEUEING.max_free + 1)[:, None])
    counts: Ints = np.count_nonzero(np.abs(expected - turns) <= slack_s, axis=1)
    return counts


def _arrival_times(sent: Floats, interval_s: float) -> Floats:
    """Return the theoretical arrival times: the recursion, solved with a running maximum."""
    steps = interval_s * np.arange(1, len(sent) + 1)
    arrival: Floats = np.maximum.accumulate(sent - steps + interval_s) + steps
    return arrival


@dataclass(frozen=True, slots=True)
class WaitingRoom:
    """Requests that waited, as decisions of the limit that they waited for."""

    decisions: tuple[Observation, ...]
    """Those that begin a window are dated after its edge, so that each counts in the window that it is in."""
    uncertain_decisions: tuple[Observation, ...]
    """The same, but those that begin a window are dated within one latency."""
    seats_range: tuple[int, int | None]
    """Requests that can wait. The maximum is None if none was refused."""


def detect_waiting_room(observations: Sequence[Observation]) -> WaitingRoom | None:
    """Return the decisions behind the waits; None if too few requests waited, or if they explain no refusal.

    An accepted request that waited shows several decisions of the limit: not when it arrived, nor just before
    its response began, but then. So any family can have a waiting room, and is fitted as usual.
    """
    took_s = [_took_s(one) for one in observations if one.accepted]
    if len(took_s) < WAITING.min_waits:
        return None
    usual_s = median(one_s for one_s in took_s if one_s <= WAITING.unclear_ratio * min(took_s))
    waited = [one for one in observations if one.accepted and _took_s(one) > WAITING.min_ratio * usual_s]
    if len(waited) < WAITING.min_waits:
        return None
    slack_s = WAITING.unclear_ratio * usual_s
    latency_s = _longest_latency_s(observations, usual_s)
    arrived: Floats = np.array([one.sent_s for one in waited])
    began: Floats = np.array([one.sent_s + _took_s(one) for one in waited])

    def waiting(from_s: float, until_s: float) -> int:
        """Return how many requests arrived before one time and began after another."""
        return int(np.sum((arrived <= from_s) & (began > until_s)))

    longest_s = max(map(_took_s, waited))
    lost: Floats = np.array([one.sent_s for one in observations if one.accepted is None])

    def most_waiting(refused: Observation) -> int:
        """Return how many requests may have waited, with lost ones, when one was refused."""
        maybe_lost = np.sum((lost <= refused.decided_s) & (lost + longest_s > refused.sent_s))
        return waiting(refused.decided_s, refused.sent_s - slack_s) + int(maybe_lost)

    most = [most_waiting(one) for one in observations if one.accepted is False]
    least = max(1, *(waiting(one.sent_s, one.sent_s + 2 * slack_s) for one in waited))
    if most and min(most) < least:
        return None
    late = {id(one) for one in waited}
    lost_turns_s = _lost_turns_s(observations, arrived, began, slack_s, least)

    def dated(one: Observation) -> Observation:
        """Return an observation of a request that did not surely wait, at the time when it was decided."""
        if one.accepted:
            # Even if it waited, its turn was at most one latency before the response.
            began_s = one.sent_s + _took_s(one)
            return replace(one, sent_s=max(one.sent_s, began_s - latency_s), decided_s=began_s)
        if id(one) in lost_turns_s:
            turn_s = lost_turns_s[id(one)]
            return replace(one, sent_s=turn_s, decided_s=turn_s, answered_s=None)
        return one

    others = [dated(one) for one in observations if id(one) not in late]
    return WaitingRoom(
        (*others, *_turns(waited, usual_s, latency_s)),
        (*others, *_turns(waited, usual_s, latency_s, uncertain_s=latency_s)),
        (least, min(most, default=None)),
    )


def _lost_turns_s(
    observations: Sequence[Observation], arrived: Floats, began: Floats, slack_s: float, seats: int
) -> dict[int, float]:
    """Return the turns of the lost requests that waited, by their identity: those in the seats left.

    A lost request that arrived after one that waits has a seat. The first one that waits may be lost too. It
    was in flight with the next one, and is most likely the last of these.
    """
    candidates: list[tuple[bool, float, float, float, int]] = []
    for one in observations:
        later = began > one.sent_s + slack_s
        behind_s = began[(arrived <= one.sent_s) & later]
        turns_s = behind_s if len(behind_s) else began[(arrived <= one.decided_s) & later]
        if one.accepted is None and len(turns_s):
            next_s = float(turns_s.min())
            turn_s = float(behind_s.max()) if len(behind_s) else next_s
            candidates.append((not len(behind_s), -one.sent_s, next_s, turn_s, id(one)))
    turns: dict[int, float] = {}
    taken: list[float] = []
    for *_, next_s, turn_s, identity in sorted(candidates):
        known = int(np.sum((arrived < next_s) & (began >= next_s - slack_s)))
        if known + sum(abs(other_s - next_s) <= slack_s for other_s in taken) < seats:
            taken.append(next_s)
            turns[identity] = turn_s
    return turns


def _longest_latency_s(observations: Sequence[Observation], usual_s: float) -> float:
    """Return the longest latency of a response, without its wait. Refusals never wait."""
    refused_s = max((_took_s(one) for one in observations if one.accepted is False), default=0.0)
    return min(max(refused_s, WAITING.slack_ratio * usual_s), WAITING.min_ratio * usual_s)


def _took_s(one: Observation) -> float:
    return (one.decided_s if one.answered_s is None else one.answered_s) - one.sent_s


def _turns(
    waited: Sequence[Observation], usual_s: float, latency_s: float, uncertain_s: float = 0.0
) -> list[Observation]:
    """Return the decisions behind requests that waited.

    Each was refused when it arrived, and accepted by the time its response began. The first of those that
    began at the same time also shows that nothing was accepted just before. It was accepted up to
    ``uncertain_s`` before its response.
    """
    decisions: list[Observation] = []
    last_s = -math.inf
    for one in sorted(waited, key=lambda one: one.sent_s + _took_s(one)):
        began_s = one.sent_s + _took_s(one)
        decisions.append(Observation(one.sent_s, one.sent_s + usual_s, accepted=False))
        if began_s - last_s > latency_s:
            decisions.append(Observation(began_s - 2 * latency_s, began_s - latency_s, accepted=False))
            decisions.append(Observation(began_s - uncertain_s, began_s, accepted=True))
        else:
            decisions.append(Observation(began_s, began_s, accepted=True))
        last_s = began_s
    return decisions
