"""What candidates of a family cost: decisions that contradict them, each with the limit that suits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from bltybench.limits.fit import occupancy
from bltybench.limits.fit.grid import Grid
from bltybench.limits.fit.occupancy import ChargeBounds
from bltybench.limits.observations.observation import Floats, Ints

CELLS = 50_000
"""Candidates × requests at a time: what the processor's cache holds."""
HARD = 6
"""Weight of a contradiction that no doubt about times excuses, against one that some doubt does."""
MISREAD = 4
"""Weight of a lost answer that is read otherwise than a model decides: it may never have arrived."""
FLIP_RATE = 0.01
"""Share of decisions that may contradict the true model: clocks, several nodes, other traffic."""
SURE = 150
"""So many candidates, those that the telling requests contradict least, are looked at in full at first."""
NEAR = 3 * HARD
MOST_NEAR = 400
"""Others that are looked at in full: so near to the best of them, and so many."""
FAR = 4 * HARD
"""A candidate or family so far from the best is not looked at to the end."""
OPEN = 0.3
"""Share of the decisions that may lie so near to an edge that either would do."""
EPS = 1e-6
_BEYOND = 10**9


@dataclass(frozen=True, slots=True)
class Scored:
    """Every candidate that was tried, with the best limit for it."""

    grid: Grid
    cost: Ints
    """What is minimised: HARD times the contradictions, and the doubtful ones."""
    contradictions: Ints
    limit_least: Ints
    limit_most: Ints

    def plus(self, other: Scored) -> Scored:
        """Return both."""
        return Scored(
            self.grid.plus(other.grid),
            np.concatenate([self.cost, other.cost]),
            np.concatenate([self.contradictions, other.contradictions]),
            np.concatenate([self.limit_least, other.limit_least]),
            np.concatenate([self.limit_most, other.limit_most]),
        )


Uses = Callable[[ChargeBounds, Grid], occupancy.Bounds]

USES: dict[str, Uses] = {
    "fixed_window": lambda counted, grid: occupancy.fixed(counted, grid.period, grid.phase),
    "first_hit_window": lambda counted, grid: occupancy.first_hit(counted, grid.period),
    "sliding_log": lambda counted, grid: occupancy.log(counted, grid.period),
    "sliding_counter": lambda counted, grid: occupancy.counter(counted, grid.period, grid.phase),
    "first_hit_counter": lambda counted, grid: occupancy.first_hit_counter(counted, grid.period),
    "token_bucket": lambda counted, grid: occupancy.bucket(counted, 1 / grid.period),
    "interval_refill": lambda counted, grid: occupancy.refill(counted, grid.period, grid.phase, grid.lump),
}
BUCKETS = frozenset({"token_bucket", "interval_refill"})
"""Families that need a whole token for a request."""
WEIGHTED = frozenset({"sliding_counter", "first_hit_counter"})


def allowed(decisions: int) -> int:
    """Return the most that a model may cost that is to explain so many decisions."""
    return round(HARD * (0.5 + FLIP_RATE * decisions))


def judge(family: str, counted: ChargeBounds, grid: Grid) -> Scored:
    """Count, for each candidate, the decisions that contradict the limit that suits it best.

    Candidates that cannot be among the best, or that explain nothing, are left out: some of the requests
    contradict them too often. Of a family that explains nothing, what is returned is near to the best.
    """
    if len(counted.telling) < len(counted.every) and len(grid) > SURE:
        counted.ask(counted.telling)
        at_least = np.concatenate([_least(family, counted, part) for part in _chunks(counted, grid)])
        order = np.argsort(at_least, kind="stable")
        counted.ask(counted.every)
        found = price(family, counted, grid.take(order[:SURE]))
        rest = order[SURE:]
        # Others may come near when they are looked at more closely, though they do not yet.
        near = max(int(found.cost.min()), min(int(found.cost.min()) + NEAR, allowed(len(counted.every))))
        rest = rest[at_least[rest] <= near][:MOST_NEAR]
        return found.plus(price(family, counted, grid.take(rest))) if len(rest) else found
    counted.ask(counted.every)
    return price(family, counted, grid)


