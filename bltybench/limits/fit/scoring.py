"""Cost of candidates: the decisions that contradict each, at the limit that fits it best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from bltybench.limits.fit.evidence import allowed_contradictions
from bltybench.limits.fit.grid import Grid
from bltybench.limits.fit.occupancy import OCCUPANCY, Bounds, ChargeBounds
from bltybench.limits.fit.thresholds import SCORING
from bltybench.limits.models.families import FAMILIES
from bltybench.limits.observations.observation import Floats, Ints, Observations


@dataclass(frozen=True, slots=True)
class Scored:
    """Candidates with their costs and best limits."""

    grid: Grid
    cost: Ints
    """``hard_weight`` times the contradictions, plus the ambiguous decisions. The search minimizes it."""
    contradictions: Ints
    limit_min: Ints
    limit_max: Ints

    def plus(self, other: Scored) -> Scored:
        """Return the candidates of both."""
        return Scored(
            self.grid.plus(other.grid),
            np.concatenate([self.cost, other.cost]),
            np.concatenate([self.contradictions, other.contradictions]),
            np.concatenate([self.limit_min, other.limit_min]),
            np.concatenate([self.limit_max, other.limit_max]),
        )

    @property
    def lowest(self) -> int:
        """The cost of the best candidate."""
        return int(self.cost.min())

    @property
    def equivalent(self) -> Ints:
        """The indices of the candidates that only ambiguous decisions distinguish from the best."""
        return np.flatnonzero(self.cost <= self.cost.min() + SCORING.hard_weight // 2)


def allowed_cost(observations: Observations) -> int:
    """Return the maximum cost at which a model still explains the observations."""
    rarer = int(min(np.sum(observations.accepted), np.sum(observations.refused)))
    return round(SCORING.hard_weight * allowed_contradictions(len(observations), rarer))


def score_pruned(family: str, bounds: ChargeBounds, grid: Grid) -> Scored:
    """Score the candidates that can be among the best, or that can become so when refined.

    The others contradict too many of the informative requests. If no candidate fits, the result is close to
    the best.
    """
    if len(bounds.informative) == len(bounds.every) or len(grid) <= SCORING.screened:
        bounds.select(bounds.every)
        return score(family, bounds, grid)
    bounds.select(bounds.informative)
    lower_bound = np.concatenate([_lower_bound(family, bounds, batch) for batch in _batches(bounds, grid)])
    order = np.argsort(lower_bound, kind="stable")
    bounds.select(bounds.every)
    scored = score(family, bounds, grid.take(order[: SCORING.screened]))
    others = order[SCORING.screened :]
    near = max(scored.lowest, min(scored.lowest + SCORING.near_cost, allowed_cost(bounds.observations)))
    others = others[lower_bound[others] <= near][: SCORING.max_near]
    return scored.plus(score(family, bounds, grid.take(others))) if len(others) else scored


def score(family: str, bounds: ChargeBounds, grid: Grid) -> Scored:
    """Score candidates. The costs of those that can't be among the best are lower bounds."""
    parts: list[Scored] = []
    best = int(np.iinfo(np.int64).max)
    for batch in _batches(bounds, grid):
        parts.append(_score_batch(family, bounds, batch, best))
        best = min(best, parts[-1].lowest)
    return reduce(Scored.plus, parts)


def score_contradictions(family: str, bounds: ChargeBounds, grid: Grid) -> Scored:
    """Score candidates by contradictions alone, so all limits that are only ambiguous are equivalent."""
    bounds.select(bounds.every)
    used = OCCUPANCY[family](bounds, grid)
    hard = np.min(
        [_contradictions(bounds, *used, whole=whole) for whole in _roundings(family, bounds)], axis=0
    )
    cost = SCORING.hard_weight * hard
    return _scored(grid, cost, hard, cost.min(axis=1))


