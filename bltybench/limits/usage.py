"""How full each limiter was before each request, for many parameters at once, as bounds.

The observed decisions drive the state, so it does not depend on the limit: what is accepted is charged, and
the limit is then the one that the fewest decisions contradict. Each function takes K candidates and gives two
arrays of K × n: the least and the most that can have counted, over what is not known of when it was decided.
The recurrences are those of the models of the same names.
"""

from __future__ import annotations

import numpy as np

from bltybench.limits.sights import ACCEPTED, REFUSED, UNKNOWN, Floats, Ints, Sights

Bounds = tuple[Floats, Floats]

CHAIN = 1_000_000.0
"""Keeps the windows of one chain apart from those of the next."""


class Counted:
    """Prefix sums of what was charged, at least and at most."""

    def __init__(self, sights: Sights, *, count_refused: bool) -> None:
        self.sights = sights
        sure = sights.seen == ACCEPTED
        if count_refused:
            sure = sure | (sights.seen == REFUSED)
        self.sure: Ints = sure.astype(np.int64)
        self.maybe: Ints = (sure | (sights.seen == UNKNOWN)).astype(np.int64)
        self.before_sure = np.concatenate([[0], np.cumsum(self.sure)])
        self.before_maybe = np.concatenate([[0], np.cumsum(self.maybe)])
        self.less, _ = sights.offsets(self.sure)
        _, self.more = sights.offsets(self.maybe)

    def bounds(self, least: Floats, most: Floats) -> Bounds:
        """Return both with the doubt about the order of requests in flight together."""
        return np.maximum(0.0, least - self.less), most + self.more


def fixed(counted: Counted, period_s: Floats, phase_s: Floats) -> Bounds:
    """Return what counts in the window of each request."""
    early, late, starts_early, starts_late = _windows(counted.sights, period_s, phase_s)
    index = np.arange(early.shape[1])
    straddles = late > early
    # At least: seen from the latest time of its decision. A window just begun has nothing in it.
    least = np.where(straddles, 0, counted.before_sure[index] - counted.before_sure[starts_early])
    # At most: seen from the earliest, and with all that may have been decided as late as in this window.
    before = np.concatenate([starts_late[:, :1], starts_late[:, :-1]], axis=1)
    late_before = np.concatenate([late[:, :1] - 1, late[:, :-1]], axis=1)
    start = np.where(straddles, np.where(late_before >= early, before, index), starts_late)
    most = counted.before_maybe[index] - counted.before_maybe[start]
    return counted.bounds(least.astype(np.float64), most.astype(np.float64))


def first_hit(counted: Counted, period_s: Floats) -> Bounds:
    """Return what counts in windows that begin with the first request after the last window."""
    sights = counted.sights
    k, n = len(period_s), len(sights)
    least, most = np.zeros((k, n)), np.zeros((k, n))
    start_lo, start_hi = np.full(k, -np.inf), np.full(k, -np.inf)
    sure, maybe = np.zeros(k), np.zeros(k)
    for i in range(n):
        certainly_over = sights.lo[i] >= start_hi + period_s
        maybe_over = sights.hi[i] >= start_lo + period_s
        least[:, i] = np.where(maybe_over, 0, sure)
        most[:, i] = np.where(certainly_over, 0, maybe)
        if not counted.maybe[i]:
            continue
        # Where the times leave it open, whichever is the more likely of the two.
        past, left = sights.hi[i] - start_lo - period_s, start_hi + period_s - sights.lo[i]
        over = certainly_over | (maybe_over & (past >= left))
        start_lo = np.where(over, sights.lo[i], start_lo)
        start_hi = np.where(over, sights.hi[i], start_hi)
        sure = np.where(over, 0, sure) + counted.sure[i]
        maybe = np.where(over, 0, maybe) + counted.maybe[i]
    return counted.bounds(least, most)


def log(counted: Counted, period_s: Floats) -> Bounds:
    """Return what is younger than one period."""
    sights = counted.sights
    index = np.arange(len(sights))
    latest = np.maximum.accumulate(sights.hi)
    young = np.searchsorted(sights.lo, sights.hi[None, :] - period_s[:, None], side="right")
    old = np.searchsorted(latest, sights.lo[None, :] - period_s[:, None], side="right")
    least = counted.before_sure[index] - counted.before_sure[np.minimum(young, index)]
    most = counted.before_maybe[index] - counted.before_maybe[np.minimum(old, index)]
    return counted.bounds(least.astype(np.float64), most.astype(np.float64))


def counter(counted: Counted, period_s: Floats, phase_s: Floats) -> Bounds:
    """Return the weighted estimate of two windows."""
    return _weighted(counted, period_s, phase_s[:, None], np.zeros((1, 1)))


