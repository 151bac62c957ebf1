"""Observations of a limiter from outside: when each request was decided on, and how."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bltybench.limits.observations.announcement import Announcement
from bltybench.limits.observations.thresholds import OBSERVATIONS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

REFUSED, ACCEPTED, UNKNOWN = 0, 1, -1


@dataclass(frozen=True, slots=True)
class Observation:
    """One request: the limiter decided on it between ``sent_s`` and ``decided_s``."""

    sent_s: float
    decided_s: float
    accepted: bool | None
    """None if the response was lost: it may have counted."""
    answered_s: float | None = None
    """When the response began, which can be long after the decision."""
    unit: bool = False
    """Whether it stands for a fixed number of tokens, and the limiter counts tokens."""
    announced: Announcement | None = None
    """What the response's headers announced."""
    beside_removed: bool = False
    """Whether requests next to it were removed, so that those around it say nothing about its outcome."""


@dataclass(frozen=True, slots=True)
class Lockout:
    """A run of refusals, from the first one to the next acceptance."""

    min_s: float
    """Seconds from the first to the last refusal, as far as the times are certain."""
    max_s: float = math.inf
    """Seconds until the next acceptance, at most; infinite if there is none."""
    recovery: tuple[float, float] | None = None
    """When it ended: after the last refusal was sent, and before the acceptance was decided."""


class Observations:
    """Observations as arrays, in the order of sending. Times are Unix seconds minus ``origin_s``."""

    def __init__(self, observations: Iterable[Observation]) -> None:
        ordered = sorted(observations, key=lambda observation: observation.sent_s)
        self.origin_s = ordered[0].sent_s if ordered else 0.0
        self.units = any(observation.unit for observation in ordered)
        self.lo: Floats = np.array([one.sent_s - self.origin_s for one in ordered], dtype=np.float64)
        """Earliest time of each decision."""
        hi = np.array([one.decided_s - self.origin_s for one in ordered], dtype=np.float64)
        self.hi: Floats = np.maximum(hi, self.lo)
        """Latest time of each decision."""
        codes = [UNKNOWN if one.accepted is None else int(one.accepted) for one in ordered]
        self.codes: Ints = np.array(codes, dtype=np.int64)
        """REFUSED, ACCEPTED, or UNKNOWN."""
        self.beside_removed: Bools = np.array([one.beside_removed for one in ordered], dtype=np.bool_)
        for code in (ACCEPTED, REFUSED):
            # Requests with the same decision can change places, so the earliest latest time goes first.
            self.hi[self.codes == code] = np.sort(self.hi[self.codes == code])

    def __len__(self) -> int:
        return len(self.lo)

    @property
    def span_s(self) -> float:
        """Seconds from the first request to the last decision. There must be a request."""
        return float(self.hi[-1] - self.lo[0])

    @property
    def accepted(self) -> Bools:
        """Mask of the accepted requests."""
        mask: Bools = self.codes == ACCEPTED
        return mask

    @property
    def refused(self) -> Bools:
        """Mask of the refused requests."""
        mask: Bools = self.codes == REFUSED
        return mask

    @cached_property
    def lockouts(self) -> list[Lockout]:
        """Runs of refusals. Lost responses neither continue nor end one."""
        lockouts: list[Lockout] = []
        first = last = -1
        for i in np.flatnonzero(self.codes != UNKNOWN).tolist():
            if self.codes[i] == REFUSED:
                first, last = (i if first < 0 else first), i
            elif first >= 0:
                lockouts.append(self._lockout(first, last, i))
                first = -1
        return [*lockouts, self._lockout(first, last, None)] if first >= 0 else lockouts

    def _lockout(self, first: int, last: int, accepted: int | None) -> Lockout:
        observed_s = float(self.lo[last] - self.hi[first])
        if accepted is None:
            return Lockout(observed_s)
        recovery = (float(self.lo[last]), float(self.hi[accepted]))
        return Lockout(observed_s, float(self.hi[accepted] - self.lo[first]), recovery)

    @property
    def recoveries(self) -> list[tuple[float, float]]:
        """When each lockout ended: between these times."""
        return [lockout.recovery for lockout in self.lockouts if lockout.recovery is not None]

    def uncertainty_s(self) -> float:
        """Return the median uncertainty about the time of a decision, in seconds."""
        return float(np.median(self.hi - self.lo))

    @property
    def first_accepted_run(self) -> int:
        """Acceptances before the first refusal that follows one. There must be an acceptance."""
        return int(np.argmax(self.codes[np.argmax(self.accepted) :] == REFUSED))

    @cached_property
    def longest_accepted_run(self) -> int:
        """Maximum acceptances in a row."""
        longest = run = 0
        for code in self.codes:
            run = 0 if code == REFUSED else run + 1
            longest = max(longest, run)
        return longest

    @cached_property
    def _first_in_flight(self) -> Ints:
        """For each request, the first that may have been undecided when it was sent."""
        latest = np.maximum.accumulate(self.hi) if len(self) else self.hi
        first: Ints = np.minimum(np.searchsorted(latest, self.lo, side="right"), np.arange(len(self)))
        return first

    @property
    def max_in_flight(self) -> int:
        """Maximum requests that may have been undecided at the same time."""
        return int(np.max(np.arange(len(self)) - self._first_in_flight)) + 1

    def overtaken(self, counted: Bools) -> Ints:
        """Return how many of ``counted`` were sent before each request but may have been decided after it.

        Requests with the same decision can change places and are excluded.
        """
        return self._with_other_decision(counted, self._first_in_flight, np.arange(len(self)))

    def overtaking(self, counted: Bools) -> Ints:
        """Return how many of ``counted`` were sent after each request but may have been decided before it.

        Requests with the same decision can change places and are excluded.
        """
        after = np.arange(len(self)) + 1
        return self._with_other_decision(counted, after, np.maximum(np.searchsorted(self.lo, self.hi), after))

    def _with_other_decision(self, counted: Bools, first: Ints, end: Ints) -> Ints:
        """Return how many of ``counted`` from ``first`` to before ``end`` had another decision than each."""
        others: Ints = np.zeros(len(self), dtype=np.int64)
        if np.any(first < end):
            for code in (ACCEPTED, REFUSED, UNKNOWN):
                same = self.codes == code
                total = np.concatenate([[0], np.cumsum(counted & same)])
                others += np.where(same, 0, total[end] - total[first])
        return others


