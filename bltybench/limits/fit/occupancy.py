"""Occupancy of each limiter before a request, as bounds, for many parameters in one batch.

The observed decisions drive the state: accepted requests are charged. So the state does not depend on the
limit, and the best limit is the one that the fewest decisions contradict. Each function takes one bound for m
requests and K candidates, and returns an array of K × m: the minimum or maximum of what counted, given the
uncertainty of decision times. The recurrences are those of the models with the same names.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bltybench.limits.fit.charges import Side
from bltybench.limits.fit.grid import Grid
from bltybench.limits.observations.observation import REFUSED, UNKNOWN, Bools, Floats, Ints, Observations


class Windows:
    """The windows of requests, for each candidate (row). What depends only on a window is computed once."""

    def __init__(self, number: Floats, chain: Ints | None = None) -> None:
        """Find where the window's ``number`` changes, or the ``chain`` of windows if there are several."""
        begins = np.ones(number.shape, dtype=np.bool_)
        np.not_equal(number[:, 1:], number[:, :-1], out=begins[:, 1:])
        if chain is not None:
            begins[:, 1:] |= np.diff(chain) != 0
        self._shape, self.first = number.shape, np.flatnonzero(begins)
        self._sizes = np.diff(self.first, append=number.size)
        self.number = number.ravel()[self.first]
        self.candidate = self.first // max(1, number.shape[1])

    def spread(self, values: Floats) -> Floats:
        """Return the value of its window for each request."""
        return np.repeat(values, self._sizes).reshape(self._shape)


def fixed_window(side: Side, grid: Grid) -> Floats:
    """Return what counts in the window of each request."""
    turn = side.at - grid.phase[:, None]
    turn /= grid.period[:, None]
    windows = Windows(np.floor(turn, out=turn))
    edge = grid.phase[windows.candidate] + grid.period[windows.candidate] * windows.number
    return side.charged_since(windows.spread(side.charged.total[np.searchsorted(side.ascending, edge)]))


def first_hit_window(side: Side, grid: Grid) -> Floats:
    """Return what counts in windows that start at the first request after the previous window."""
    first = _window_starts(side, grid.period)
    over = side.at >= side.since[first] + grid.period[:, None]
    return side.charged_since(np.where(over, side.total, side.charged.total[first]))


def _window_starts(side: Side, period_s: Floats) -> Ints:
    """Return the request that started the window before each selected request."""
    bounds, observations = side.bounds, side.bounds.observations
    charged = np.flatnonzero(bounds.most.which)
    starts = np.zeros((len(period_s), len(observations) + 1), dtype=np.int64)
    # If the times leave open whether a window is over, take the middle. But an acceptance after a refusal
    # shows that it is over, if it can be.
    over_at = bounds.middle + np.where(_after_refusal(observations), observations.hi - observations.lo, 0.0)
    over_at = np.maximum.accumulate(over_at[charged])
    rows, place = np.arange(len(period_s)), np.zeros(len(period_s), dtype=np.int64)
    while len(rows):
        start = charged[place]
        starts[rows, start + 1] = start
        place = np.maximum(np.searchsorted(over_at, bounds.middle[start] + period_s[rows]), place + 1)
        remaining = place < len(charged)
        rows, place = rows[remaining], place[remaining]
    latest: Ints = np.maximum.accumulate(starts, axis=1)[:, side.columns]
    return latest


def _after_refusal(observations: Observations) -> Bools:
    """Return which requests may have been accepted directly after a refusal."""
    known = np.where(observations.codes != UNKNOWN, np.arange(len(observations)), 0)
    last = np.concatenate([[0], np.maximum.accumulate(known)[:-1]])
    mask: Bools = (observations.codes[last] == REFUSED) & (observations.codes != REFUSED)
    return mask


def sliding_log(side: Side, grid: Grid) -> Floats:
    """Return what is younger than one period."""
    first = np.searchsorted(side.ascending, side.at - grid.period[:, None], side="right")
    return side.charged_since(side.charged.total[first])


def sliding_counter(side: Side, grid: Grid) -> Floats:
    """Return the weighted estimate of two windows."""
    phase = grid.phase[:, None]
    return _weighted(side, grid.period, phase, phase)


def first_hit_counter(side: Side, grid: Grid) -> Floats:
    """Return the weighted estimate of windows that follow each other from a first request."""
    middle, period = side.bounds.middle, grid.period
    charged = np.flatnonzero(side.bounds.least.which)
    # Both counters are empty after a whole window without a request, so only after long gaps.
    gaps = np.flatnonzero(np.diff(middle[charged]) > period.min())
    first = np.zeros(len(period), dtype=np.int64) + (charged[0] if len(charged) else 0)
    firsts, begins = [first], [0]
    for gap in gaps:
        last, following = middle[charged[gap]], middle[charged[gap + 1]]
        anchor = middle[first]
        idle = np.floor((following - anchor) / period) - np.floor((last - anchor) / period) >= 2
        first = np.where(idle, charged[gap + 1], first)
        firsts.append(first)
        begins.append(int(charged[gap + 1]))
    chain = np.searchsorted(np.array(begins), side.columns, side="right") - 1
    start = np.stack(firsts, axis=1)[:, np.maximum(chain, 0)]
    return _weighted(side, period, side.since[start], side.until[start], first=start, chain=chain)


