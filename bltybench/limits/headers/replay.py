"""What the limiters that were found would have had left, over all that is not known of when each decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bltybench.limits.fit.result import Fit
from bltybench.limits.fit.thresholds import SCORING
from bltybench.limits.models.base import Model
from bltybench.limits.observations.observation import decision_slack_s
from bltybench.limits.observations.probe_result import ProbeResult

MOST = 1200
"""Requests that are looked at, those that came last: as many as are fitted."""
PLACES = (0.0, 0.5, 1.0)
"""Where between sending and decision a request is taken to be decided on."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One answer that was let in, and what each of the limiters that it may be says of that moment."""

    seen: ProbeResult
    remaining: tuple[float, float]
    """At least, at most."""
    window_s: tuple[float, float]
    """Until the window ends, or all is free: from the decision, or from the answer's head, on."""
    unit_s: tuple[float, float]
    """Until the next request is let in."""
    alone: bool
    """Whether nothing else was in flight: else it is not known what had been decided before it."""


class Record:
    """Requests in the order of sending, and between which times each was decided on."""

    def __init__(self, rows: Sequence[ProbeResult], doubtful: Sequence[ProbeResult] = ()) -> None:
        of_rate = [each for each in rows if not (each.about_tokens or each.about_concurrency)]
        # What was lost on the way may have been let in.
        known = [(each, each.accepted is not None) for each in of_rate]
        known += [(each, False) for each in doubtful]
        known = sorted(known, key=lambda pair: pair[0].sent_s)[-MOST:]
        self.seen = [each for each, _ in known]
        self.sure = [sure for _, sure in known]
        """Whether it counts at all."""
        self.doubts = (0.0,) if all(self.sure) else (0.0, 1.0)
        slack_s = decision_slack_s(
            (each.decided_s or each.sent_s) - each.sent_s for each in of_rate if each.refused
        )
        self.low = np.array([each.sent_s for each in self.seen])
        latest = [min(each.decided_s or each.sent_s, each.sent_s + slack_s) for each in self.seen]
        self.high = np.maximum(self.low, np.array(latest))
        # As many of those in flight together may have been decided on before it, or after.
        begun = np.searchsorted(np.sort(self.low), self.high)
        over = np.searchsorted(np.sort(self.high), self.low, side="right")
        self.together = (begun - over - 1).clip(0)

    def replay(self, fit: Fit) -> Iterator[tuple[int, float, float, Model]]:
        """Charge a limiter with what was let in, over all that is not known of when, and of what counts.

        Gives the number of each request, when it was decided on, what was left before it, and the limiter
        after it.
        """
        for place in PLACES:
            at_s = self.low + place * (self.high - self.low)
            order = np.argsort(at_s, kind="stable")
            for doubt in self.doubts:
                model = fit.model()
                for i in order:
                    t_s, let_in = float(at_s[i]), self.seen[i].accepted
                    left = model.peek(t_s).remaining
                    if not self.sure[i]:
                        model.charge(t_s, doubt)
                    elif let_in or (let_in is False and fit.count_refused):
                        model.charge(t_s)
                    yield int(i), t_s, left, model


def _variants(fits: Sequence[Fit]) -> Iterator[Fit]:
    return (one for each in fits for one in (each, *each.variants))


def contradicted(fits: Sequence[Fit], rows: Sequence[ProbeResult], limit: int) -> bool:
    """Say whether the same limiters with another limit would have decided otherwise, whatever the times."""
    record = Record(rows)
    if not record.seen:
        return False
    let_in = np.array([each.accepted is True for each in record.seen])
    refused = np.array([each.accepted is False for each in record.seen])
    least = np.full(len(record.seen), np.inf)
    most = np.full(len(record.seen), -np.inf)
    for fit in _variants(fits):
        for i, _, left, _ in record.replay(replace(fit, limit=limit)):
            least[i], most[i] = min(least[i], left), max(most[i], left)
    eps = SCORING.rounding
    wrong = (refused & (least - record.together >= 1 + eps)) | (let_in & (most + record.together < 1 - eps))
    return int(wrong.sum()) > SCORING.flip_rate * len(wrong)


def moments_of(
    fits: Sequence[Fit], rows: Sequence[ProbeResult], doubtful: Sequence[ProbeResult]
) -> list[Moment]:
    """Ask every limiter that it may be, after each request that was let in."""
    record = Record(rows, doubtful)
    if not record.seen:
        return []
    asked = [bool(each.accepted) and sure for each, sure in zip(record.seen, record.sure, strict=True)]
    found: list[list[tuple[float, float, float]]] = [[] for _ in record.seen]
    for fit in _variants(fits):
        for i, t_s, _, model in record.replay(fit):
            if asked[i]:
                after = model.peek(t_s)
                late_s = (record.seen[i].decided_s or t_s) - t_s
                unit_s = after.retry_after_s or 0.0
                found[i] += [
                    (after.remaining - record.together[i], after.reset_s, unit_s),
                    (after.remaining + record.together[i], after.reset_s - late_s, unit_s - late_s),
                ]
    moments: list[Moment] = []
    for each, said, others in zip(record.seen, found, record.together, strict=True):
        if said:
            left, windows, units = zip(*said, strict=True)
            bounds = (max(0.0, min(left)), max(0.0, *left))
            ends = (min(windows), max(windows)), (min(units), max(units))
            moments.append(Moment(each, bounds, *ends, alone=not others))
    return moments
