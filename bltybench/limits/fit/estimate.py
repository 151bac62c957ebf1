"""Estimate one fit, with ranges, from the equivalent candidates of a family, and compare two families."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bltybench.limits.fit.charges import ChargeBounds
from bltybench.limits.fit.grid import Grid, plain_grid
from bltybench.limits.fit.queueing import QueueTiming, WaitingRoom
from bltybench.limits.fit.result import Fit, Phase, Verdict
from bltybench.limits.fit.scoring import Scored, allowed_cost, score_contradictions
from bltybench.limits.fit.search import FamilySearch, spread
from bltybench.limits.fit.thresholds import ESTIMATE, GRID, SCORING, SELECTION
from bltybench.limits.models.families import (
    BUCKETS,
    FAMILIES,
    FIRST_HIT_WINDOW,
    FIXED_WINDOW,
    INTERVAL_REFILL,
    LEAKY_QUEUE,
    TOKEN_BUCKET,
)
from bltybench.limits.observations.observation import Floats, Ints, Observations

Candidates = tuple[tuple[str, bool], ...]
"""Families to fit, each with whether it counts refused requests."""
WINDOWS: Candidates = ((FIXED_WINDOW, False), (FIRST_HIT_WINDOW, False))


def estimate_fit(
    search: FamilySearch, observations: Observations, hints_s: tuple[float, ...], best_cost: int
) -> Fit:
    """Return the best fit of one family; ``best_cost`` is the lowest cost of any family."""
    family, scored, hints_s = search.family, search.scored, (*hints_s, *search.aligned_periods_s)
    traits, grid, chosen = FAMILIES[family], scored.grid, scored.equivalent
    best = _representative(scored, chosen, () if traits.kind == "bucket" else hints_s)
    limit = int(scored.limit_min[best])
    limit_range = _limit_range(scored, chosen)
    # Grids hold the period per token or per tick. The rate is known better than the burst, and the time of a
    # complete refill depends on both.
    shortest_s = longest_s = grid.period[chosen]
    ticks, scale = None, 1
    if traits.refills_singly:
        scale = limit
        shortest_s, longest_s = shortest_s * scored.limit_min[chosen], longest_s * scored.limit_max[chosen]
    elif family == INTERVAL_REFILL:
        ticks = scale = int(_ticks(scored, best))
        shortest_s = longest_s = shortest_s * _ticks(scored, chosen)
    period_range_s = (float(shortest_s.min()), float(longest_s.max()))
    period_s = _rounded(float(grid.period[best]) * scale, period_range_s, hints_s)
    window_s = period_s / (ticks or 1)
    near = chosen[scored.limit_min[chosen] == limit]
    near = near[_matches(grid.period[near], window_s)]
    aligned = grid.take(near if len(near) else np.array([best]))
    phase, edge_s = _phase(family, observations, aligned, window_s, hints_s)
    fit = Fit(
        family=family,
        limit=limit,
        limit_range=limit_range,
        period_s=period_s,
        period_range_s=(min(period_s, period_range_s[0]), max(period_s, period_range_s[1])),
        phase=phase,
        edge_s=edge_s,
        ticks=ticks,
        count_refused=None if traits.kind == "window" else search.count_refused,
        contradictions=int(scored.contradictions[best]),
        cost=search.cost,
        phase_share=search.phase_share(best, best_cost),
        rate_range_per_min=_rates_per_min(family, scored, chosen),
    )
    return replace(fit, variants=_variants(fit, scored, observations.origin_s))


def estimate_queue(observations: Observations, timing: QueueTiming) -> Fit | None:
    """Return the leaky queue with this timing; None if it does not explain the refusals.

    A queue accepts like a token bucket whose burst is one more than the queue holds. A client that sends as
    soon as it gets a response keeps the queue nearly full. Most decisions are then ambiguous, so these
    don't count.
    """
    bounds = ChargeBounds(observations, count_refused=False)
    intervals = np.linspace(*timing.interval_range_s, ESTIMATE.queue_intervals)
    scored = score_contradictions(TOKEN_BUCKET, bounds, plain_grid(intervals))
    if scored.lowest > allowed_cost(observations):
        return None
    chosen = scored.equivalent
    best = chosen[len(chosen) // 2]
    limit, limit_range = int(scored.limit_min[best]), _limit_range(scored, chosen)
    period_range_s = (
        timing.interval_range_s[0] * limit_range[0],
        timing.interval_range_s[1] * limit_range[1],
    )
    return Fit(
        family=LEAKY_QUEUE,
        limit=limit,
        limit_range=limit_range,
        period_s=_rounded(timing.interval_s * limit, period_range_s, ()),
        period_range_s=period_range_s,
        phase=None,
        edge_s=None,
        ticks=None,
        count_refused=None,
        contradictions=int(scored.contradictions[best]),
        cost=scored.lowest,
        free=timing.free,
    )


def estimate_waiting_room(
    room: WaitingRoom,
    counts: tuple[int, int, int],
    fit: Callable[..., Verdict],
    candidates: Candidates | None,
) -> Verdict | None:
    """Return the verdict on a window with this waiting room; None if ``fit`` finds another limit.

    ``counts`` are those of the run. Only lost responses may contradict the window. A bucket with a waiting
    room is a leaky queue.
    """
    # The date of the first request of a first-hit window decides when the next one begins.
    for tried in (WINDOWS, candidates):
        verdict = _window_with_seats(fit(room.decisions, candidates=tried), room, counts)
        if verdict is None or verdict.families != (FIXED_WINDOW,):
            return _window_with_seats(fit(room.uncertain_decisions, candidates=candidates), room, counts)
    return verdict


def _window_with_seats(inner: Verdict, room: WaitingRoom, counts: tuple[int, int, int]) -> Verdict | None:
    """Return ``inner`` with the seats of the room; None if it is not on windows, or if they don't fit."""
    is_window = all(fit.traits.kind == "window" or fit.ticks == 1 for fit in inner.consistent)
    lost = counts[0] - counts[1] - counts[2]
    if not inner.consistent or not is_window or inner.fits[0].contradictions > lost:
        return None

    def seated(fit: Fit) -> Fit:
        if fit.ticks == 1:  # refilled completely by each tick: a window
            fit = replace(fit, family=FIXED_WINDOW, ticks=None)
        return replace(fit, seats=room.seats_range[0], variants=tuple(map(seated, fit.variants)))

    windows = {fit.family: fit for fit in map(seated, reversed(inner.consistent))}
    fits, consistent = tuple(map(seated, inner.fits)), tuple(reversed(windows.values()))
    if len(windows) == 1:
        return Verdict("found", *counts, fits, consistent, inner.confidence)
    return Verdict("ambiguous", *counts, fits, consistent, inner.confidence, inner.reason)


