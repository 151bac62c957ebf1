"""Whether a limiter makes requests wait their turn instead of refusing them, and at what rate it serves them.

Such a limiter spaces what it lets in: with T = W/limit, ``free`` the number that it lets through at once, s a
request's sending and b the time of an answer that did not wait,

    tat = max(s, tat of the one before) + T
    answered = max(s, tat - (free + 1)·T) + b

which is the leaky bucket in its form of a theoretical arrival time (ITU-T I.371, annex A), with waiting in
place of refusal. A server that is merely slow, or serves few at a time, never answers the first requests
after a silence quickly, or answers without an even spacing: neither is taken for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bltybench.limits.sights import Bools, Floats, Sight

HELD = 3
"""Answers that take so many times the quickest one's time have waited."""
FEWEST_HELD = 6
FEWEST_QUICK = 2
"""Quick answers after a silence that there must be: the first of all may be quick by chance."""
APART = 1.5
"""Answers that are spaced by less, in times of the quickest one, may be those of a server with one place."""
REGULAR = 0.25
"""Spacings and answers may be off by such a share of the interval, and half of the quickest answer's time."""
EXPLAINED = 0.85
MOST_FREE = 64
INTERVALS = 41
"""That are tried within the error of the one that is usual."""
SPREAD = 2.5
"""Standard errors to either side of the interval: the median's is 1.25 of the mean's."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """A limiter that serves one request each ``interval_s``, and lets the others wait."""

    interval_s: float
    interval_range_s: tuple[float, float]
    free: int
    """Requests that it serves at once before it begins to space them, besides the first."""
    explained: int
    """Answers that came when they should."""
    answers: int
    held: int
    """Answers that waited."""
    longest_wait_s: float

    @property
    def rate_per_min(self) -> float:
        """Return how many requests a minute it serves."""
        return 60 / self.interval_s


def delayed(seen: Sequence[Sight]) -> Delayed | None:
    """Return how a limiter spaces what it lets in; None where it does not, or that cannot be told."""
    taken = _turns_taken(seen)
    came: Floats = np.array([each.answered_s for each in taken if each.accepted], dtype=np.float64)
    if len(came) < FEWEST_HELD + FEWEST_QUICK:
        return None
    began_s = taken[0].sent_s
    sent: Floats = np.array([each.sent_s - began_s for each in taken])
    known = np.array([bool(each.accepted) for each in taken])
    # Requests that are sent together have no order: the first turn is that of the first to be answered.
    came = np.sort(came - began_s)
    took = came - sent[known]
    quickest_s = float(took.min())
    spacing = np.diff(came)[(took > HELD * quickest_s)[1:]]
    if len(spacing) < FEWEST_HELD:
        return None
    return _spaced(sent, known, came, spacing, quickest_s)


def _turns_taken(seen: Sequence[Sight]) -> list[Sight]:
    """Return what took a turn, in the order of sending: what was accepted, and what was lost in between."""
    rows = sorted(seen, key=lambda each: each.sent_s)
    rows = [each for each in rows if not each.accepted or each.answered_s is not None]
    beside = [False, *(bool(each.accepted) for each in rows), False]
    return [
        each
        for each, before, after in zip(rows, beside, beside[2:], strict=False)
        if each.accepted or (each.accepted is None and before and after)
    ]


def _spaced(sent: Floats, known: Bools, came: Floats, spacing: Floats, quickest_s: float) -> Delayed | None:
    low, interval_s, high = (float(each) for each in np.percentile(spacing, [25, 50, 75]))
    slack_s = REGULAR * interval_s + quickest_s / 2
    if interval_s < APART * quickest_s or high - low > slack_s:
        return None
    even = spacing[np.abs(spacing - interval_s) <= slack_s]
    error_s = SPREAD * float(even.std()) / len(even) ** 0.5 + quickest_s / len(even)
    # Over many turns in a row the median's error adds up: of those within it, the ones that explain most.
    tried = np.linspace(interval_s - error_s, interval_s + error_s, INTERVALS)
    close = np.array([_explained(sent, known, came - quickest_s, each, slack_s) for each in tried])
    free = int(close.max(axis=0).argmax())
    best = tried[close[:, free] == close[:, free].max()]
    interval_s, error_s = (
        float(best.min() + best.max()) / 2,
        float(best.max() - best.min() + tried[1] - tried[0]) / 2,
    )
    turns = _turns(sent, _arrivals(sent, interval_s), interval_s, free)[known]
    sent = sent[known]
    at_once = turns == sent
    if not at_once.any():
        return None
    # What is quick now and then is no measure of how long an answer takes that need not wait.
    usual_s = float(np.median((came - sent)[at_once]))
    held = came - sent > usual_s + slack_s
    if interval_s < APART * usual_s or held.sum() < FEWEST_HELD:
        return None
    explained = _close(turns + usual_s, came, slack_s)
    after_silence = np.diff(sent, prepend=-np.inf) > interval_s
    quick = int(np.sum(at_once & after_silence & (came - sent < usual_s + slack_s)))
    if explained < EXPLAINED * len(sent) or quick < FEWEST_QUICK:
        return None
    return Delayed(
        interval_s,
        (interval_s - error_s, interval_s + error_s),
        free,
        explained,
        len(sent),
        int(held.sum()),
        float((came - sent)[held].max()),
    )


def _explained(sent: Floats, known: Bools, came: Floats, interval_s: float, slack_s: float) -> list[int]:
    """Return how many answers come when they should, for each number that is served at once."""
    tat = _arrivals(sent, interval_s)
    turns = [_turns(sent, tat, interval_s, free)[known] for free in range(MOST_FREE)]
    return [_close(each, came, slack_s) for each in turns]


def _arrivals(sent: Floats, interval_s: float) -> Floats:
    """Return each request's theoretical arrival time: the recursion, solved with a running maximum."""
    steps = interval_s * np.arange(1, len(sent) + 1)
    found: Floats = np.maximum.accumulate(sent - steps + interval_s) + steps
    return found


def _turns(sent: Floats, tat: Floats, interval_s: float, free: int) -> Floats:
    found: Floats = np.maximum(sent, tat - (free + 1) * interval_s)
    return found


def _close(expected: Floats, came: Floats, slack_s: float) -> int:
    return int(np.sum(np.abs(expected - came) <= slack_s))
