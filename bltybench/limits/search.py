"""For one family: the parameters that the fewest observed decisions contradict, by a grid that is refined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bltybench.limits import usage
from bltybench.limits.grid import DRIFT, PHASED, PHASES, STEP, Grid, around, coarse, narrow, ticks_and_lumps
from bltybench.limits.sights import Floats, Ints, Sights
from bltybench.limits.usage import Counted

CELLS = 50_000
"""Candidates × requests at a time: what the processor's cache holds."""
SURE = 60
"""So many candidates, those that the telling requests contradict least, are looked at in full at first."""
KEPT = 10
"""Candidates that are refined."""
ROUNDS = 4
SCAN = 200
"""Phases at which it is asked how many would do."""
OPEN = 0.3
"""Share of the decisions that may lie so near to an edge that either would do."""
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Found:
    """Every candidate that was tried, with the best limit for it."""

    grid: Grid
    cost: Ints
    """What is minimised: HARD times the contradictions, and the doubtful ones."""
    contradictions: Ints
    limit_least: Ints
    limit_most: Ints

    def plus(self, other: Found) -> Found:
        """Return both."""
        return Found(
            self.grid.plus(other.grid),
            np.concatenate([self.cost, other.cost]),
            np.concatenate([self.contradictions, other.contradictions]),
            np.concatenate([self.limit_least, other.limit_least]),
            np.concatenate([self.limit_most, other.limit_most]),
        )


Uses = Callable[[Counted, Grid], usage.Bounds]

USES: dict[str, Uses] = {
    "fixed_window": lambda counted, grid: usage.fixed(counted, grid.period, grid.phase),
    "first_hit_window": lambda counted, grid: usage.first_hit(counted, grid.period),
    "sliding_log": lambda counted, grid: usage.log(counted, grid.period),
    "sliding_counter": lambda counted, grid: usage.counter(counted, grid.period, grid.phase),
    "first_hit_counter": lambda counted, grid: usage.first_hit_counter(counted, grid.period),
    "token_bucket": lambda counted, grid: usage.bucket(counted, 1 / grid.period),
    "interval_refill": lambda counted, grid: usage.refill(counted, grid.period, grid.phase, grid.lump),
}
BUCKETS = frozenset({"token_bucket", "interval_refill"})
"""Families that need a whole token for a request."""
WEIGHTED = frozenset({"sliding_counter", "first_hit_counter"})
HARD = 6
"""Weight of a contradiction that no doubt about times excuses, against one that some doubt does."""
FLIP_RATE = 0.01
"""Share of decisions that may contradict the true model: clocks, several nodes, other traffic."""
FAR = 4 * HARD
"""A family so far from the best is not refined to the end."""