def _rates_per_min(family: str, scored: Scored, chosen: Ints) -> tuple[float, float]:
    """Return the range of the sustained rates. A bucket's is known better than its burst and its period."""
    per_min = 60 / scored.grid.period[chosen]
    if family == INTERVAL_REFILL:
        per_min = per_min * scored.grid.tokens[chosen]
    if FAMILIES[family].kind == "bucket":
        return float(per_min.min()), float(per_min.max())
    low, high = scored.limit_min[chosen] * per_min, scored.limit_max[chosen] * per_min
    return float(low.min()), float(high.max())


def _limit_range(scored: Scored, chosen: Ints) -> tuple[int, int]:
    return int(scored.limit_min[chosen].min()), int(scored.limit_max[chosen].max())


def _ticks(scored: Scored, chosen: Ints | int) -> Floats:
    """Return the ticks that refill the limit completely."""
    ticks: Floats = np.maximum(1, np.round(scored.limit_min[chosen] / scored.grid.tokens[chosen]))
    return ticks


def _matches(periods: Floats, period_s: float) -> Ints:
    return np.flatnonzero(np.abs(periods - period_s) <= ESTIMATE.same_period * period_s)


def _variants(best: Fit, scored: Scored, origin_s: float) -> tuple[Fit, ...]:
    """Return equivalent candidates as fits."""
    variants: list[Fit] = []
    for i in spread(scored, ESTIMATE.variants).tolist():
        limit = int(scored.limit_min[i])
        ticks = int(_ticks(scored, i)) if best.ticks else None
        scale = limit if best.traits.refills_singly else ticks or 1
        variant = replace(best, limit=limit, period_s=float(scored.grid.period[i]) * scale, ticks=ticks)
        if best.traits.has_phase:
            variant = replace(variant, phase="other", edge_s=origin_s + float(scored.grid.phase[i]))
        variants.append(variant)
    return tuple(variants)


