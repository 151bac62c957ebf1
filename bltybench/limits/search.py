"""For one family: the parameters that the fewest observed decisions contradict, by a grid that is refined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from bltybench.limits import usage
from bltybench.limits.grid import (
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
from bltybench.limits.sights import ACCEPTED, REFUSED, UNKNOWN, Floats, Ints, Sights
from bltybench.limits.usage import Counted

CELLS = 50_000
"""Candidates × requests at a time: what the processor's cache holds."""
HARD = 6
"""Weight of a contradiction that no doubt about times excuses, against one that some doubt does."""
FLIP_RATE = 0.01
"""Share of decisions that may contradict the true model: clocks, several nodes, other traffic."""
SURE = 150
"""So many candidates, those that the telling requests contradict least, are looked at in full at first."""
NEAR = 3 * HARD
MOST_NEAR = 400
"""Others that are looked at in full: so near to the best of them, and so many."""
KEPT = 10
"""Candidates that are refined."""
BASINS = (40, 12, 6, 6, 6)
"""Other periods that are looked at too, in each round of refining."""
FINER = 3.0
"""From one round to the next."""
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
_BEYOND = 10**9
FAR = 4 * HARD
"""A family so far from the best is not refined to the end."""
FALLING = 0.7
"""Share of its cost that a finer look leaves of one that may come near."""
APART = 0.01
"""Periods that differ by so much, relative, are such."""
MOST_LOST = 24
"""Lost answers up to which each is read as what explains more; more of them are left open."""
RECOUNTED = 400
"""Candidates that are counted anew when lost answers are read otherwise."""


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

    def follow(self, other: Search) -> None:
        """Try the periods that suit a family whose windows begin with the first request."""
        grid = other.found.grid.take(spread(other.found, KEPT))
        grid = from_the_first(grid, self._counted.sights)
        self.found = self.found.plus(judge(self.family, self._counted, grid))

    def refine(self, least: int | None = None) -> None:
        """Look more closely around the best, as long as it may come near to a cost of ``least``."""
        sights = self._counted.sights
        span_s = float(sights.hi[-1] - sights.lo[0])
        self._read_lost()
        for finer, others in enumerate(BASINS):
            found = self.found
            chosen = _basins(found, others)
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
                return
        self._read_lost()

    def _read_lost(self) -> None:
        """Read each lost answer as what explains more, where that differs; and count anew."""
        counted, family = self._counted, self.family
        if not self.cost or not 0 < len(counted.lost) <= MOST_LOST:
            return
        best = self.found.grid.take(_basins(self.found, BASINS[-1]))
        counted.ask(counted.every)
        before = counted.charged
        # Those of which nothing is known first.
        for lost in sorted(counted.lost.tolist(), key=lambda lost: bool(before[lost] != UNKNOWN)):
            costs = {}
            for code in (REFUSED, ACCEPTED):
                counted.charge(_with(counted.charged, lost, code))
                costs[code] = int(_price(family, counted, best).cost.min())
            gain = costs[ACCEPTED] - costs[REFUSED]
            if before[lost] == ACCEPTED:
                # Among acceptances it was one, unless that contradicts what was seen.
                code = REFUSED if gain >= HARD else ACCEPTED
            else:
                code = UNKNOWN if not gain else REFUSED if gain > 0 else ACCEPTED
            counted.charge(_with(counted.charged, lost, code))
        if np.any(counted.charged != before):
            near = np.argsort(self.found.cost, kind="stable")[:RECOUNTED]
            self.found = _price(family, counted, self.found.grid.take(near))

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
        scanned = _price(self.family, self._counted, Grid(period, phase, lump))
        return float(np.mean(scanned.cost <= self.found.cost[best]))


def _with(charged: Ints, which: int, code: int) -> Ints:
    changed = charged.copy()
    changed[which] = code
    return changed


