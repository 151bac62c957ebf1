"""Occupancy of each limiter before a request, as bounds, for many parameters in one batch.

The observed decisions drive the state: accepted requests are charged. So the state does not depend on the
limit, and the best limit is the one that the fewest decisions contradict. Each function takes K candidates
and returns two arrays of K × m, for the m selected requests: the minimum and maximum of what counted, given
the uncertainty of decision times. The recurrences are those of the models with the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import numpy as np

from bltybench.limits.fit.grid import Grid
from bltybench.limits.fit.thresholds import SCORING, SEARCH
from bltybench.limits.observations.observation import (
    ACCEPTED,
    REFUSED,
    UNKNOWN,
    Bools,
    Floats,
    Ints,
    Observations,
)

Bounds = tuple[Floats, Floats]


class ChargeBounds:
    """Prefix sums of the minimum and maximum charges, and the requests to compute the occupancy for."""

    def __init__(self, observations: Observations, *, count_refused: bool) -> None:
        self.observations = observations
        self._count_refused = count_refused
        self._extremes: tuple[ChargeBounds, ChargeBounds] | None = None
        codes = observations.codes
        self.lost = np.flatnonzero(codes == UNKNOWN)
        self.latest: Floats = np.maximum.accumulate(observations.hi) if len(observations) else observations.hi
        self.middle = (observations.lo + observations.hi) / 2
        self.every = np.arange(len(observations))
        self.informative = _informative(observations)
        self.columns = self.every
        self.charge(_assume_accepted(np.where(codes == REFUSED, ACCEPTED, codes) if count_refused else codes))

    def charge(self, charges: Ints) -> None:
        """Set which requests are charged (ACCEPTED), not charged (REFUSED), or either (UNKNOWN)."""
        self.charges = charges
        self._extremes = None
        self.has_unknown = bool(np.any(charges == UNKNOWN))
        # If refused requests count too, every request that arrived is charged.
        self.never_arrived = int(np.sum(charges[self.lost] == REFUSED)) if self._count_refused else 0
        self.charged_min: Ints = (charges == ACCEPTED).astype(np.int64)
        self.charged_max: Ints = (charges != REFUSED).astype(np.int64)
        self.total_min = np.concatenate([[0], np.cumsum(self.charged_min)])
        self.total_max = np.concatenate([[0], np.cumsum(self.charged_max)])
        self._reordered_min, _ = self.observations.offsets(self.charged_min)
        _, self._reordered_max = self.observations.offsets(self.charged_max)
        self.select(self.columns)

    def select(self, columns: Ints) -> None:
        """Compute the occupancy for these requests from now on."""
        self.columns = columns
        self.lo, self.hi = self.observations.lo[columns], self.observations.hi[columns]
        refused = self.observations.refused[columns]
        self.accepted_at = np.flatnonzero(self.observations.accepted[columns])
        self.refused_at = np.flatnonzero(refused)
        # A charge shows an acceptance, unless refused requests are charged too.
        lost = (self.observations.codes[columns] == UNKNOWN) & (not self._count_refused)
        self.lost_accepted_at = np.flatnonzero(lost & (self.charges[columns] == ACCEPTED))
        self.lost_refused_at = np.flatnonzero(lost & (self.charges[columns] == REFUSED))
        self._more = self._reordered_max[columns]
        # Acceptances in flight with a refusal came before it, if they can have.
        self._less = np.where(refused, -self._more, self._reordered_min[columns])

    def extremes(self) -> tuple[ChargeBounds, ChargeBounds]:
        """Return the same requests with no unknown one charged, and with all of them charged."""
        if self._extremes is None:
            self._extremes = self._filled(REFUSED), self._filled(ACCEPTED)
        for extreme in self._extremes:
            if extreme.columns is not self.columns:
                extreme.select(self.columns)
        return self._extremes

    def _filled(self, code: int) -> ChargeBounds:
        other = copy(self)
        other.charge(np.where(self.charges == UNKNOWN, code, self.charges))
        return other

    @property
    def assigns_lost(self) -> bool:
        """Whether a lost response has an assumed outcome, which a model can contradict."""
        return bool(len(self.lost_accepted_at) or len(self.lost_refused_at) or self.never_arrived)

    def charged_since(self, first_min: Ints, first_max: Ints) -> Bounds:
        """Return what was charged from some requests on, before the selected ones."""
        least = self.total_min[self.columns] - self.total_min[np.minimum(first_min, self.columns)]
        most = self.total_max[self.columns] - self.total_max[np.minimum(first_max, self.columns)]
        return self.reordered(least, most)

    def reordered(self, least: Floats | Ints, most: Floats | Ints) -> Bounds:
        """Widen bounds by the unknown order of requests in flight."""
        return np.maximum(0.0, least - self._less), np.asarray(most + self._more, dtype=np.float64)


def _assume_accepted(charges: Ints) -> Ints:
    """Charge lost responses between acceptances. Next to a refusal, a bucket accepts single requests."""
    known = np.flatnonzero(charges != UNKNOWN)
    count, filled = SEARCH.accepted_neighbors, charges.copy()
    for lost in np.flatnonzero(charges == UNKNOWN):
        place = int(np.searchsorted(known, lost))
        # Fewer before the first requests are enough: nothing was refused yet.
        before, after = known[max(0, place - count) : place], known[place : place + count]
        neighbors = charges[np.concatenate([before, after])]
        if len(after) == count and np.all(neighbors == ACCEPTED):
            filled[lost] = ACCEPTED
    return filled


def _informative(observations: Observations) -> Ints:
    """Return the requests at which refusals begin or end, and an even sample of the others."""
    n, max_count = len(observations), SCORING.informative_requests
    if n <= max_count:
        return np.arange(n)
    known = np.flatnonzero(observations.codes != UNKNOWN)
    turns = np.flatnonzero(np.diff(observations.codes[known])) + 1
    # Random refusals begin and end all the time. A part of them shows that no candidate fits.
    turns = turns[:: -(-len(turns) // max_count)] if len(turns) else turns
    sample = np.linspace(0, n - 1, max_count // 4).astype(np.int64)
    return np.unique(np.concatenate([known[turns - 1], known[turns], sample]))


def fixed_window(bounds: ChargeBounds, grid: Grid) -> Bounds:
    """Return what counts in the window of each request."""
    period, phase = grid.period[:, None], grid.phase[:, None]
    # The minimum uses the latest time of the decision. The maximum uses the earliest, and counts every
    # request that may have been decided on in the same window.
    latest_edge = phase + period * np.floor((bounds.hi - phase) / period)
    earliest_edge = phase + period * np.floor((bounds.lo - phase) / period)
    return bounds.charged_since(
        np.searchsorted(bounds.observations.lo, latest_edge), np.searchsorted(bounds.latest, earliest_edge)
    )


def first_hit_window(bounds: ChargeBounds, grid: Grid) -> Bounds:
    """Return what counts in windows that start at the first request after the previous window."""
    observations, period = bounds.observations, grid.period[:, None]
    first = _window_starts(bounds, grid.period)
    maybe_over = bounds.hi >= observations.lo[first] + period
    surely_over = bounds.lo >= observations.hi[first] + period
    return bounds.charged_since(
        np.where(maybe_over, bounds.columns, first), np.where(surely_over, bounds.columns, first)
    )


def _window_starts(bounds: ChargeBounds, period_s: Floats) -> Ints:
    """Return the request that started the window before each selected request."""
    observations, charged = bounds.observations, np.flatnonzero(bounds.charged_max)
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
    latest: Ints = np.maximum.accumulate(starts, axis=1)[:, bounds.columns]
    return latest


def _after_refusal(observations: Observations) -> Bools:
    """Return which requests may have been accepted directly after a refusal."""
    known = np.where(observations.codes != UNKNOWN, np.arange(len(observations)), 0)
    last = np.concatenate([[0], np.maximum.accumulate(known)[:-1]])
    mask: Bools = (observations.codes[last] == REFUSED) & (observations.codes != REFUSED)
    return mask


def sliding_log(bounds: ChargeBounds, grid: Grid) -> Bounds:
    """Return what is younger than one period."""
    period = grid.period[:, None]
    return bounds.charged_since(
        np.searchsorted(bounds.observations.lo, bounds.hi - period, side="right"),
        np.searchsorted(bounds.latest, bounds.lo - period, side="right"),
    )


def sliding_counter(bounds: ChargeBounds, grid: Grid) -> Bounds:
    """Return the weighted estimate of two windows."""
    phase = grid.phase[:, None]
    return _weighted(bounds, grid.period[:, None], phase, phase, None)


def first_hit_counter(bounds: ChargeBounds, grid: Grid) -> Bounds:
    """Return the weighted estimate of windows that follow each other from a first request."""
    observations, middle, period = bounds.observations, bounds.middle, grid.period
    charged = np.flatnonzero(bounds.charged_min)
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
    chain = np.searchsorted(np.array(begins), bounds.columns, side="right") - 1
    start = np.stack(firsts, axis=1)[:, np.maximum(chain, 0)]
    return _weighted(bounds, period[:, None], observations.lo[start], observations.hi[start], start)


def _weighted(
    bounds: ChargeBounds, period: Floats, earliest: Floats, latest: Floats, first: Ints | None
) -> Bounds:
    """Return the estimate for windows that begin between two times, with the request ``first`` if given.

    The estimate falls with time, and requests on either side of an edge count more in the later window.
    """
    estimates = []
    for at, anchor, other, times, total in (
        (bounds.hi, earliest, latest, bounds.observations.lo, bounds.total_min),
        (bounds.lo, latest, earliest, bounds.latest, bounds.total_max),
    ):
        # If the windows begin later, more of the previous one counts, but fewer requests are in either. The
        # search spends much time here, so arrays are changed in place.
        turn = at - anchor
        turn /= period
        window = np.floor(turn)
        if first is not None:
            np.maximum(window, 0.0, out=window)
        edge = window * period
        edge += other
        start = np.searchsorted(times, edge)
        edge -= period
        previous = np.searchsorted(times, edge)
        if first is not None:
            start, previous = np.where(window < 1, first, start), np.where(window < 2, first, previous)
        np.minimum(start, bounds.columns, out=start)
        np.minimum(previous, start, out=previous)
        turn -= window
        share = np.clip(np.subtract(1.0, turn, out=turn), 0.0, 1.0, out=turn)
        used = total.astype(np.float64)
        charged = used.take(start)
        estimate = charged - used.take(previous)
        estimate *= share
        estimate += used[bounds.columns]
        estimate -= charged
        estimates.append(estimate)
    return bounds.reordered(estimates[0], estimates[1])


def token_bucket(bounds: ChargeBounds, grid: Grid) -> Bounds:
    """Return what is missing from a full bucket."""
    rate_per_s = 1 / grid.period
    return _drained(bounds, lambda at: rate_per_s[:, None] * at)


def interval_refill(bounds: ChargeBounds, grid: Grid) -> Bounds:
    """Return what is missing from a bucket that gains tokens at every tick."""
    tick, phase, tokens = grid.period[:, None], grid.phase[:, None], grid.tokens[:, None]

    def refilled(at: Floats) -> Floats:
        turn: Floats = at - phase
        turn /= tick
        np.floor(turn, out=turn)
        turn *= tokens
        return turn

    return _drained(bounds, refilled)


def _drained(bounds: ChargeBounds, refilled: Callable[[Floats], Floats]) -> Bounds:
    """Solve Lindley's recursion, d = max(0, d - refilled) + charged, with running minima."""
    observations = bounds.observations
    missing = []
    for total, charged, at, since in (
        (bounds.total_min, bounds.charged_min, bounds.hi, observations.lo),
        (bounds.total_max, bounds.charged_max, bounds.lo, observations.hi),
    ):
        which = np.flatnonzero(charged)
        refill = refilled(since[which])
        lowest = np.full((len(refill), len(which) + 1), np.inf)
        np.subtract(total[which], refill, out=lowest[:, 1:])
        np.minimum.accumulate(lowest, axis=1, out=lowest)
        past = np.searchsorted(which, bounds.columns)
        # An earlier request was also decided on earlier, even if its latest time is after ``at``.
        latest = np.maximum.accumulate(since[which])
        open_from = np.minimum(past, np.searchsorted(latest, at, side="right"))
        first_open = np.append(which, len(observations))[open_from]
        in_flight = total[bounds.columns] - total[np.minimum(first_open, bounds.columns)]
        drained = total[bounds.columns] - refilled(at)
        drained -= lowest.take(open_from, axis=1)
        missing.append(np.maximum(in_flight, drained))
    return bounds.reordered(missing[0], missing[1])


OCCUPANCY: dict[str, Callable[[ChargeBounds, Grid], Bounds]] = {
    function.__name__: function
    for function in (
        fixed_window,
        first_hit_window,
        sliding_log,
        sliding_counter,
        first_hit_counter,
        token_bucket,
        interval_refill,
    )
}
"""The function of each family."""
