"""Candidates for one of several limits: they never refuse what was accepted, and explain many refusals.

The other limits may have made the refusals that a candidate does not explain. The state of each limit follows
from the acceptances alone, because a request that one limit refuses is charged to none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bltybench.limits.fit.charges import ChargeBounds, Side
from bltybench.limits.fit.grid import Grid, coarse_grid, plain_grid
from bltybench.limits.fit.occupancy import OCCUPANCY
from bltybench.limits.fit.result import Fit
from bltybench.limits.fit.thresholds import GRID, SCORING
from bltybench.limits.models.families import (
    FAMILIES,
    FIXED_WINDOW,
    INTERVAL_REFILL,
    LEAKY_QUEUE,
    TOKEN_BUCKET,
    WHOLE_TOKEN_BUCKET,
)
from bltybench.limits.observations.observation import Bools, Floats, Ints, Observations
from bltybench.limits.pairs.thresholds import PAIRS

FAMILIES_OF_PAIRS = tuple(
    name for name in FAMILIES if name not in {INTERVAL_REFILL, LEAKY_QUEUE, WHOLE_TOKEN_BUCKET}
)
"""Families to search: those that are combined in practice. More would explain more by chance."""


@dataclass(frozen=True, slots=True)
class OneSided:
    """Candidates of all families."""

    family: list[str]
    period_s: Floats
    refused_acceptances: Ints
    """Acceptances that each candidate refuses."""
    explains: Bools
    """Whether each candidate (row) can have made each refusal (column)."""


def one_sided(observations: Observations, hints_s: tuple[float, ...]) -> OneSided:
    """Return the candidates that explain most refusals, at many periods of each family."""
    family: list[str] = []
    parts: list[tuple[Floats, Ints, Bools]] = []
    bounds = ChargeBounds(observations, count_refused=False)
    for name in FAMILIES_OF_PAIRS:
        grid = _grid(name, observations, hints_s)
        for part in _batches(bounds, grid):
            parts.append(_explained(name, bounds, part))
            family += [name] * len(parts[-1][0])
    period_s = np.concatenate([part[0] for part in parts])
    refused = np.concatenate([part[1] for part in parts])
    explains = np.concatenate([part[2] for part in parts])
    kept = _diverse(family, period_s, explains.sum(axis=1) - SCORING.hard_weight * refused)
    return OneSided([family[i] for i in kept.tolist()], period_s[kept], refused[kept], explains[kept])


def explained_by(fit: Fit, observations: Observations) -> Bools:
    """Return the refusals that a limit can have made, and the lost requests that it surely refused.

    A limit can have made those that any of its equivalent parameters explains: the best ones are in the
    middle of their ranges, and a window's edge there can be off by many response times at the other end.
    """
    bounds = ChargeBounds(observations, count_refused=False)
    fits = (fit, *fit.variants)
    limit = np.array([[one.limit] for one in fits])
    grid = Grid(*np.array([_cell(one, observations.origin_s) for one in fits]).T)
    surely, perhaps = (
        OCCUPANCY[fit.family](Side(bounds, bounds.every, least=least), grid) + 1 > limit + SCORING.rounding
        for least in (True, False)
    )
    mask: Bools = np.where(
        observations.refused, perhaps.any(axis=0), surely.all(axis=0) & ~observations.accepted
    )
    return mask


def _cell(fit: Fit, origin_s: float) -> tuple[float, float, float]:
    """Return the parameters of a fit in a grid: period, phase, and tokens per turn."""
    turns = fit.limit if fit.traits.refills_singly else fit.ticks or 1
    edge_s = 0.0 if fit.edge_s is None else fit.edge_s - origin_s
    return fit.period_s / turns, edge_s, fit.limit / turns


def _grid(family: str, observations: Observations, hints_s: tuple[float, ...]) -> Grid:
    """Return the coarse grid of a family for any period, because lockouts can be those of another limit."""
    if family == TOKEN_BUCKET:
        return coarse_grid(family, observations, count_refused=False, hints_s=hints_s)
    grid = coarse_grid(family, observations, count_refused=True, hints_s=hints_s)
    if family == FIXED_WINDOW:
        # The grid has the most precise recoveries as edges, which are those of the shorter limit.
        edges, period = _long_edges(observations), np.unique(grid.period)
        grid = grid.plus(plain_grid(np.repeat(period, len(edges)), np.tile(edges, len(period))))
    shortest_s = GRID.min_period_exchanges * observations.uncertainty_s()
    longest_s = PAIRS.max_short_period * observations.span_s
    usual_s = np.array([one_s for one_s in GRID.natural_periods_s if shortest_s <= one_s <= longest_s])
    if not FAMILIES[family].has_phase:
        return grid.plus(plain_grid(usual_s))
    shares = np.arange(PAIRS.phases) / PAIRS.phases
    return grid.plus(plain_grid(np.repeat(usual_s, len(shares)), np.outer(usual_s, shares).ravel()))


def _long_edges(observations: Observations) -> Floats:
    """Return where the longest lockouts can have ended."""
    ended = [lockout for lockout in observations.lockouts if lockout.recovery is not None]
    longest = sorted(ended, key=lambda lockout: -lockout.max_s)[: PAIRS.long_lockouts]
    recoveries = np.array([lockout.recovery for lockout in longest])
    low, high = recoveries[:, :1], recoveries[:, 1:]
    edges: Floats = (low + np.array([0.02, 0.5, 0.98]) * (high - low)).ravel()
    return edges


def _batches(bounds: ChargeBounds, grid: Grid) -> Iterator[Grid]:
    size = max(1, SCORING.batch_cells // max(1, len(bounds.columns)))
    for start in range(0, len(grid), size):
        yield grid.take(np.arange(start, min(start + size, len(grid))))


def _explained(family: str, bounds: ChargeBounds, grid: Grid) -> tuple[Floats, Ints, Bools]:
    """Return the best candidates of each period: their periods, refused acceptances, and refusals."""
    least, most = (OCCUPANCY[family](side, grid) for side in bounds.lenient)
    needed = _largest(least[:, : len(bounds.accepted)], max(PAIRS.refused_acceptances) + 1)
    needed = np.ceil(needed + 1 - SCORING.rounding)
    available = most[:, : len(bounds.refused)] + 1 - SCORING.rounding
    periods, counts, explained = [], [], []
    for count in PAIRS.refused_acceptances:
        limit = needed[:, max(0, needed.shape[1] - 1 - count)]
        periods.append(grid.period * limit if family == TOKEN_BUCKET else grid.period)
        counts.append((needed > limit[:, None]).sum(axis=1))
        explained.append(available > limit[:, None])
    return np.concatenate(periods), np.concatenate(counts), np.concatenate(explained)


def _largest(values: Floats, count: int) -> Floats:
    """Return the largest values of each row, in ascending order."""
    if count < values.shape[1]:
        values = np.partition(values, -count, axis=1)[:, -count:]
    return np.sort(values, axis=1)


def _diverse(family: Sequence[str], period_s: Floats, score: Ints) -> Ints:
    """Return the best candidates at each of several periods of each family."""
    low, high = np.log(period_s.min()), np.log(period_s.max())
    bins = np.minimum((np.log(period_s) - low) / (high - low) * PAIRS.period_bins, PAIRS.period_bins - 1)
    kept: list[int] = []
    taken: dict[tuple[str, int], int] = {}
    for i in np.argsort(-score, kind="stable").tolist():
        place = (family[i], int(bins[i]))
        taken[place] = taken.get(place, 0) + 1
        if taken[place] <= PAIRS.per_bin:
            kept.append(i)
    return np.array(kept, dtype=np.int64)