def _representative(scored: Scored, chosen: Ints, hints_s: tuple[float, ...]) -> int:
    """Return the candidate in the middle of the best ones, at a natural or documented period if one fits."""
    periods = scored.grid.period[chosen]
    rounded_s = _rounded(0.0, (float(periods.min()), float(periods.max())), hints_s)
    near = chosen[_matches(periods, rounded_s)] if rounded_s else chosen[:0]
    tight = near if len(near) else chosen
    limits, counts = np.unique(scored.limit_min[tight], return_counts=True)
    same = tight[scored.limit_min[tight] == limits[counts.argmax()]]
    periods = scored.grid.period[same]
    middle_s = (periods.min() + periods.max()) / 2
    return int(same[np.abs(periods - middle_s).argmin()])


def _rounded(period_s: float, range_s: tuple[float, float], hints_s: tuple[float, ...]) -> float:
    """Return a documented period in the range, else a natural one if the range is narrow, else the period."""
    for hint_s in hints_s:
        if range_s[0] <= hint_s <= range_s[1]:
            return hint_s
    middle_s = (range_s[0] + range_s[1]) / 2
    if (range_s[1] - range_s[0]) / 2 <= ESTIMATE.max_rounding * middle_s:
        slack_s = ESTIMATE.rounding_slack * middle_s
        near = [
            natural_s
            for natural_s in GRID.natural_periods_s
            if range_s[0] - slack_s <= natural_s <= range_s[1] + slack_s
        ]
        if near:
            return float(near[-1])
    return period_s


def _phase(
    family: str, observations: Observations, aligned: Grid, period_s: float, hints_s: tuple[float, ...]
) -> tuple[Phase | None, float | None]:
    """Return what the windows are aligned to, and the Unix time of an edge, if known."""
    if FAMILIES[family].start == "first_hit":
        return "first_hit", None
    if not FAMILIES[family].has_phase:
        return None, None
    # Use an edge near the end: an error of the period adds up over many windows.
    phases, periods = aligned.phase, aligned.period
    edges = phases + np.round((observations.hi[-1] - phases) / periods) * periods
    angles = 2 * np.pi * np.mod(edges - edges[0], period_s) / period_s
    mean = float(np.angle(np.mean(np.exp(1j * angles))))
    deviations = np.angle(np.exp(1j * (angles - mean)))
    if float(np.ptp(deviations)) > np.pi:
        return None, None
    edge_s = observations.origin_s + float(edges[0]) + mean / (2 * np.pi) * period_s
    # Unix time holds millions of periods, so the alignment to the clock shows only if the period is exact.
    low_s, high_s = (float(angle) / (2 * np.pi) * period_s for angle in (deviations.min(), deviations.max()))
    slack_s = min(ESTIMATE.clock_error_s, ESTIMATE.clock_error_fraction * period_s)
    slack_s += ESTIMATE.edge_error_fraction * period_s
    past_s = (edge_s + period_s / 2) % period_s - period_s / 2
    exact = period_s in {*GRID.natural_periods_s, *hints_s}
    if not (exact and past_s + low_s - slack_s <= 0 <= past_s + high_s + slack_s):
        return "other", edge_s
    # If the server's clock differs measurably from this one, its windows start when its clock says so.
    return "clock", edge_s - past_s if past_s + low_s <= 0 <= past_s + high_s else edge_s


def same_window(refill: Fit, fits: Sequence[Fit]) -> Fit | None:
    """Return the fixed window that is the same limiter as an interval refill; None if there is none.

    That is so if each tick refills the limit completely. The window can cost more nevertheless: if a request
    may have been decided on before or after an edge, each later refusal in that window is ambiguous.
    """
    if any(fit.ticks != 1 for fit in (refill, *refill.variants)):
        return None
    windows = (fit for fit in fits if fit.family == FIXED_WINDOW)
    return next((fit for fit in windows if _same_parameters(fit, refill)), None)


def _same_parameters(fit: Fit, other: Fit) -> bool:
    (low, high), (other_low, other_high) = fit.period_range_s, other.period_range_s
    return fit.limit == other.limit and low <= other_high and other_low <= high


def acts_like(simple: Fit, refill: Fit) -> bool:
    """Return whether a simpler family describes an interval refill as well.

    With one token per tick, that is a bucket that refills singly. With one tick per period among those that
    fit, it is a fixed window.
    """
    low = simple.limit_range[0] / simple.period_range_s[1]
    high = simple.limit_range[1] / simple.period_range_s[0]
    rate = refill.limit / refill.period_s
    return (
        simple.family in BUCKETS | {FIXED_WINDOW}
        and simple.cost <= refill.cost + SCORING.hard_weight // 2
        and low / SELECTION.same_rate <= rate <= high * SELECTION.same_rate
    )
