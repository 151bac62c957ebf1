"""Cost of candidates: the decisions that contradict each, at the limit that fits it best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from bltybench.limits.fit.charges import ChargeBounds
from bltybench.limits.fit.evidence import allowed_contradictions
from bltybench.limits.fit.grid import Grid
from bltybench.limits.fit.occupancy import OCCUPANCY
from bltybench.limits.fit.thresholds import EVIDENCE, SCORING
from bltybench.limits.models.families import FAMILIES, WHOLE_TOKEN_BUCKET
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
    slack: int = 0
    """Cost above the lowest up to which a candidate with no more contradictions is equivalent to the best."""
    short_s: float = 0.0
    """Period below which this is ``short_period_slack``."""

    def plus(self, other: Scored) -> Scored:
        """Return the candidates of both."""
        return Scored(
            self.grid.plus(other.grid),
            np.concatenate([self.cost, other.cost]),
            np.concatenate([self.contradictions, other.contradictions]),
            np.concatenate([self.limit_min, other.limit_min]),
            np.concatenate([self.limit_max, other.limit_max]),
            self.slack,
            self.short_s,
        )

    @property
    def lowest(self) -> int:
        """The cost of the best candidate."""
        return int(self.cost.min())

    @property
    def equivalent(self) -> Ints:
        """The indices of the candidates that only ambiguous decisions distinguish from the best."""
        best = int(self.cost.argmin())
        excess = self.cost - self.cost[best]
        no_worse = self.contradictions <= self.contradictions[best]
        slack = SCORING.short_period_slack if self.grid.period[best] < self.short_s else self.slack
        return np.flatnonzero((excess <= SCORING.hard_weight // 2) | (no_worse & (excess <= slack)))


def allowed_cost(observations: Observations, *, probed: bool = False) -> int:
    """Return the maximum cost at which a model still explains the observations."""
    rarer = int(min(np.sum(observations.accepted), np.sum(observations.refused)))
    allowed = allowed_contradictions(len(observations), rarer)
    if probed:
        allowed = min(allowed, EVIDENCE.max_probe_contradictions)
    return round(SCORING.hard_weight * allowed)


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
    hard = _hard(family, bounds, _lenient(family, bounds, grid))
    return _scored(family, bounds, grid, [SCORING.hard_weight * counts for counts in hard], hard)


def _batches(bounds: ChargeBounds, grid: Grid) -> Iterator[Grid]:
    columns, every = max(1, len(bounds.columns)), max(1, len(bounds.every))
    size = max(1, min(SCORING.batch_cells // columns, SCORING.state_cells // every))
    for start in range(0, len(grid), size):
        yield grid.take(np.arange(start, min(start + size, len(grid))))


def _lower_bound(family: str, bounds: ChargeBounds, grid: Grid) -> Ints:
    """Return the cost of the contradictions alone."""
    hard = _hard(family, bounds, _lenient(family, bounds, grid))
    return SCORING.hard_weight * _lowest(hard)


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
    used, roundings = _lenient(family, bounds, grid), _roundings(family, bounds)
    hard = _hard(family, bounds, used)
    costs = [SCORING.hard_weight * counts for counts in hard]
    if bounds.assigns_lost:
        lost = used[0][:, len(bounds.accepted) :], used[1][:, len(bounds.refused) :]
        for i, whole in enumerate(roundings):
            misread = bounds.never_arrived + _contradictions(bounds, *lost, whole=whole)
            costs[i] += SCORING.misread_cost * misread
    lowest = _lowest(costs)
    exact = np.zeros(len(grid), dtype=np.bool_)
    threshold = min(best, int(lowest.min()) + SCORING.far_cost)
    for _ in range(2):
        # Ambiguous decisions are expensive to count, so count them only for candidates that can be the best.
        near = np.flatnonzero(~exact & (lowest <= threshold + SCORING.hard_weight))
        if len(near):
            strict = [OCCUPANCY[family](side, grid.take(near)) for side in bounds.strict]
            middles = _middles(family, bounds, grid.take(near), [low[near] for low in used], strict)
            for cost, counts, whole in zip(costs, hard, roundings, strict=True):
                ambiguous = [_ambiguous(bounds, strict, one, counts[near], whole=whole) for one in middles]
                cost[near] += reduce(np.minimum, ambiguous)
            lowest[near] = _lowest([cost[near] for cost in costs])
            exact[near] = True
        threshold = min(best, int(lowest[exact].min(initial=best)))
    return _scored(family, bounds, grid, costs, hard)


def _middles(
    family: str, bounds: ChargeBounds, grid: Grid, lenient: Sequence[Floats], strict: Sequence[Floats]
) -> list[list[Floats]]:
    """Return the likely usage before acceptances and refusals. If there are several, the best one counts."""
    average = [(low[:, : high.shape[1]] + high) / 2 for low, high in zip(lenient, strict, strict=True)]
    if family != WHOLE_TOKEN_BUCKET:
        return [average]
    # Each uncertain gap moves the bounds of all later requests apart, until nothing follows from them.
    return [average, [OCCUPANCY[family](side, grid) for side in bounds.exact]]


def _lowest(costs: Sequence[Ints]) -> Ints:
    """Return the lowest cost of each candidate, at any limit and with either rounding."""
    lowest: Ints = np.min([cost.min(axis=1) for cost in costs], axis=0)
    return lowest


def _scored(
    family: str, bounds: ChargeBounds, grid: Grid, costs: Sequence[Ints], contradictions: Sequence[Ints]
) -> Scored:
    """Return the best limits, given costs and contradictions per rounding, candidate (row), and limit."""
    cost = reduce(np.minimum, costs)
    rows, first = np.arange(len(grid)), cost.argmin(axis=1)
    last = cost.shape[1] - 1 - cost[:, ::-1].argmin(axis=1)
    rounding = np.argmin([one[rows, first] for one in costs], axis=0)
    contradicted = np.choose(rounding, [one[rows, first] for one in contradictions])
    slack = SCORING.whole_token_slack if family == WHOLE_TOKEN_BUCKET else 0
    short_s = 0.0
    if FAMILIES[family].kind == "log":
        short_s = SCORING.short_period_exchanges * bounds.observations.uncertainty_s()
    return Scored(grid, cost[rows, first], contradicted, first + 1, last + 1, slack, short_s)


def _lenient(family: str, bounds: ChargeBounds, grid: Grid) -> list[Floats]:
    """Return the minimum usage before acceptances and the maximum before refusals."""
    return [OCCUPANCY[family](side, grid) for side in bounds.lenient]


def _hard(family: str, bounds: ChargeBounds, used: Sequence[Floats]) -> list[Ints]:
    """Return the contradictions that timing uncertainty can't explain, for each rounding."""
    needed, available = used[0][:, : len(bounds.accepted)], used[1][:, : len(bounds.refused)]
    return [_contradictions(bounds, needed, available, whole=whole) for whole in _roundings(family, bounds)]