def _weighted(
    side: Side,
    period: Floats,
    anchor: Floats,
    other: Floats,
    *,
    first: Ints | None = None,
    chain: Ints | None = None,
) -> Floats:
    """Return the estimate for windows that begin between two times, with the request ``first`` if given.

    The estimate falls with time, and requests on either side of an edge count more in the later window. If
    the windows begin later, more of the previous one counts, but fewer requests are in either.
    """
    # The search spends much time here, so arrays are changed in place.
    turn = side.at - anchor
    turn /= period[:, None]
    window = np.floor(turn)
    if first is not None:
        np.maximum(window, 0.0, out=window)
    windows = Windows(window, chain)
    edge = windows.number * period[windows.candidate]
    edge += other[windows.candidate, 0] if first is None else other.ravel()[windows.first]
    start = np.searchsorted(side.ascending, edge)
    edge -= period[windows.candidate]
    previous = np.searchsorted(side.ascending, edge)
    if first is not None:
        firsts = first.ravel()[windows.first]
        start = np.where(windows.number < 1, firsts, start)
        previous = np.where(windows.number < 2, firsts, previous)
    charged = windows.spread(side.charged.total[start])
    np.minimum(charged, side.total, out=charged)
    estimate = windows.spread(side.charged.total[previous])
    np.minimum(estimate, charged, out=estimate)
    np.subtract(charged, estimate, out=estimate)
    turn -= window
    share = np.subtract(1.0, turn, out=turn)
    if first is not None:
        np.clip(share, 0.0, 1.0, out=share)
    estimate *= share
    estimate += side.total
    estimate -= charged
    return side.reordered(estimate)


def token_bucket(side: Side, grid: Grid) -> Floats:
    """Return what is missing from a full bucket."""
    rate_per_s = 1 / grid.period[:, None]
    return _drained(side, lambda at: rate_per_s * at)


def interval_refill(side: Side, grid: Grid) -> Floats:
    """Return what is missing from a bucket that gains tokens at every tick."""
    tick, phase, tokens = grid.period[:, None], grid.phase[:, None], grid.tokens[:, None]

    def refilled(at: Floats) -> Floats:
        turn: Floats = at - phase
        turn /= tick
        np.floor(turn, out=turn)
        turn *= tokens
        return turn

    return _drained(side, refilled)


def whole_token_bucket(side: Side, grid: Grid) -> Floats:
    """Return what is missing from a full bucket that gains whole tokens, counted from the last charge."""
    period, which = grid.period[:, None], np.flatnonzero(side.charged.which)
    place = np.searchsorted(which, side.columns)
    gaps = np.maximum(side.until[which[1:]] - side.since[which[:-1]], 0.0)
    # Lindley's recursion before each charge: missing = max(0, missing + 1 - refilled).
    missing = np.zeros((len(grid), len(which) + 1))
    np.subtract(np.arange(1, len(which)), np.cumsum(np.floor(gaps / period), axis=1), out=missing[:, 2:])
    missing[:, 1:] -= np.minimum.accumulate(missing[:, 1:], axis=1)
    last = which[np.maximum(place, 1) - 1] if len(which) else place
    refilled = np.floor(np.maximum(side.at - side.since[last], 0.0) / period)
    used = np.where(place > 0, np.maximum(missing.take(place, axis=1) + 1 - refilled, 0.0), 0.0)
    # Uncertain times add up over the gaps. But it never refills more than a bucket that keeps fractions.
    used = side.reordered(used)
    return np.maximum(used, token_bucket(side, grid), out=used) if side.is_least else used


def _drained(side: Side, refilled: Callable[[Floats], Floats]) -> Floats:
    """Solve Lindley's recursion, d = max(0, d - refilled) + charged, with running minima."""
    columns, total = side.columns, side.charged.total
    which = np.flatnonzero(side.charged.which)
    since = side.since[which]
    # An earlier request was also decided on earlier, even if its latest time is after ``at``.
    open_from = np.searchsorted(np.maximum.accumulate(since), side.at, side="right")
    open_from = np.minimum(np.searchsorted(which, columns), open_from)
    first_open = np.append(which, len(side.since))[open_from]
    in_flight = side.total - total[np.minimum(first_open, columns)]
    refill = refilled(since)
    lowest = np.full((len(refill), len(which) + 1), np.inf)
    np.subtract(total[which], refill, out=lowest[:, 1:])
    np.minimum.accumulate(lowest, axis=1, out=lowest)
    drained = side.total - refilled(side.at)
    drained -= lowest.take(open_from, axis=1)
    return side.reordered(np.maximum(in_flight, drained, out=drained))


OCCUPANCY: dict[str, Callable[[Side, Grid], Floats]] = {
    function.__name__: function
    for function in (
        fixed_window,
        first_hit_window,
        sliding_log,
        sliding_counter,
        first_hit_counter,
        token_bucket,
        whole_token_bucket,
        interval_refill,
    )
}
"""The function of each family."""