def _weighted(
    counted: Counted, period_s: Floats, phase_s: Floats, chain: Floats, *, first: float = -np.inf
) -> Bounds:
    """``first`` is the first window of a chain: its first request cannot lie before it."""
    sights = counted.sights
    early = np.maximum(np.floor((sights.lo[None, :] - phase_s) / period_s[:, None]), first) + chain
    late = np.floor((sights.hi[None, :] - phase_s) / period_s[:, None]) + chain
    starts_early, starts_late = _starts(early), _starts(late)
    found = []
    for at, window, starts, before in (
        (sights.lo, early, starts_early, counted.before_maybe),
        (sights.hi, late, starts_late, counted.before_sure),
    ):
        index = np.arange(len(sights))
        current = before[index] - before[starts]
        last = np.maximum(starts - 1, 0)
        adjacent = (starts > 0) & (np.take_along_axis(window, last, axis=1) == window - 1)
        previous = np.where(adjacent, before[starts] - before[np.take_along_axis(starts, last, axis=1)], 0)
        share = 1 - ((at[None, :] - phase_s) / period_s[:, None] + chain - window)
        found.append(previous * np.clip(share, 0, 1) + current)
    return counted.bounds(np.minimum(*found), np.maximum(*found))


def first_hit_counter(counted: Counted, period_s: Floats) -> Bounds:
    """Return the weighted estimate of windows that follow each other from a first request on."""
    sights = counted.sights
    k, n = len(period_s), len(sights)
    middle = (sights.lo + sights.hi) / 2
    anchors, chains = np.zeros((k, n)), np.zeros((k, n))
    anchor, chain, last = np.full(k, middle[0] if n else 0.0), np.zeros(k), np.full(k, -np.inf)
    for i in range(n):
        if counted.sure[i]:
            # Both counters are empty once a whole window has passed without a request.
            idle = np.floor((middle[i] - anchor) / period_s) - np.floor((last - anchor) / period_s) >= 2
            anchor, chain = np.where(idle, middle[i], anchor), chain + idle
            last = np.full(k, middle[i])
        anchors[:, i], chains[:, i] = anchor, chain
    return _weighted(counted, period_s, anchors, chains * CHAIN, first=0.0)


def bucket(counted: Counted, rate_per_s: Floats) -> Bounds:
    """Return what is missing from a full bucket."""
    lo, hi = counted.sights.lo, counted.sights.hi
    return _drained(counted, rate_per_s[:, None] * lo[None, :], rate_per_s[:, None] * hi[None, :])


def refill(counted: Counted, tick_s: Floats, phase_s: Floats, lump: Floats) -> Bounds:
    """Return what is missing from a bucket that a timer fills by ``lump`` each ``tick_s``."""
    lo, hi = counted.sights.lo, counted.sights.hi

    def given(at: Floats) -> Floats:
        ticks = np.floor((at[None, :] - phase_s[:, None]) / tick_s[:, None])
        result: Floats = lump[:, None] * ticks
        return result

    return _drained(counted, given(lo), given(hi))


def _drained(counted: Counted, given_lo: Floats, given_hi: Floats) -> Bounds:
    """Lindley's recursion d = max(0, d − given) + charged, solved with running minima."""
    found = []
    for before, charged, at, since in (
        (counted.before_sure, counted.sure, given_hi, given_lo),
        (counted.before_maybe, counted.maybe, given_lo, given_hi),
    ):
        total = before[:-1][None, :]
        floor = np.where(charged[None, :] > 0, total - since, np.inf)
        lowest = np.minimum.accumulate(floor, axis=1)
        lowest = np.concatenate([np.full((len(lowest), 1), np.inf), lowest[:, :-1]], axis=1)
        found.append(np.maximum(0.0, total - at - lowest))
    return counted.bounds(found[0], found[1])


def _windows(sights: Sights, period_s: Floats, phase_s: Floats) -> tuple[Floats, Floats, Ints, Ints]:
    """Return each request's window by its earliest and latest time, and the first index in either."""
    early = np.floor((sights.lo[None, :] - phase_s[:, None]) / period_s[:, None])
    latest = np.maximum.accumulate(sights.hi)
    late = np.floor((latest[None, :] - phase_s[:, None]) / period_s[:, None])
    return early, late, _starts(early), _starts(late)


def _starts(window: Floats) -> Ints:
    index = np.arange(window.shape[1])
    fresh = np.ones(window.shape, dtype=bool)
    fresh[:, 1:] = window[:, 1:] != window[:, :-1]
    starts: Ints = np.maximum.accumulate(np.where(fresh, index, 0), axis=1)
    return starts