def _ambiguous(
    bounds: ChargeBounds, strict: Sequence[Floats], middle: Sequence[Floats], hard: Ints, *, whole: bool
) -> Ints:
    """Return the cost of ambiguous decisions, which is added to that of the contradictions.

    A decision costs 1 if it contradicts the middle of its bounds. More than ``max_open_fraction`` ambiguous
    decisions cost 1 each, because wide bounds fit anything.
    """
    either = _contradictions(bounds, *strict, whole=whole) - hard
    excess = np.maximum(0, either - int(SCORING.max_open_fraction * len(bounds.every)))
    cost: Ints = _contradictions(bounds, *middle, whole=whole) + excess
    return cost


def _contradictions(bounds: ChargeBounds, needed: Floats, available: Floats, *, whole: bool) -> Ints:
    """Return, for each candidate and each limit from 1 on, the decisions that contradict it.

    These are acceptances that needed more, and refusals that it would accept.
    """
    # Refill sums have rounding errors. Counts, weighted or not, are exact where it matters.
    if whole:
        needed = needed - SCORING.rounding
        needed, available = np.ceil(needed, out=needed), np.ceil(available)
    else:
        available = available + SCORING.rounding
    max_limit = 2 * bounds.observations.longest_accepted_run + 10
    steps = _histogram(available, max_limit)
    steps -= _histogram(needed, max_limit)
    counts: Ints = np.cumsum(steps, axis=1, out=steps)[:, :-1]
    counts += needed.shape[1]
    return counts


def _histogram(values: Floats, max_value: int) -> Ints:
    """Return how often each row has each whole number, with those above ``max_value`` capped."""
    # The search spends much time here. Counting is faster than comparing with each limit.
    rows, width = len(values), max_value + 1
    whole = np.minimum(values, max_value).astype(np.int64)
    whole += (np.arange(rows) * width)[:, None]
    counts: Ints = np.bincount(whole.ravel(), minlength=rows * width).reshape(rows, width)
    return counts