def _chunks(counted: ChargeBounds, grid: Grid) -> Iterator[Grid]:
    size = max(1, CELLS // max(1, len(counted.columns)))
    for start in range(0, len(grid), size):
        yield grid.take(np.arange(start, min(start + size, len(grid))))


def _least(family: str, counted: ChargeBounds, grid: Grid) -> Ints:
    """Return what candidates cost at least: their contradictions alone."""
    least, most = USES[family](counted, grid)
    top = _top(counted)
    hard = [
        _contradictions(counted, least, most, top, whole=whole).min(axis=1)
        for whole in _wholes(family, counted)
    ]
    found: Ints = HARD * np.min(hard, axis=0)
    return found


def price(family: str, counted: ChargeBounds, grid: Grid) -> Scored:
    """Return candidates with their costs; of those that cannot be among the best, what they cost at least."""
    parts: list[Scored] = []
    best = _BEYOND
    for part in _chunks(counted, grid):
        parts.append(_priced(family, counted, part, best))
        best = min(best, int(parts[-1].cost.min()))
    return reduce(Scored.plus, parts)


def contradicted(family: str, counted: ChargeBounds, grid: Grid) -> Scored:
    """Return candidates with what contradicts them alone: all limits that some doubt excuses are as good."""
    counted.ask(counted.every)
    least, most = USES[family](counted, grid)
    top = _top(counted)
    hard = np.min(
        [_contradictions(counted, least, most, top, whole=whole) for whole in _wholes(family, counted)],
        axis=0,
    )
    return _found(grid, HARD * hard, hard, HARD * hard.min(axis=1))


def _wholes(family: str, counted: ChargeBounds) -> tuple[bool, ...]:
    """Return whether a request needs a whole token's room, or the use is rounded down: or either.

    Of many tokens no more than one of them is rounded.
    """
    if family in WEIGHTED:
        return (True,) if counted.sights.units else (False, True)
    return (family in BUCKETS,)


def _top(counted: ChargeBounds) -> int:
    return 2 * counted.sights.longest_accepted_run + 10


def _priced(family: str, counted: ChargeBounds, grid: Grid, best: int) -> Scored:
    least, most = USES[family](counted, grid)
    top, wholes = _top(counted), _wholes(family, counted)
    # A weighted counter rounds one way or the other, but not now this, now that.
    hard = np.stack([_contradictions(counted, least, most, top, whole=whole) for whole in wholes])
    cost = HARD * hard
    if counted.reads_lost:
        cost += MISREAD * np.stack([_misread(counted, least, most, top, whole=whole) for whole in wholes])
    at_least = cost.min(axis=(0, 2))
    priced = np.zeros(len(grid), dtype=np.bool_)
    bound = min(best, int(at_least.min()) + FAR)
    for _ in range(2):
        # Doubts are dear to count, and never needed of what contradictions alone put far from the best.
        near = np.flatnonzero(~priced & (at_least <= bound + HARD))
        timed = _timed(family, counted, grid.take(near), (least[near], most[near]))
        for i, whole in enumerate(wholes):
            cost[i, near] += _doubts(counted, timed, hard[i, near], top, whole=whole)
        at_least[near] = cost[:, near].min(axis=(0, 2))
        priced[near] = True
        bound = min(best, int(at_least[priced].min(initial=best)))
    which = cost.argmin(axis=0)
    hard = np.take_along_axis(hard, which[None], axis=0)[0]
    cost = cost.min(axis=0)
    return _found(grid, cost, hard, at_least)


def _found(grid: Grid, cost: Ints, hard: Ints, at_least: Ints) -> Scored:
    """Return what costs and contradictions of each limit, from 1 on, say of each candidate."""
    at_first = cost.argmin(axis=1)
    at_last = cost.shape[1] - 1 - cost[:, ::-1].argmin(axis=1)
    return Scored(grid, at_least, hard[np.arange(len(grid)), at_first], at_first + 1, at_last + 1)


def _doubts(
    counted: ChargeBounds,
    timed: tuple[occupancy.Bounds, occupancy.Bounds],
    hard: Ints,
    top: int,
    *,
    whole: bool,
) -> Ints:
    """Return what is added to the contradictions: loose bounds excuse everything.

    What a candidate says in the middle of its doubt counts a little; and where nearly every decision could
    be either, nothing is explained: each is the toss of a coin.
    """
    (least_few, most_few), (least_many, most_many) = timed
    either = _contradictions(counted, most_few, least_many, top, whole=whole) - hard
    open_by_far = np.maximum(0, either - int(OPEN * len(counted.every)))
    few, many = (least_few + most_few) / 2, (least_many + most_many) / 2
    found: Ints = _contradictions(counted, few, many, top, whole=whole) + open_by_far
    return found


def _timed(
    family: str, counted: ChargeBounds, grid: Grid, bounds: occupancy.Bounds
) -> tuple[occupancy.Bounds, occupancy.Bounds]:
    """Return the bounds that only times leave open: with what is lost and open not charged, and charged.

    An answer that may be either is no doubt: each decision is taken with the reading that suits it.
    """
    if not counted.open or not len(grid):
        return bounds, bounds
    few, many = counted.few_and_many()
    return (bounds[0], USES[family](few, grid)[1]), (USES[family](many, grid)[0], bounds[1])


def _contradictions(counted: ChargeBounds, least: Floats, most: Floats, top: int, *, whole: bool) -> Ints:
    return _against(
        least.take(counted.accepted_at, axis=1), most.take(counted.refused_at, axis=1), top, whole=whole
    )


def _misread(counted: ChargeBounds, least: Floats, most: Floats, top: int, *, whole: bool) -> Ints:
    """Return how many lost answers would have gone otherwise than they are read."""
    needed = least.take(counted.read_accepted_at, axis=1)
    allowed = most.take(counted.read_refused_at, axis=1)
    return counted.never_arrived + _against(needed, allowed, top, whole=whole)


def _against(needed: Floats, allowed: Floats, top: int, *, whole: bool) -> Ints:
    """Return what contradicts each limit from 1 on, of what was used at acceptances and at refusals.

    The search is here most of its time, so both arrays are changed in place.
    """
    # Sums of refill round; counts, weighted or not, are whole where it matters.
    if whole:
        needed += 1
        needed -= EPS
        np.ceil(needed, out=needed)
        np.ceil(allowed, out=allowed)
    else:
        np.floor(needed, out=needed)
        needed += 1
        allowed += EPS
        np.floor(allowed, out=allowed)
    allowed += 1
    # A limit is contradicted by each acceptance that needed more, and each refusal that it would let in.
    steps = _histogram(allowed, top) - _histogram(needed, top)
    found: Ints = (needed.shape[1] + np.cumsum(steps, axis=1))[:, 1:]
    return found


def _histogram(values: Floats, top: int) -> Ints:
    """Return how often each row of ``values`` has each number up to ``top``; it caps them in place."""
    k, width = len(values), top + 2
    np.minimum(values, top + 1, out=values)
    flat = values.astype(np.int64)
    flat += (np.arange(k) * width)[:, None]
    counts: Ints = np.bincount(flat.ravel(), minlength=k * width).reshape(k, width)[:, : top + 1]
    return counts
