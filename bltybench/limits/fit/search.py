"""Search for the best parameters of one family on successively finer grids."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from bltybench.limits.fit.charges import ChargeBounds, enumerate_assignments, impute_greedy
from bltybench.limits.fit.grid import (
    Grid,
    aligned_grid,
    coarse_grid,
    finer_grid,
    first_hit_grid,
    plain_grid,
    precise_recoveries,
    refill_grid,
    round_numbers,
)
from bltybench.limits.fit.scoring import Scored, score, score_pruned
from bltybench.limits.fit.thresholds import ESTIMATE, GRID, SCORING, SEARCH
from bltybench.limits.models.families import FAMILIES, FIXED_WINDOW, INTERVAL_REFILL
from bltybench.limits.observations.observation import Floats, Ints, Observations


class FamilySearch:
    """The search for one family: a coarse grid first, then ``refine``."""

    def __init__(
        self,
        family: str,
        observations: Observations,
        *,
        count_refused: bool = False,
        hints_s: tuple[float, ...] = (),
        rates_per_s: tuple[float, float] = (0.0, np.inf),
    ) -> None:
        """Score the coarse grid. The observations must contain a recovery.

        ``hints_s`` are periods to try in any case, and ``rates_per_s`` bounds the rate of an interval refill.
        """
        self.family = family
        self.count_refused = count_refused
        self._hints_s = hints_s
        self._observations = observations
        self._bounds = ChargeBounds(observations, count_refused=count_refused)
        self._unassigned = self._bounds.charges
        self.aligned_periods_s: tuple[float, ...] = ()
        """Round periods, most usual first, at which windows aligned to the clock are a best candidate."""
        if family == INTERVAL_REFILL:
            grid = refill_grid(observations, rates_per_s)
        else:
            grid = coarse_grid(family, observations, count_refused=count_refused, hints_s=hints_s)
        self.scored = self._coarse = score_pruned(family, self._bounds, grid)

    @property
    def size(self) -> int:
        """The number of observations."""
        return len(self._observations)

    @property
    def cost(self) -> int:
        """The lowest cost so far."""
        return self.scored.lowest

    def refine(self, best_cost: int | None = None) -> None:
        """Refine around the best candidates, while they can come near ``best_cost``."""
        self._assign_lost()
        if self._zoom(best_cost):
            self._assign_lost()

    def try_first_hit_periods(self, first_hit: FamilySearch) -> None:
        """Add windows that start at the first request, with the best periods of the first-hit family."""
        period = first_hit.scored.grid.period[spread(first_hit.scored, SEARCH.kept)]
        grid = first_hit_grid(period, self._observations)
        self.scored = self.scored.plus(score_pruned(self.family, self._bounds, grid))

    def retry_refill(self) -> None:
        """Search again, with tokens per tick that divide the best limit.

        A bucket that refills while it is drained seems larger than it is, and no tokens per tick divide that.
        """
        best = int(self.scored.cost.argmin())
        rate = float(self.scored.grid.tokens[best] / self.scored.grid.period[best])
        limit, n = int(self.scored.limit_min[best]), SEARCH.limit_neighbors
        rates_per_s = (rate / SEARCH.rate_factor, rate * SEARCH.rate_factor)
        limits = range(max(1, limit - n), limit + n + 1)
        self._search_again(refill_grid(self._observations, rates_per_s, limits))

    def rescan_near_best(self) -> None:
        """Search again near the best period, with more phases.

        A period with as many windows in the run can look better on a coarse grid.
        """
        best, width = int(self.scored.cost.argmin()), SEARCH.rescan_width
        period = float(self.scored.grid.period[best]) * np.linspace(
            1 - width, 1 + width, SEARCH.rescan_periods
        )
        share = np.arange(SEARCH.rescan_phases) / SEARCH.rescan_phases
        phase = self._observations.hi[-1] / 2 + period[:, None] * share
        self._search_again(plain_grid(np.repeat(period, len(share)), phase.ravel()))

    def _search_again(self, grid: Grid) -> None:
        """Search from these candidates alone, because refined ones would crowd them out."""
        before, charges = self.scored, self._bounds.charges
        self._bounds.charge(self._unassigned)
        self.scored = score_pruned(self.family, self._bounds, grid)
        self._coarse = self._coarse.plus(self.scored)
        self.refine()
        if self.cost >= before.lowest:
            self._bounds.charge(charges)
            self.scored = before

    def _zoom(self, best_cost: int | None) -> bool:
        """Score finer grids around the best candidates. Return False if the family was given up."""
        span_s, traits = self._observations.span_s, FAMILIES[self.family]
        for number, other_periods in enumerate(SEARCH.other_periods):
            scored = self.scored
            extra = self._extra_cost if number < SEARCH.refill_extra_rounds else 0.0
            # A hint may be right even if another period needs a less exact phase.
            chosen = np.union1d(
                _basins(scored, other_periods, extra), _best_at_periods(scored, self._hints_s)
            )
            grid = scored.grid.take(chosen)
            width = np.full(len(grid), GRID.period_step - 1)
            if traits.has_phase:
                width = np.minimum(width, GRID.max_drift * grid.period / span_s)
            slack_s = grid.period / GRID.phases
            if self.family == FIXED_WINDOW:
                slack_s = np.minimum(
                    slack_s, max(hi - lo for lo, hi in precise_recoveries(self._observations))
                )
            if self.family == INTERVAL_REFILL:
                grid, width, slack_s = _with_dividing_tokens(scored, chosen, width, slack_s)
            zoom = SEARCH.zoom**number
            finer = score_pruned(
                self.family, self._bounds, finer_grid(self.family, grid, width / zoom, slack_s / zoom)
            )
            self.scored = scored.plus(finer)
            far = best_cost is not None and self.cost > best_cost + SCORING.far_cost
            if far and self.cost > SEARCH.slow_progress * scored.lowest:
                return False
        return True

    @property
    def _extra_cost(self) -> float:
        """Extra cost that the true ticks can have on a coarse grid, where others fit by chance."""
        if self.family != INTERVAL_REFILL:
            return 0.0
        return SCORING.hard_weight * SEARCH.refill_extra_fraction * self.size

    def _assign_lost(self) -> None:
        """Assign each lost response the better outcome, and score the best candidates again."""
        bounds = self._bounds
        if not self.cost or not 0 < len(bounds.lost) <= SEARCH.max_lost:
            return
        best = self.scored.grid.take(_basins(self.scored, SEARCH.other_periods[-1]))
        bounds.select(bounds.every)
        before = bounds.charges
        after = impute_greedy(bounds, lambda: score(self.family, bounds, best).lowest)
        if np.any(after != before):
            near = np.argsort(self.scored.cost, kind="stable")[: SEARCH.rescored]
            self.scored = score(self.family, bounds, self.scored.grid.take(near))

    def try_other_assignments(self) -> None:
        """Add the candidates that fit as well with other outcomes of lost responses.

        The outcomes are unknown then, so the result must hold for all of them.
        """
        bounds, own, scored = self._bounds, self._bounds.charges, self.scored
        if not 0 < len(bounds.lost) <= SEARCH.max_lost or np.array_equal(own, self._unassigned):
            return
        grid = self._coarse.grid.take(_basins(self._coarse, SEARCH.other_periods[0]))
        grid = grid.plus(scored.grid.take(_basins(scored, SEARCH.other_periods[-1])))
        assignments = [
            charges
            for charges in enumerate_assignments(self._unassigned, own)
            if not np.array_equal(charges, own)
        ]
        bounds.select(bounds.every)
        costs = []
        for charges in assignments:
            bounds.charge(charges)
            costs.append(score(self.family, bounds, grid).lowest)
        enough = scored.lowest + SCORING.hard_weight // 2
        for i in np.argsort(costs, kind="stable")[: SEARCH.refined_assignments]:
            if costs[i] > 2 * enough + SCORING.far_cost + self._extra_cost:
                break
            bounds.charge(assignments[i])
            self.scored = score(self.family, bounds, grid)
            self._zoom(enough)
            if self.cost <= enough:
                own = bounds.charges if self.cost < scored.lowest else own
                scored = scored.plus(self.scored)
        bounds.charge(own)
        self.scored = scored

    def try_aligned_periods(self) -> None:
        """Add windows of a round period that are aligned to the clock, if one is near the best period.

        People configure these. The search can miss them by less than the clocks differ.
        """
        if not FAMILIES[self.family].has_recurring_windows:
            return
        periods = self.scored.grid.period[self.scored.equivalent]
        low, high = float(periods.min()), float(periods.max())
        if high - low > ESTIMATE.max_rounding * (high + low):
            return
        slack = ESTIMATE.rounding_slack
        low, high = low * (1 - slack), high * (1 + slack)
        for period_s in round_numbers(low, high):
            grid = aligned_grid(period_s, self._observations)
            self._bounds.select(self._bounds.every)
            aligned = score(self.family, self._bounds, grid)
            if aligned.lowest <= self.cost + SCORING.hard_weight // 2:
                self.aligned_periods_s += (period_s,)
                self.scored = self.scored.plus(aligned)
        self.aligned_periods_s = tuple(sorted(self.aligned_periods_s, key=_is_unusual))

    def phase_share(self, best: int, best_cost: int) -> float:
        """Return the fraction of phases that fit as well, with the other parameters of candidate ``best``.

        It is 1 if the family has no phase, or if its cost is too far above ``best_cost`` to matter.
        """
        if not FAMILIES[self.family].has_phase or self.cost > best_cost + SCORING.far_cost:
            return 1.0
        grid, count = self.scored.grid, SEARCH.phase_samples
        period, tokens = np.full(count, grid.period[best]), np.full(count, grid.tokens[best])
        phase = grid.phase[best] + period * np.arange(count) / count
        self._bounds.select(self._bounds.every)
        samples = score(self.family, self._bounds, Grid(period, phase, tokens))
        no_worse = int(np.sum(samples.cost <= self.scored.cost[best]))
        return max(1, no_worse) / count


def spread(scored: Scored, count: int) -> Ints:
    """Return about ``count`` of the best candidates. If more are equivalent, they cover the whole range."""
    ties = scored.equivalent
    if len(ties) <= count:
        best = np.argsort(scored.cost, kind="stable")[: 4 * count]
        others = best[count // 2 :]
        sample: Ints = np.concatenate([best[: count // 2], others[:: max(1, 2 * len(others) // count)]])
        return sample
    grid = scored.grid
    ends = [
        ties[int(pick(values[ties]))]
        for values in (grid.period, grid.phase % grid.period, scored.limit_min)
        for pick in (np.argmin, np.argmax)
    ]
    ties = ties[np.argsort(grid.period[ties], kind="stable")]
    even = np.linspace(0, len(ties) - 1, count - len(ends)).astype(np.int64)
    chosen: Ints = np.unique([*ends, *ties[even]])
    return chosen


def _basins(scored: Scored, other_periods: int, extra_cost: float = 0.0) -> Ints:
    """Return some of the best candidates, and the best at other periods, which may improve when refined."""
    chosen = list(spread(scored, SEARCH.kept))
    order = np.argsort(scored.cost, kind="stable")
    limit = 2 * scored.cost.min() + SCORING.far_cost + extra_cost
    order = order[scored.cost[order] <= limit][: 10 * other_periods]
    log_period = np.log(scored.grid.period)
    taken = sorted(log_period[chosen].tolist())
    for candidate, at in zip(order.tolist(), log_period[order].tolist(), strict=True):
        if len(chosen) >= SEARCH.kept + other_periods:
            break
        place = bisect_left(taken, at)
        neighbors = taken[max(0, place - 1) : place + 1]
        if all(abs(at - other) > SEARCH.min_period_distance for other in neighbors):
            chosen.append(candidate)
            taken.insert(place, at)
    return np.array(chosen, dtype=np.int64)


def _is_unusual(period_s: float) -> tuple[bool, bool]:
    """Return a sort key that puts natural periods first, then those of one significant digit."""
    return period_s not in GRID.natural_periods_s, float(f"{period_s:.1g}") != period_s


def _best_at_periods(scored: Scored, periods_s: tuple[float, ...]) -> Ints:
    """Return the best candidate at each of these periods, if there is one."""
    best = []
    for period_s in periods_s:
        same = np.flatnonzero(np.abs(scored.grid.period - period_s) <= 1e-9 * period_s)
        best += [int(same[scored.cost[same].argmin()])] if len(same) else []
    return np.array(best, dtype=np.int64)


def _with_dividing_tokens(
    scored: Scored, chosen: Ints, width: Floats, slack_s: Floats
) -> tuple[Grid, Floats, Floats]:
    """Return each candidate three times, with tokens per tick that divide its limit or a neighboring one."""
    grid, limit = scored.grid.take(chosen), scored.limit_min[chosen]
    ticks = np.maximum(np.round(limit / grid.tokens), 1)
    tokens = np.concatenate([(limit + more) / ticks for more in (-1, 0, 1)])
    tokens = np.where(tokens > 0, tokens, np.tile(grid.tokens, 3))
    return (
        Grid(np.tile(grid.period, 3), np.tile(grid.phase, 3), tokens),
        np.tile(width, 3),
        np.tile(slack_s, 3),
    )
