"""How full each limiter was before a request, for many parameters at once, as bounds.

The observed decisions drive the state, so it does not depend on the limit: what is accepted is charged, and
the limit is then the one that the fewest decisions contradict. Each function takes K candidates and gives two
arrays of K × m, for the m requests that are asked about: the least and the most that can have counted, over
what is not known of when it was decided. The recurrences are those of the models of the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import numpy as np
import numpy.typing as npt

from bltybench.limits.observations.observation import ACCEPTED, REFUSED, UNKNOWN, Floats, Ints, Observations

Bounds = tuple[Floats, Floats]

PLAIN = 80
"""Up to so many requests all are asked about at once."""
AMONG = 2


class ChargeBounds:
    """Prefix sums of what was charged, at least and at most; and which requests are asked about."""

    def __init__(self, sights: Observations, *, count_refused: bool) -> None:
        self.sights = sights
        self._count_refused = count_refused
        self._read: tuple[ChargeBounds, ChargeBounds] | None = None
        self.lost = np.flatnonzero(sights.codes == UNKNOWN)
        self.latest: Floats = np.maximum.accumulate(sights.hi) if len(sights) else sights.hi
        self.middle = (sights.lo + sights.hi) / 2
        self.every = np.arange(len(sights))
        self.telling = _telling(sights)
        charged = np.where(sights.codes == REFUSED, ACCEPTED, sights.codes) if count_refused else sights.codes
        self.columns = self.every
        self.charge(_among_acceptances(charged))

    def few_and_many(self) -> tuple[ChargeBounds, ChargeBounds]:
        """Return the same requests with nothing charged that only may be, and with all of it."""
        if self._read is None:
            self._read = self._filled(REFUSED), self._filled(ACCEPTED)
        for each in self._read:
            if each.columns is not self.columns:
                each.ask(self.columns)
        return self._read

    def _filled(self, code: int) -> ChargeBounds:
        other = copy(self)
        other.charge(np.where(self.charged == UNKNOWN, code, self.charged))
        return other

    def charge(self, charged: Ints) -> None:
        """Take requests as charged (1), not charged (0), or maybe (UNKNOWN)."""
        self.charged = charged
        self._read = None
        self.open = bool(np.any(charged == UNKNOWN))
        # Where refusals count too, whatever arrived is charged.
        self.never_arrived = int(np.sum(charged[self.lost] == REFUSED)) if self._count_refused else 0
        self.sure: Ints = (charged == ACCEPTED).astype(np.int64)
        self.maybe: Ints = (charged != REFUSED).astype(np.int64)
        self.before_sure = np.concatenate([[0], np.cumsum(self.sure)])
        self.before_maybe = np.concatenate([[0], np.cumsum(self.maybe)])
        self._less, _ = self.sights.offsets(self.sure)
        _, self._more = self.sights.offsets(self.maybe)
        self.ask(self.columns)

    def ask(self, columns: Ints) -> None:
        """Ask about these requests from now on."""
        self.columns = columns
        self.lo, self.hi = self.sights.lo[columns], self.sights.hi[columns]
        refused = self.sights.refused[columns]
        self.accepted_at = np.flatnonzero(self.sights.accepted[columns])
        self.refused_at = np.flatnonzero(refused)
        # What is charged was let in, unless refusals are charged too.
        lost = (self.sights.codes[columns] == UNKNOWN) & (not self._count_refused)
        self.read_accepted_at = np.flatnonzero(lost & (self.charged[columns] == ACCEPTED))
        self.read_refused_at = np.flatnonzero(lost & (self.charged[columns] == REFUSED))
        self._more_here = self._more[columns]
        # Refused in flight with what was let in: that came first, where it can have.
        self._less_here = np.where(refused, -self._more_here, self._less[columns])

    @property
    def reads_lost(self) -> bool:
        """Return whether a lost answer is read as what a model may contradict."""
        return bool(len(self.read_accepted_at) or len(self.read_refused_at) or self.never_arrived)

    def since(self, least_from: Ints, most_from: Ints) -> Bounds:
        """Return what was charged from some requests on, before the ones asked about."""
        least = self.before_sure[self.columns] - self.before_sure[np.minimum(least_from, self.columns)]
        most = self.before_maybe[self.columns] - self.before_maybe[np.minimum(most_from, self.columns)]
        return self.bounds(least, most)

    def bounds(self, least: Floats | Ints, most: Floats | Ints) -> Bounds:
        """Return both with the doubt about the order of requests in flight together."""
        return np.maximum(0.0, least - self._less_here), np.asarray(most + self._more_here, dtype=np.float64)


def _among_acceptances(charged: Ints) -> Ints:
    """Read a lost answer as an acceptance where the AMONG on either side were charged.

    Beside a refusal it may have been either: a bucket lets single ones in there.
    """
    known = np.flatnonzero(charged != UNKNOWN)
    filled = charged.copy()
    for lost in np.flatnonzero(charged == UNKNOWN):
        place = int(np.searchsorted(known, lost))
        before, after = known[max(0, place - AMONG) : place], known[place : place + AMONG]
        # Before the first requests nothing was refused.
        if len(after) == AMONG and np.all(charged[before] == ACCEPTED) and np.all(charged[after] == ACCEPTED):
            filled[lost] = ACCEPTED
    return filled


def _telling(sights: Observations) -> Ints:
    """Return the requests that tell most: where refusals begin and end, and some of the others."""
    n = len(sights)
    if n <= PLAIN:
        return np.arange(n)
    known = np.flatnonzero(sights.codes != UNKNOWN)
    turns = np.flatnonzero(np.diff(sights.codes[known])) + 1
    # Refusals by chance begin and end all the time: a part of them tells that nothing explains them.
    turns = turns[:: -(-len(turns) // PLAIN)] if len(turns) else turns
    some = np.linspace(0, n - 1, PLAIN // 4).astype(np.int64)
    return np.unique(np.concatenate([known[turns - 1], known[turns], some]))


def fixed(counted: ChargeBounds, period_s: Floats, phase_s: Floats) -> Bounds:
    """Return what counts in the window of each request."""
    period, phase = period_s[:, None], phase_s[:, None]
    # At least: seen from the latest time of its decision. At most: seen from the earliest, and with all
    # that may have been decided as late as in this window.
    latest_edge = phase + period * np.floor((counted.hi - phase) / period)
    earliest_edge = phase + period * np.floor((counted.lo - phase) / period)
    return counted.since(
        np.searchsorted(counted.sights.lo, latest_edge), np.searchsorted(counted.latest, earliest_edge)
    )


def first_hit(counted: ChargeBounds, period_s: Floats) -> Bounds:
    """Return what counts in windows that begin with the first request after the last window."""
    sights = counted.sights
    last = _first_hits(counted, period_s)
    period = period_s[:, None]
    maybe_over = counted.hi >= sights.lo[last] + period
    certainly_over = counted.lo >= sights.hi[last] + period
    return counted.since(
        np.where(maybe_over, counted.columns, last), np.where(certainly_over, counted.columns, last)
    )


def _first_hits(counted: ChargeBounds, period_s: Floats) -> Ints:
    """Return the request that began the window before each that is asked about."""
    sights, charged = counted.sights, np.flatnonzero(counted.maybe)
    began = np.zeros((len(period_s), len(sights) + 1), dtype=np.int64)
    # Where the times leave open whether a window is over, the more likely; but what is let in after a refusal
    # shows that it is, if only it can be.
    over_at = counted.middle + np.where(_after_refusal(sights), sights.hi - sights.lo, 0.0)
    over_at = np.maximum.accumulate(over_at[charged])
    rows, place = np.arange(len(period_s)), np.zeros(len(period_s), dtype=np.int64)
    while len(rows):
        start = charged[place]
        began[rows, start + 1] = start
        place = np.maximum(np.searchsorted(over_at, counted.middle[start] + period_s[rows]), place + 1)
        going = place < len(charged)
        rows, place = rows[going], place[going]
    last: Ints = np.maximum.accumulate(began, axis=1)[:, counted.columns]
    return last


def _after_refusal(sights: Observations) -> npt.NDArray[np.bool_]:
    """Return what may have been let in, where the last answer before it that came was a refusal."""
    known = np.where(sights.codes != UNKNOWN, np.arange(len(sights)), 0)
    last = np.concatenate([[0], np.maximum.accumulate(known)[:-1]])
    found: npt.NDArray[np.bool_] = (sights.codes[last] == REFUSED) & (sights.codes != REFUSED)
    return found


def log(counted: ChargeBounds, period_s: Floats) -> Bounds:
    """Return what is younger than one period."""
    period = period_s[:, None]
    return counted.since(
        np.searchsorted(counted.sights.lo, counted.hi - period, side="right"),
        np.searchsorted(counted.latest, counted.lo - period, side="right"),
    )


def counter(counted: ChargeBounds, period_s: Floats, phase_s: Floats) -> Bounds:
    """Return the weighted estimate of two windows."""
    phase = phase_s[:, None]
    return _weighted(counted, period_s[:, None], phase, phase, None)


def first_hit_counter(counted: ChargeBounds, period_s: Floats) -> Bounds:
    """Return the weighted estimate of windows that follow each other from a first request on."""
    sights, middle = counted.sights, counted.middle
    charged = np.flatnonzero(counted.sure)
    # Both counters are empty once a whole window has passed without a request: only after long gaps.
    gaps = np.flatnonzero(np.diff(middle[charged]) > period_s.min())
    first = np.zeros(len(period_s), dtype=np.int64) + (charged[0] if len(charged) else 0)
    firsts, begins = [first], [0]
    for gap in gaps:
        last, following = middle[charged[gap]], middle[charged[gap + 1]]
        anchor = middle[first]
        idle = np.floor((following - anchor) / period_s) - np.floor((last - anchor) / period_s) >= 2
        first = np.where(idle, charged[gap + 1], first)
        firsts.append(first)
        begins.append(int(charged[gap + 1]))
    chain = np.searchsorted(np.array(begins), counted.columns, side="right") - 1
    began = np.stack(firsts, axis=1)[:, np.maximum(chain, 0)]
    return _weighted(counted, period_s[:, None], sights.lo[began], sights.hi[began], began)


def _weighted(
    counted: ChargeBounds, period: Floats, earliest: Floats, latest: Floats, first: Ints | None
) -> Bounds:
    """Windows begin between ``earliest`` and ``latest``, with the request ``first`` where that is given.

    The estimate falls with time, and what lies on either side of an edge counts more in the later window.
    """
    found = []
    for at, anchor, other, times, before in (
        (counted.hi, earliest, latest, counted.sights.lo, counted.before_sure),
        (counted.lo, latest, earliest, counted.latest, counted.before_maybe),
    ):
        # The later windows begin, the more of the previous one counts, but the fewer lie in either. Much of a
        # search is spent here, so arrays are changed in place.
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
        np.minimum(start, counted.columns, out=start)
        np.minimum(previous, start, out=previous)
        turn -= window
        share = np.clip(np.subtract(1.0, turn, out=turn), 0.0, 1.0, out=turn)
        used = before.astype(np.float64)
        charged = used.take(start)
        estimate = charged - used.take(previous)
        estimate *= share
        estimate += used[counted.columns]
        estimate -= charged
        found.append(estimate)
    return counted.bounds(found[0], found[1])


def bucket(counted: ChargeBounds, rate_per_s: Floats) -> Bounds:
    """Return what is missing from a full bucket."""
    return _drained(counted, lambda at: rate_per_s[:, None] * at)


def refill(counted: ChargeBounds, tick_s: Floats, phase_s: Floats, lump: Floats) -> Bounds:
    """Return what is missing from a bucket that a timer fills by ``lump`` each ``tick_s``."""
    tick, phase, each = tick_s[:, None], phase_s[:, None], lump[:, None]

    def given(at: Floats) -> Floats:
        turn: Floats = at - phase
        turn /= tick
        np.floor(turn, out=turn)
        turn *= each
        return turn

    return _drained(counted, given)


def _drained(counted: ChargeBounds, given: Callable[[Floats], Floats]) -> Bounds:
    """Lindley's recursion d = max(0, d − given) + charged, solved with running minima."""
    sights = counted.sights
    found = []
    for before, charged, at, since in (
        (counted.before_sure, counted.sure, counted.hi, sights.lo),
        (counted.before_maybe, counted.maybe, counted.lo, sights.hi),
    ):
        which = np.flatnonzero(charged)
        gone = given(since[which])
        lowest = np.full((len(gone), len(which) + 1), np.inf)
        np.subtract(before[which], gone, out=lowest[:, 1:])
        np.minimum.accumulate(lowest, axis=1, out=lowest)
        past = np.searchsorted(which, counted.columns)
        # What came before this was decided on before it too, though it may have been later than ``at``.
        latest = np.maximum.accumulate(since[which])
        open_from = np.minimum(past, np.searchsorted(latest, at, side="right"))
        first_open = np.append(which, len(sights))[open_from]
        together = before[counted.columns] - before[np.minimum(first_open, counted.columns)]
        drained = before[counted.columns] - given(at)
        drained -= lowest.take(open_from, axis=1)
        found.append(np.maximum(together, drained))
    return counted.bounds(found[0], found[1])