def alike(found: Found) -> Ints:
    """Return the candidates that are hardly worse than the best, which only doubt tells apart."""
    return np.flatnonzero(found.cost <= found.cost.min() + HARD // 2)


def spread(found: Found, most: int) -> Ints:
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


def _basins(found: Found, others: int) -> Ints:
    """Return some of the best, and the best of ``others`` periods, which may come near when refined."""
    chosen = list(spread(found, KEPT))
    order = np.argsort(found.cost, kind="stable")
    order = order[found.cost[order] <= 2 * found.cost.min() + FAR][: 10 * others]
    period = np.log(found.grid.period)
    for each in order:
        if len(chosen) >= KEPT + others:
            break
        if np.min(np.abs(period[chosen] - period[each])) > APART:
            chosen.append(each)
    return np.array(chosen, dtype=np.int64)


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
        at_least = np.concatenate([_least(family, counted, part) for part in _chunks(counted, grid)])
        order = np.argsort(at_least, kind="stable")
        counted.ask(counted.every)
        found = _price(family, counted, grid.take(order[:SURE]))
        rest = order[SURE:]
        # Others may come near when they are looked at more closely, though they do not yet.
        near = max(int(found.cost.min()), min(int(found.cost.min()) + NEAR, allowed(len(counted.every))))
        rest = rest[at_least[rest] <= near][:MOST_NEAR]
        return found.plus(_price(family, counted, grid.take(rest))) if len(rest) else found
    counted.ask(counted.every)
    return _price(family, counted, grid)


def _chunks(counted: Counted, grid: Grid) -> Iterator[Grid]:
    size = max(1, CELLS // max(1, len(counted.columns)))
    for start in range(0, len(grid), size):
        yield grid.take(np.arange(start, min(start + size, len(grid))))


def _least(family: str, counted: Counted, grid: Grid) -> Ints:
    """Return what candidates cost at least: their contradictions alone."""
    least, most = USES[family](counted, grid)
    top = _top(counted)
    hard = [_contradictions(counted, least, most, top, whole=whole).min(axis=1) for whole in _wholes(family)]
    found: Ints = HARD * np.min(hard, axis=0)
    return found


def _price(family: str, counted: Counted, grid: Grid) -> Found:
    """Return candidates with their costs; of those that cannot be among the best, what they cost at least."""
    parts: list[Found] = []
    best = _BEYOND
    for part in _chunks(counted, grid):
        parts.append(_priced(family, counted, part, best))
        best = min(best, int(parts[-1].cost.min()))
    return reduce(Found.plus, parts)


def _wholes(family: str) -> tuple[bool, ...]:
    """Return whether a request needs a whole token's room, or the use is rounded down: or either."""
    return (False, True) if family in WEIGHTED else (family in BUCKETS,)


def _top(counted: Counted) -> int:
    return 2 * counted.sights.largest_run + 10


def _priced(family: str, counted: Counted, grid: Grid, best: int) -> Found:
    least, most = USES[family](counted, grid)
    top, wholes = _top(counted), _wholes(family)
    # A weighted counter rounds one way or the other, but not now this, now that.
    hard = np.stack([_contradictions(counted, least, most, top, whole=whole) for whole in wholes])
    cost = HARD * hard
    at_least = cost.min(axis=(0, 2))
    priced = np.zeros(len(grid), dtype=np.bool_)
    bound = min(best, int(at_least.min()) + FAR)
    for _ in range(2):
        # Doubts are dear to count, and never needed of what contradictions alone put far from the best.
        near = np.flatnonzero(~priced & (at_least <= bound + HARD))
        for i, whole in enumerate(wholes):
            cost[i, near] += _doubts(counted, least[near], most[near], hard[i, near], top, whole=whole)
        at_least[near] = cost[:, near].min(axis=(0, 2))
        priced[near] = True
        bound = min(best, int(at_least[priced].min(initial=best)))
    which = cost.argmin(axis=0)
    hard = np.take_along_axis(hard, which[None], axis=0)[0]
    cost = cost.min(axis=0)
    at_first = cost.argmin(axis=1)
    at_last = cost.shape[1] - 1 - cost[:, ::-1].argmin(axis=1)
    return Found(grid, at_least, hard[np.arange(len(grid)), at_first], at_first + 1, at_last + 1)


def _doubts(counted: Counted, least: Floats, most: Floats, hard: Ints, top: int, *, whole: bool) -> Ints:
    """Return what is added to the contradictions: loose bounds excuse everything.

    What a candidate says in the middle of its doubt counts a little; and where nearly every decision could
    be either, nothing is explained: each is the toss of a coin.
    """
    middle = (least + most) / 2
    either = _contradictions(counted, most, least, top, whole=whole) - hard
    open_by_far = np.maximum(0, either - int(OPEN * len(counted.every)))
    found: Ints = _contradictions(counted, middle, middle, top, whole=whole) + open_by_far
    return found


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