def decision_slack_s(refusals_s: Iterable[float]) -> float:
    """Return the time, in seconds, within which a request is decided on, from how long refusals took."""
    took_s = sorted(refusals_s)
    if not took_s:
        return math.inf
    usual_s = took_s[int(OBSERVATIONS.refusal_quantile * (len(took_s) - 1))]
    return max(OBSERVATIONS.min_decision_s, OBSERVATIONS.refusal_factor * usual_s)


def with_decision_slack(observations: Sequence[Observation]) -> list[Observation]:
    """Return the observations with the latest time of each decision that all their refusals imply.

    An accepted request is decided on admission, but a plain response's headers come only when all of it is
    ready. How soon the server decides shows only in refusals, so the first of them dates earlier acceptances.
    """
    slack_s = decision_slack_s(_answered_s(one) - one.sent_s for one in observations if one.accepted is False)
    return [
        replace(one, decided_s=min(_answered_s(one), one.sent_s + slack_s)) if one.accepted else one
        for one in observations
    ]


def _answered_s(observation: Observation) -> float:
    return observation.decided_s if observation.answered_s is None else observation.answered_s


def busiest_period(observations: Sequence[Observation], period_s: float = 60.0) -> tuple[int, float]:
    """Return the maximum accepted within a period, and the Unix time at which that period starts."""
    times = sorted(observation.sent_s for observation in observations if observation.accepted)
    best, at_s, first = 0, times[0] if times else 0.0, 0
    for last, t in enumerate(times):
        while t - times[first] >= period_s:
            first += 1
        if last - first + 1 > best:
            best, at_s = last - first + 1, times[first]
    return best, at_s


def sustained_per_min(observations: Sequence[Observation], period_s: float) -> float:
    """Return the highest rate of acceptances over ``period_s``, in requests per minute, after a refusal.

    Those before it include a burst that was saved up. If they took less than ``period_s``, their rate counts.
    """
    refused_s = min((one.sent_s for one in observations if one.accepted is False), default=-math.inf)
    after = [one for one in observations if one.accepted and one.sent_s > refused_s]
    times = [one.sent_s for one in after]
    took_s = min(period_s, max(times) - min(times)) if times else 0.0
    return math.inf if took_s <= 0 else busiest_period(after, took_s)[0] * 60 / took_s


def most_informative(
    observations: Sequence[Observation], count: int = OBSERVATIONS.max_fitted
) -> list[Observation]:
    """Return the observations of ``informative_part``, in sending order."""
    ordered = sorted(observations, key=lambda observation: observation.sent_s)
    refused: Bools = np.array([one.accepted is False for one in ordered], dtype=np.bool_)
    accepted: Bools = np.array([bool(one.accepted) for one in ordered], dtype=np.bool_)
    return [ordered[i] for i in informative_part(refused, accepted, count).tolist()]


def informative_part(refused: Bools, accepted: Bools, count: int) -> Ints:
    """Return at most ``count`` successive requests: those with the most ends of refusals.

    Without any, those with the most refusals. Requests before them still count in the limit. So acceptances
    show how much it holds at least, but the refusals before the first end are excluded.
    """
    index: Ints = np.arange(len(refused))
    if len(refused) <= count:
        return index
    ends = np.flatnonzero(refused[:-1] & accepted[1:])
    part: Ints = index[_informative_span(refused, accepted, count)]
    within = ends[(ends >= part[0]) & (ends < part[-1])]
    if part[0] and len(within):
        part = part[(part > within[0]) | ~refused[part]]
    return part


def _informative_span(refused: Bools, accepted: Bools, count: int) -> slice:
    """Return the span of the part.

    The start of a run has no unknown history, so it is preferred unless another span has twice as many.
    """
    # An end of refusals is a pair of requests. A refusal can also be the last one of the span.
    for events, size in ((refused[:-1] & accepted[1:], count - 1), (refused, count)):
        before = np.concatenate([[0], np.cumsum(events)])
        within = before[size:] - before[: len(before) - size]
        if within.any():
            start = int(within.argmax()) if within.max() > OBSERVATIONS.max_span_ratio * within[0] else 0
            return slice(start, start + count)
    return slice(0, count)