def _batches(bounds: ChargeBounds, grid: Grid) -> Iterator[Grid]:
    size = max(1, SCORING.batch_cells // max(1, len(bounds.columns)))
    for start in range(0, len(grid), size):
        yield grid.take(np.arange(start, min(start + size, len(grid))))


def _lower_bound(family: str, bounds: ChargeBounds, grid: Grid) -> Ints:
    """Return the cost of the contradictions alone."""
    used = OCCUPANCY[family](bounds, grid)
    hard = [_contradictions(bounds, *used, whole=whole).min(axis=1) for whole in _roundings(family, bounds)]
    cost: Ints = SCORING.hard_weight * np.min(hard, axis=0)
    return cost


def _roundings(family: str, bounds: ChargeBounds) -> tuple[bool, ...]:
    """Return whether a request needs room for a whole token, or whether usage is rounded down.

    A weighted counter does either, but the same for all requests. If a request stands for many tokens,
    rounding to one token makes no difference.
    """
    kind = FAMILIES[family].kind
    if kind == "counter":
        return (True,) if bounds.observations.units else (False, True)
    return (kind == "bucket",)


def _score_batch(family: str, bounds: ChargeBounds, grid: Grid, best: int) -> Scored:
    used_min, used_max = OCCUPANCY[family](bounds, grid)
    roundings = _roundings(family, bounds)
    hard = np.stack([_contradictions(bounds, used_min, used_max, whole=whole) for whole in roundings])
    cost = SCORING.hard_weight * hard
    if bounds.assigns_lost:
        misread = [_misread(bounds, used_min, used_max, whole=whole) for whole in roundings]
        cost += SCORING.misread_cost * np.stack(misread)
    lowest = cost.min(axis=(0, 2))
    exact = np.zeros(len(grid), dtype=np.bool_)
    threshold = min(best, int(lowest.min()) + SCORING.far_cost)
    for _ in range(2):
        # Ambiguous decisions are expensive to count, so count them only for candidates that can be the best.
        near = np.flatnonzero(~exact & (lowest <= threshold + SCORING.hard_weight))
        timing = _timing_bounds(family, bounds, grid.take(near), (used_min[near], used_max[near]))
        for i, whole in enumerate(roundings):
            cost[i, near] += _ambiguous(bounds, *timing, hard[i, near], whole=whole)
        lowest[near] = cost[:, near].min(axis=(0, 2))
        exact[near] = True
        threshold = min(best, int(lowest[exact].min(initial=best)))
    rounding = cost.argmin(axis=0)
    hard = np.take_along_axis(hard, rounding[None], axis=0)[0]
    return _scored(grid, cost.min(axis=0), hard, lowest)


def _scored(grid: Grid, cost: Ints, contradictions: Ints, lowest: Ints) -> Scored:
    """Return the best limits, given costs and contradictions per candidate (row) and limit (column)."""
    first = cost.argmin(axis=1)
    last = cost.shape[1] - 1 - cost[:, ::-1].argmin(axis=1)
    return Scored(grid, lowest, contradictions[np.arange(len(grid)), first], first + 1, last + 1)


def _timing_bounds(family: str, bounds: ChargeBounds, grid: Grid, used: Bounds) -> tuple[Bounds, Bounds]:
    """Return what timing alone leaves open, with no unknown request charged, and with all of them charged.

    An unknown outcome is not ambiguous: each decision is compared with the outcome that fits it.
    """
    if not bounds.has_unknown or not len(grid):
        return used, used
    none_charged, all_charged = bounds.extremes()
    return (used[0], OCCUPANCY[family](none_charged, grid)[1]), (
        OCCUPANCY[family](all_charged, grid)[0],
        used[1],
    )


def _ambiguous(bounds: ChargeBounds, low: Bounds, high: Bounds, hard: Ints, *, whole: bool) -> Ints:
    """Return the cost of ambiguous decisions, which is added to that of the contradictions.

    A decision costs 1 if it contradicts the middle of its bounds. More than ``max_open_fraction`` ambiguous
    decisions cost 1 each, because wide bounds fit anything.
    """
    either = _contradictions(bounds, low[1], high[0], whole=whole) - hard
    excess = np.maximum(0, either - int(SCORING.max_open_fraction * len(bounds.every)))
    low_middle, high_middle = (low[0] + low[1]) / 2, (high[0] + high[1]) / 2
    cost: Ints = _contradictions(bounds, low_middle, high_middle, whole=whole) + excess
    return cost


def _contradictions(bounds: ChargeBounds, used_min: Floats, used_max: Floats, *, whole: bool) -> Ints:
    """Return, for each candidate and each limit from 1 on, the decisions that contradict it."""
    needed = used_min.take(bounds.accepted_at, axis=1)
    available = used_max.take(bounds.refused_at, axis=1)
    return _count(bounds, needed, available, whole=whole)


def _misread(bounds: ChargeBounds, used_min: Floats, used_max: Floats, *, whole: bool) -> Ints:
    """Return the lost responses whose assumed outcome the model contradicts."""
    needed = used_min.take(bounds.lost_accepted_at, axis=1)
    available = used_max.take(bounds.lost_refused_at, axis=1)
    return bounds.never_arrived + _count(bounds, needed, available, whole=whole)


def _count(bounds: ChargeBounds, needed: Floats, available: Floats, *, whole: bool) -> Ints:
    """Return what contradicts each limit: acceptances that needed more, and refusals that it would accept.

    The search spends most of its time here, so both arrays are changed in place.
    """
    # Refill sums have rounding errors. Counts, weighted or not, are exact where it matters.
    if whole:
        needed += 1
        needed -= SCORING.rounding
        np.ceil(needed, out=needed)
        np.ceil(available, out=available)
    else:
        np.floor(needed, out=needed)
        needed += 1
        available += SCORING.rounding
        np.floor(available, out=available)
    available += 1
    max_limit = 2 * bounds.observations.longest_accepted_run + 10
    steps = _histogram(available, max_limit) - _histogram(needed, max_limit)
    counts: Ints = (needed.shape[1] + np.cumsum(steps, axis=1))[:, 1:]
    return counts


def _histogram(values: Floats, max_value: int) -> Ints:
    """Return how often each row has each number up to ``max_value``. Larger values are capped in place."""
    rows, width = len(values), max_value + 2
    np.minimum(values, max_value + 1, out=values)
    flat = values.astype(np.int64)
    flat += (np.arange(rows) * width)[:, None]
    counts: Ints = np.bincount(flat.ravel(), minlength=rows * width).reshape(rows, width)[:, : max_value + 1]
    return counts
