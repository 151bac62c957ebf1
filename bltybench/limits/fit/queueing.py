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

from bltybench.limits.observations.observation import Bools, Floats, Ints, Observation

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
MOST_LOST = 8
"""Lost answers beside refusals up to which each is tried as one that took a turn."""
INTERVALS = 41
"""That are tried within the error of the one that is usual."""
BUT = 1
"""So many answers fewer are explained as well: one that is late by chance does not tell the interval."""
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


def delayed(seen: Sequence[Observation]) -> Delayed | None:
    """Return how a limiter spaces what it lets in; None where it does not, or that cannot be told."""
    rows = sorted(seen, key=lambda each: each.sent_s)
    rows = [each for each in rows if not each.accepted or each.answered_s is not None]
    taken, doubtful = _turns_taken(rows)
    explained, found = _judged([rows[i] for i in taken])
    for lost in doubtful if len(doubtful) <= MOST_LOST else ():
        # Beside a refusal it may have been either: what explains more.
        others = sorted([*taken, lost])
        more, other = _judged([rows[i] for i in others])
        if more > explained:
            taken, explained, found = others, more, other
    return found


def _judged(taken: Sequence[Observation]) -> tuple[int, Delayed | None]:
    """Return how many answers come when they should if these took turns, and how they were spaced."""
    came: Floats = np.array([each.answered_s for each in taken if each.accepted], dtype=np.float64)
    if len(came) < FEWEST_HELD + FEWEST_QUICK:
        return 0, None
    began_s = taken[0].sent_s
    sent: Floats = np.array([each.sent_s - began_s for each in taken])
    known = np.array([bool(each.accepted) for each in taken])
    # Requests that are sent together have no order: the first turn is that of the first to be answered.
    came = np.sort(came - began_s)
    took = came - sent[known]
    quickest_s = float(took.min())
    # The quickest of many is much quicker than most that did not wait either.
    usual_s = float(np.median(took[took <= HELD * quickest_s]))
    spacing = np.diff(came)[(took > HELD * usual_s)[1:]]
    if len(spacing) < FEWEST_HELD:
        return 0, None
    return _spaced(sent, known, came, spacing, quickest_s)


def _turns_taken(rows: Sequence[Observation]) -> tuple[list[int], list[int]]:
    """Return which requests took a turn, and which were lost and may have taken one.

    What was lost among acceptances took one; and before the first answer, as nothing had been refused yet.
    """
    before, after = _last_known(rows, last=True), _last_known(rows[::-1], last=False)[::-1]
    taken, doubtful = [], []
    for i, (each, one, other) in enumerate(zip(rows, before, after, strict=True)):
        if each.accepted or (each.accepted is None and one and other):
            taken.append(i)
        elif each.accepted is None and (one or other):
            doubtful.append(i)
    return taken, doubtful


def _last_known(rows: Sequence[Observation], *, last: bool) -> list[bool]:
    """Return, for each, whether the last before it whose answer is known was accepted; else ``last``."""
    found = []
    for each in rows:
        found.append(last)
        last = last if each.accepted is None else each.accepted
    return found


def _spaced(
    sent: Floats, known: Bools, came: Floats, spacing: Floats, quickest_s: float
) -> tuple[int, Delayed | None]:
    low, interval_s, high = (float(each) for each in np.percentile(spacing, [25, 50, 75]))
    slack_s = REGULAR * interval_s + quickest_s / 2
    if interval_s < APART * quickest_s or high - low > slack_s:
        return 0, None
    even = spacing[np.abs(spacing - interval_s) <= slack_s]
    error_s = SPREAD * float(even.std()) / len(even) ** 0.5 + quickest_s / len(even)
    tried = np.linspace(interval_s - error_s, interval_s + error_s, INTERVALS)
    usual_s = quickest_s
    for _ in range(2):
        interval_s, error_s, free = _best(sent, known, came - usual_s, tried, slack_s)
        turns = _turns(sent, _arrivals(sent, interval_s), interval_s, free)[known]
        at_once = turns == sent[known]
        if not at_once.any():
            return 0, None
        # What is quick now and then is no measure of how long an answer takes that need not wait: turns that
        # are taken to be so much later than they are would each seem longer.
        usual_s = float(np.median((came - sent[known])[at_once]))
    sent = sent[known]
    held = came - sent > usual_s + slack_s
    in_turn = np.abs(turns + usual_s - came) <= slack_s
    explained = int(np.sum(in_turn))
    if interval_s < APART * usual_s or held.sum() < FEWEST_HELD:
        return explained, None
    # In a queue each wait is longer than the one before by an interval. With enough requests served at once,
    # responses that need not wait always fit, so the ones that waited must fit by themselves.
    if np.sum(in_turn & held) < EXPLAINED * held.sum():
        return explained, None
    after_silence = np.diff(sent, prepend=-np.inf) > interval_s
    quick = int(np.sum(at_once & after_silence & (came - sent < usual_s + slack_s)))
    if explained < EXPLAINED * len(sent) or quick < FEWEST_QUICK:
        return explained, None
    return explained, Delayed(
        interval_s,
        (interval_s - error_s, interval_s + error_s),
        free,
        explained,
        len(sent),
        int(held.sum()),
        float((came - sent)[held].max()),
    )


def _best(
    sent: Floats, known: Bools, turns: Floats, tried: Floats, slack_s: float
) -> tuple[float, float, int]:
    """Return the interval that explains most turns, how far it may be off, and how many are served at once.

    Over many turns in a row an error of the interval adds up, so few of ``tried`` explain them.
    """
    close = np.array([_explained(sent, known, turns, each, slack_s) for each in tried])
    free = int(close.max(axis=0).argmax())
    best = tried[close[:, free] >= close[:, free].max() - BUT]
    middle_s = float(best.min() + best.max()) / 2
    return middle_s, float(best.max() - best.min() + tried[1] - tried[0]) / 2, free


def _explained(sent: Floats, known: Bools, came: Floats, interval_s: float, slack_s: float) -> Ints:
    """Return how many answers come when they should, for each number that is served at once."""
    tat = _arrivals(sent, interval_s)[known]
    # Of all those numbers at once: one by one, this would take as long as the rest of a fit.
    turns = np.maximum(sent[known], tat - interval_s * np.arange(1, MOST_FREE + 1)[:, None])
    found: Ints = np.count_nonzero(np.abs(turns - came) <= slack_s, axis=1)
    return found


def _arrivals(sent: Floats, interval_s: float) -> Floats:
    """Return each request's theoretical arrival time: the recursion, solved with a running maximum."""
    steps = interval_s * np.arange(1, len(sent) + 1)
    found: Floats = np.maximum.accumulate(sent - steps + interval_s) + steps
    return found


def _turns(sent: Floats, tat: Floats, interval_s: float, free: int) -> Floats:
    found: Floats = np.maximum(sent, tat - (free + 1) * interval_s)
    return found
