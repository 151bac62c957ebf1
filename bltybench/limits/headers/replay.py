"""Bounds on what the fitted limiters could have reported, from a replay of the run's requests.

The bounds cover every candidate and all of its parameters, every possible time of each decision, and
whether each ambiguous request counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bltybench.limits.fit.result import Fit
from bltybench.limits.fit.thresholds import SCORING
from bltybench.limits.headers.thresholds import HEADERS
from bltybench.limits.models.base import Model
from bltybench.limits.observations.observation import decision_slack_s
from bltybench.limits.observations.probe_result import ProbeResult


@dataclass(frozen=True, slots=True)
class Moment:
    """An accepted request, with the minimum and maximum of what a header could have reported."""

    result: ProbeResult
    remaining: tuple[float, float]
    """Requests left."""
    full_s: tuple[float, float]
    """Seconds until the window ends, or until the whole limit is available."""
    next_s: tuple[float, float]
    """Seconds until the next request is accepted."""
    unit_s: tuple[float, float]
    """Seconds until Remaining rises by one: when the oldest request of a log no longer counts."""
    alone: bool
    """Whether no other request was in flight, so the order of decisions is known."""


class _ReplayedRequests:
    """The latest requests in the order of sending, with the earliest and latest time of each decision."""

    def __init__(self, results: Sequence[ProbeResult], ambiguous: Sequence[ProbeResult] = ()) -> None:
        own = [result for result in results if not (result.about_tokens or result.about_concurrency)]
        # A request whose response was lost may have counted.
        requests = [(result, result.accepted is not None) for result in own]
        requests += [(result, False) for result in ambiguous]
        requests = sorted(requests, key=lambda pair: pair[0].sent_s)[-HEADERS.max_replayed :]
        self.results = [result for result, _ in requests]
        self.certain = [certain for _, certain in requests]
        """Whether it is known whether the request counts."""
        self.charges = (0.0,) if all(self.certain) else (0.0, 1.0)
        """Charges to try for the others."""
        slack_s = decision_slack_s(
            (result.decided_s or result.sent_s) - result.sent_s for result in own if result.refused
        )
        self.earliest_s = np.array([result.sent_s for result in self.results])
        latest_s = [
            min(result.decided_s or result.sent_s, result.sent_s + slack_s) for result in self.results
        ]
        self.latest_s = np.maximum(self.earliest_s, np.array(latest_s))
        # Requests in flight at the same time may have been decided before this one or after it.
        begun = np.searchsorted(np.sort(self.earliest_s), self.latest_s)
        ended = np.searchsorted(np.sort(self.latest_s), self.earliest_s, side="right")
        self.concurrent = (begun - ended - 1).clip(0)

    def replay(self, fit: Fit) -> Iterator[tuple[int, float, float, Model]]:
        """Yield each request's index, decision time, and requests left before it, and the model after it.

        Replay all requests once for each possible decision time and charge.
        """
        for point in HEADERS.decision_points:
            times_s = self.earliest_s + point * (self.latest_s - self.earliest_s)
            order = np.argsort(times_s, kind="stable")
            for charge in self.charges:
                model = fit.model()
                for i in order:
                    at_s, accepted = float(times_s[i]), self.results[i].accepted
                    left = model.peek(at_s).remaining
                    if not self.certain[i]:
                        model.charge(at_s, charge)
                    elif accepted or (accepted is False and fit.count_refused):
                        model.charge(at_s)
                    yield int(i), at_s, left, model


def _variants(fits: Sequence[Fit]) -> Iterator[Fit]:
    return (variant for fit in fits for variant in (fit, *fit.variants))


def contradicts_limit(fits: Sequence[Fit], results: Sequence[ProbeResult], limit: int) -> bool:
    """Return whether the decisions contradict the same limiters with another limit, at all possible times."""
    requests = _ReplayedRequests(results)
    count = len(requests.results)
    if not count:
        return False
    accepted = np.array([result.accepted is True for result in requests.results])
    refused = np.array([result.accepted is False for result in requests.results])
    lowest, highest = np.full(count, np.inf), np.full(count, -np.inf)
    for fit in _variants(fits):
        for i, _, left, _ in requests.replay(replace(fit, limit=limit)):
            lowest[i], highest[i] = min(lowest[i], left), max(highest[i], left)
    eps = SCORING.rounding
    wrong = (refused & (lowest - requests.concurrent >= 1 + eps)) | (
        accepted & (highest + requests.concurrent < 1 - eps)
    )
    return int(wrong.sum()) > SCORING.flip_rate * count


def replay_moments(
    fits: Sequence[Fit], results: Sequence[ProbeResult], ambiguous: Sequence[ProbeResult]
) -> list[Moment]:
    """Return what the limiters could have reported after each accepted request."""
    requests = _ReplayedRequests(results, ambiguous)
    if not requests.results:
        return []
    reports: list[list[tuple[float, float, float, float]]] = [[] for _ in requests.results]
    for fit in _variants(fits):
        for i, at_s, _, model in requests.replay(fit):
            if not (requests.results[i].accepted and requests.certain[i]):
                continue
            after = model.peek(at_s)
            # The server can compute the times when it decides, or when it sends the response's headers.
            late_s = (requests.results[i].decided_s or at_s) - at_s
            next_s = after.retry_after_s or 0.0
            one_more = min(fit.limit, int(after.remaining + SCORING.rounding) + 1)
            times_s = (after.reset_s, next_s, model.peek(at_s, one_more).retry_after_s or 0.0)
            reports[i] += [
                (after.remaining - requests.concurrent[i], *times_s),
                (after.remaining + requests.concurrent[i], *(time_s - late_s for time_s in times_s)),
            ]
    moments: list[Moment] = []
    for result, report, concurrent in zip(requests.results, reports, requests.concurrent, strict=True):
        if report:
            left, *times = zip(*report, strict=True)
            remaining = max(0.0, min(left)), max(0.0, *left)
            full, following, unit = ((min(values), max(values)) for values in times)
            moments.append(Moment(result, remaining, full, following, unit, alone=not concurrent))
    return moments