class Search:
    """The search for the parameters of one family: ``start`` tries a grid, ``refine`` finer ones."""

    def __init__(
        self,
        family: str,
        sights: Sights,
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
        self._counted = Counted(sights, count_refused=count_refused)
        if family == "interval_refill":
            first = ticks_and_lumps(sights, rates or (0.0, np.inf))
        else:
            first = coarse(family, sights, count_refused=count_refused, hints_s=hints_s)
        self.found = judge(family, self._counted, first)

    @property
    def size(self) -> int:
        """Return how many requests were seen."""
        return len(self._counted.sights)

    @property
    def cost(self) -> int:
        """Return the least cost so far."""
        return int(self.found.cost.min())

    def refine(self, least: int | None = None) -> None:
        """Look more closely around the best, as long as it may come near to a cost of ``least``."""
        sights, found = self._counted.sights, self.found
        span_s = float(sights.hi[-1] - sights.lo[0])
        for finer in range(ROUNDS):
            chosen = spread(found, KEPT)
            kept = found.grid.take(chosen)
            width = np.full(len(kept), STEP - 1)
            if self.family in PHASED:
                width = np.minimum(width, DRIFT * kept.period / span_s)
            slack_s = kept.period / PHASES
            if self.family == "fixed_window":
                slack_s = np.minimum(slack_s, max(hi - lo for lo, hi in narrow(sights)))
            if self.family == "interval_refill":
                kept, width, slack_s = _shared(found, chosen, width, slack_s)
            closer = around(self.family, kept, width / 4**finer, slack_s / 4**finer)
            before = int(found.cost.min())
            found = found.plus(judge(self.family, self._counted, closer))
            stuck = finer > 0 and int(found.cost.min()) == before
            if stuck and least is not None and before > least + FAR:
                break
        self.found = found

    def phase_share(self, best: int) -> float:
        """Return the share of all phases that are no worse with the other parameters of ``best``."""
        if self.family not in PHASED:
            return 1.0
        grid, steps = self.found.grid, np.arange(SCAN)
        period = np.full(SCAN, grid.period[best])
        lump = np.full(SCAN, grid.lump[best])
        phase = grid.phase[best] + period * steps / SCAN
        self._counted.ask(self._counted.every)
        scanned = _chunked(self.family, self._counted, Grid(period, phase, lump))
        return float(np.mean(scanned.cost <= self.found.cost[best]))


def alike(found: Found) -> Ints:
    """Return the candidates that are hardly worse than the best, which only doubt tells apart."""
    return np.flatnonzero(found.cost <= found.cost.min() + HARD // 2)


def spread(found: Found, most: int) -> Ints:
    """Return about ``most`` of the best candidates: of many as good, over all that they leave open."""
    ties = alike(found)
    if len(ties) <= most:
        best = np.argsort(found.cost, kind="stable")[: 4 * most]
        return best[:: max(1, len(best) // most)][:most]
    grid = found.grid
    ends = [
        ties[int(pick(values[ties]))]
        for values in (grid.period, grid.phase % grid.period, found.limit_least)
        for pick in (np.argmin, np.argmax)
    ]
    ties = ties[np.argsort(grid.period[ties], kind="stable")]
    chosen: Ints = np.unique([*ends, *ties[np.linspace(0, len(ties) - 1, most - len(ends)).astype(np.int64)]])
    return chosen


def allowed(decisions: int) -> int:
    """Return the most that a model may cost that is to explain so many decisions."""
    return round(HARD * (0.5 + FLIP_RATE * decisions))


def judge(family: str, counted: Counted, grid: Grid) -> Found:
    """Count, for each candidate, the decisions that contradict the limit that suits it best.

    Candidates that cannot be among the best, or that explain nothing, are left out: some of the requests
    contradict them too often. Of a family that explains nothing, what is returned is near to the best.
    """
    if len(counted.telling) < len(counted.every) and len(grid) > SURE:
        counted.ask(counted.telling)
        at_least = _chunked(family, counted, grid).cost
        order = np.argsort(at_least, kind="stable")
        counted.ask(counted.every)
        found = _chunked(family, counted, grid.take(order[:SURE]))
        rest = order[SURE:]
        rest = rest[at_least[rest] <= min(int(found.cost.min()), allowed(len(counted.every)))]
        return found.plus(_chunked(family, counted, grid.take(rest))) if len(rest) else found
    counted.ask(counted.every)
    return _chunked(family, counted, grid)


def _chunked(family: str, counted: Counted, grid: Grid) -> Found:
    chunk = max(1, CELLS // max(1, len(counted.columns)))
    parts = [
        _judge(family, counted, grid.take(np.arange(start, min(start + chunk, len(grid)))))
        for start in range(0, len(grid), chunk)
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.plus(part)
    return whole


def _judge(family: str, counted: Counted, grid: Grid) -> Found:
    least, most = USES[family](counted, grid)
    top = 2 * counted.sights.largest_run + 10
    # A weighted counter either rounds its use down or needs a whole token's room, but not now this, now that.
    wholes = (False, True) if family in WEIGHTED else (family in BUCKETS,)
    cost, hard = _priced(counted, least, most, top, whole=wholes[0])
    for whole in wholes[1:]:
        other, other_hard = _priced(counted, least, most, top, whole=whole)
        hard = np.where(other < cost, other_hard, hard)
        cost = np.minimum(other, cost)
    best = cost.min(axis=1)
    at_least = cost.argmin(axis=1)
    at_most = cost.shape[1] - 1 - cost[:, ::-1].argmin(axis=1)
    return Found(grid, best, hard[np.arange(len(grid)), at_least], at_least + 1, at_most + 1)


def _priced(counted: Counted, least: Floats, most: Floats, top: int, *, whole: bool) -> tuple[Ints, Ints]:
    """Return, for each candidate and each limit from 1 to ``top``, its cost and its contradictions."""
    hard = _contradictions(counted, least, most, top, whole=whole)
    # Loose bounds excuse everything: what a candidate says in the middle of its doubt counts a little too.
    middle = (least + most) / 2
    cost = HARD * hard + _contradictions(counted, middle, middle, top, whole=whole)
    if len(counted.columns) == len(counted.every):
        # Where nearly every decision could be either, nothing is explained: each is the toss of a coin.
        either = _contradictions(counted, most, least, top, whole=whole) - hard
        cost += np.maximum(0, either - int(OPEN * len(counted.every)))
    return cost, hard


def _contradictions(counted: Counted, least: Floats, most: Floats, top: int, *, whole: bool) -> Ints:
    # Sums of refill round; counts, weighted or not, are whole where it matters.
    used, left = least[:, counted.accepted], most[:, counted.refused]
    needed = np.ceil(used + 1 - EPS) if whole else np.floor(used) + 1
    allowed = np.ceil(left) if whole else np.floor(left + EPS)
    # A limit is contradicted by each acceptance that needed more, and each refusal that it would let in.
    steps = _histogram(allowed + 1, top) - _histogram(needed, top)
    found: Ints = (needed.shape[1] + np.cumsum(steps, axis=1))[:, 1:]
    return found


def _histogram(values: Floats, top: int) -> Ints:
    k = len(values)
    flat = (np.minimum(values, top + 1) + (np.arange(k) * (top + 2))[:, None]).astype(np.int64).ravel()
    counts: Ints = np.bincount(flat, minlength=k * (top + 2)).reshape(k, top + 2)[:, : top + 1]
    return counts


def _shared(found: Found, chosen: Ints, width: Floats, slack_s: Floats) -> tuple[Grid, Floats, Floats]:
    """Return candidates with lumps that share out the limit that suits each, or one near to it."""
    grid, limit = found.grid.take(chosen), found.limit_least[chosen]
    parts = np.maximum(np.round(limit / grid.lump), 1)
    lump = np.concatenate([(limit + more) / parts for more in (-1, 0, 1)])
    lump = np.where(lump > 0, lump, np.tile(grid.lump, 3))
    return Grid(np.tile(grid.period, 3), np.tile(grid.phase, 3), lump), np.tile(width, 3), np.tile(slack_s, 3)
