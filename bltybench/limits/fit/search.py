"""For one family: the parameters that the fewest observed decisions contradict, by a grid that is refined."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from bltybench.limits.fit.grid import (
    DRIFT,
    PHASED,
    PHASES,
    STEP,
    Grid,
    around,
    coarse,
    from_the_first,
    narrow,
    ticks_and_lumps,
)
from bltybench.limits.fit.missing import likeliest, otherwise
from bltybench.limits.fit.occupancy import ChargeBounds
from bltybench.limits.fit.scoring import FAR, HARD, Scored, judge, price
from bltybench.limits.observations.observation import Floats, Ints, Observations

NEIGHBOURS = 2
RATE_OFF = 1.2
"""What was found of a limit and a rate may be so much off where a tick is mistaken for another."""
BESIDE, PERIODS, PHASES_BESIDE = 0.12, 61, 24
"""Where something contradicts the best, so much to either side of its period is looked at, in such steps."""
KEPT = 10
"""Candidates that are refined."""
BASINS = (40, 12, 6, 6, 6)
"""Other periods that are looked at too, in each round of refining."""
FINER = 3.0
"""From one round to the next."""
SCAN = 200
"""Phases at which it is asked how many would do."""
FALLING = 0.7
"""Share of its cost that a finer look leaves of one that may come near."""
APART = 0.01
"""Periods that differ by so much, relative, are such."""
MOST_LOST = 24
"""Lost answers up to which each is read as what explains more; more of them are left open."""
OFF_SHARE, OFF_ROUNDS = 1 / 16, 2
"""So many contradictions a request are looked at too, in so many rounds, where ticks may happen to suit."""
READINGS = 4
"""Other readings of lost answers that are looked at closely: those that explain most."""
RECOUNTED = 400
"""Candidates that are counted anew when lost answers are read otherwise."""


class FamilySearch:
    """The search for the parameters of one family: a coarse grid first; ``refine`` tries finer ones."""

    def __init__(
        self,
        family: str,
        sights: Observations,
        *,
        count_refused: bool = False,
        hints_s: tuple[float, ...] = (),
        rates: tuple[float, float] | None = None,
    ) -> None:
        """``hints_s`` are periods to try in any case, ``rates`` bound how much lumps may give a second.

        There must be a recovery in ``sights``.
        """
        self.family = family
        self.count_refused = count_refused
        self._hints_s = hints_s
        self._counted = ChargeBounds(sights, count_refused=count_refused)
        self._unread = self._counted.charged
        if family == "interval_refill":
            first = ticks_and_lumps(sights, rates or (0.0, np.inf))
        else:
            first = coarse(family, sights, count_refused=count_refused, hints_s=hints_s)
        self.found = self._coarse = judge(family, self._counted, first)

    @property
    def _off(self) -> float:
        """Return what the true ticks of a refill may cost beside another that happens to suit on the grid."""
        return HARD * OFF_SHARE * self.size if self.family == "interval_refill" else 0.0

    @property
    def size(self) -> int:
        """Return how many requests were seen."""
        return len(self._counted.sights)

    @property
    def cost(self) -> int:
        """Return the least cost so far."""
        return int(self.found.cost.min())

    def follow(self, other: FamilySearch) -> None:
        """Try the periods that suit a family whose windows begin with the first request."""
        grid = other.found.grid.take(spread(other.found, KEPT))
        grid = from_the_first(grid, self._counted.sights)
        self.found = self.found.plus(judge(self.family, self._counted, grid))

    def share_out(self) -> None:
        """Try all ticks of a refill anew, with lumps that share out about the limit that suits best.

        A bucket that fills while it is used up shows more than its limit, and no lump is a part of that.
        """
        best = int(self.found.cost.argmin())
        rate = float(self.found.grid.lump[best] / self.found.grid.period[best])
        limit = int(self.found.limit_least[best])
        limits = range(max(1, limit - NEIGHBOURS), limit + NEIGHBOURS + 1)
        self._anew(ticks_and_lumps(self._counted.sights, (rate / RATE_OFF, rate * RATE_OFF), limits))

    def look_beside(self) -> None:
        """Try periods near the best anew, with more phases: some of as many windows may be taken for it."""
        best = int(self.found.cost.argmin())
        period = float(self.found.grid.period[best]) * np.linspace(1 - BESIDE, 1 + BESIDE, PERIODS)
        share = np.arange(PHASES_BESIDE) / PHASES_BESIDE
        phase = self._counted.sights.hi[-1] / 2 + period[:, None] * share
        self._anew(Grid(np.repeat(period, PHASES_BESIDE), phase.ravel(), np.zeros(phase.size)))

    def _anew(self, grid: Grid) -> None:
        """Search from these by themselves: beside what is refined they would not be looked at closely."""
        before, charged = self.found, self._counted.charged
        self._counted.charge(self._unread)
        self.found = judge(self.family, self._counted, grid)
        self._coarse = self._coarse.plus(self.found)
        self.refine()
        if self.cost >= before.cost.min():
            # Lost answers too are read again as they were.
            self._counted.charge(charged)
            self.found = before

    def refine(self, least: int | None = None) -> None:
        """Look more closely around the best, as long as it may come near to a cost of ``least``."""
        self._read_lost()
        if self._closer(least):
            self._read_lost()

    def _closer(self, least: int | None) -> bool:
        """Look more closely around the best; whether to the end."""
        sights = self._counted.sights
        span_s = float(sights.hi[-1] - sights.lo[0])
        for finer, others in enumerate(BASINS):
            found = self.found
            # What is documented may be right though another period needs no phase as exact as it does.
            basins = _basins(found, others, self._off if finer < OFF_ROUNDS else 0)
            chosen = np.union1d(basins, _nearest(found, self._hints_s))
            kept = found.grid.take(chosen)
            width = np.full(len(kept), STEP - 1)
            if self.family in PHASED:
                width = np.minimum(width, DRIFT * kept.period / span_s)
            slack_s = kept.period / PHASES
            if self.family == "fixed_window":
                slack_s = np.minimum(slack_s, max(hi - lo for lo, hi in narrow(sights)))
            if self.family == "interval_refill":
                kept, width, slack_s = _shared(found, chosen, width, slack_s)
            closer = around(self.family, kept, width / FINER**finer, slack_s / FINER**finer)
            before = self.cost
            self.found = found.plus(judge(self.family, self._counted, closer))
            if least is not None and self.cost > least + FAR and self.cost > FALLING * before:
                return False
        return True

    def _read_lost(self) -> None:
        """Read each lost answer as what explains more, where that differs; and count anew."""
        counted = self._counted
        if not self.cost or not 0 < len(counted.lost) <= MOST_LOST:
            return
        best = self.found.grid.take(_basins(self.found, BASINS[-1]))
        counted.ask(counted.every)
        before = counted.charged
        after = likeliest(counted, lambda: self._least_of(best), HARD)
        if np.any(after != before):
            self.found = self._recounted()

    def read_otherwise(self) -> None:
        """Add what is found where lost answers went otherwise, as far as that explains as much.

        Which way they went is not known then, so what is said must hold for all.
        """
        counted, own, found = self._counted, self._counted.charged, self.found
        if not 0 < len(counted.lost) <= MOST_LOST or np.array_equal(own, self._unread):
            return  # nothing was read one way only
        grid = self._coarse.grid.take(_basins(self._coarse, BASINS[0]))
        grid = grid.plus(found.grid.take(_basins(found, BASINS[-1])))
        readings = [each for each in otherwise(self._unread, own) if not np.array_equal(each, own)]
        counted.ask(counted.every)
        costs = []
        for charged in readings:
            counted.charge(charged)
            costs.append(self._least_of(grid))
        enough = int(found.cost.min()) + HARD // 2
        for i in np.argsort(costs, kind="stable")[:READINGS]:
            if costs[i] > 2 * enough + FAR + self._off:
                break
            counted.charge(readings[i])
            self.found = price(self.family, counted, grid)
            self._closer(enough)
            if self.cost <= enough:
                own = counted.charged if self.cost < found.cost.min() else own
                found = found.plus(self.found)
        counted.charge(own)
        self.found = found

    def _least_of(self, grid: Grid) -> int:
        return int(price(self.family, self._counted, grid).cost.min())

    def _recounted(self) -> Scored:
        """Return the best of the candidates, counted anew."""
        near = np.argsort(self.found.cost, kind="stable")[:RECOUNTED]
        return price(self.family, self._counted, self.found.grid.take(near))

    def phase_share(self, best: int, least: int) -> float:
        """Return the share of all phases that are no worse with the other parameters of ``best``.

        1 where the family has none, or its cost is so far above ``least`` that it does not matter.
        """
        if self.family not in PHASED or self.cost > least + FAR:
            return 1.0
        grid, steps = self.found.grid, np.arange(SCAN)
        period = np.full(SCAN, grid.period[best])
        lump = np.full(SCAN, grid.lump[best])
        phase = grid.phase[best] + period * steps / SCAN
        self._counted.ask(self._counted.every)
        scanned = price(self.family, self._counted, Grid(period, phase, lump))
        no_worse = int(np.sum(scanned.cost <= self.found.cost[best]))
        return max(1, no_worse) / SCAN  # its own phase in any case


def alike(found: Scored) -> Ints:
    """Return the candidates that are hardly worse than the best, which only doubt tells apart."""
    return np.flatnonzero(found.cost <= found.cost.min() + HARD // 2)


def spread(found: Scored, most: int) -> Ints:
    """Return about ``most`` of the best candidates: of many as good, over all that they leave open."""
    ties = alike(found)
    if len(ties) <= most:
        best = np.argsort(found.cost, kind="stable")[: 4 * most]
        others = best[most // 2 :]
        few: Ints = np.concatenate([best[: most // 2], others[:: max(1, 2 * len(others) // most)]])
        return few
    grid = found.grid
    ends = [
        ties[int(pick(values[ties]))]
        for values in (grid.period, grid.phase % grid.period, found.limit_least)
        for pick in (np.argmin, np.argmax)
    ]
    ties = ties[np.argsort(grid.period[ties], kind="stable")]
    chosen: Ints = np.unique([*ends, *ties[np.linspace(0, len(ties) - 1, most - len(ends)).astype(np.int64)]])
    return chosen


def _basins(found: Scored, others: int, off: float = 0) -> Ints:
    """Return some of the best, and the best of ``others`` periods, which may come near when refined.

    They may be ``off`` by so much more.
    """
    chosen = list(spread(found, KEPT))
    order = np.argsort(found.cost, kind="stable")
    order = order[found.cost[order] <= 2 * found.cost.min() + FAR + off][: 10 * others]
    period = np.log(found.grid.period)
    taken = sorted(period[chosen].tolist())
    for each, at in zip(order.tolist(), period[order].tolist(), strict=True):
        if len(chosen) >= KEPT + others:
            break
        place = bisect_left(taken, at)
        if all(abs(at - other) > APART for other in taken[max(0, place - 1) : place + 1]):
            chosen.append(each)
            taken.insert(place, at)
    return np.array(chosen, dtype=np.int64)


def _nearest(found: Scored, periods: tuple[float, ...]) -> Ints:
    """Return the best candidate of each of these periods, if there is one."""
    best = []
    for period in periods:
        same = np.flatnonzero(np.abs(found.grid.period - period) <= 1e-9 * period)
        best += [int(same[found.cost[same].argmin()])] if len(same) else []
    return np.array(best, dtype=np.int64)


def _shared(found: Scored, chosen: Ints, width: Floats, slack_s: Floats) -> tuple[Grid, Floats, Floats]:
    """Return candidates with lumps that share out the limit that suits each, or one near to it."""
    grid, limit = found.grid.take(chosen), found.limit_least[chosen]
    parts = np.maximum(np.round(limit / grid.lump), 1)
    lump = np.concatenate([(limit + more) / parts for more in (-1, 0, 1)])
    lump = np.where(lump > 0, lump, np.tile(grid.lump, 3))
    return Grid(np.tile(grid.period, 3), np.tile(grid.phase, 3), lump), np.tile(width, 3), np.tile(slack_s, 3)
