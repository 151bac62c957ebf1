"""From all candidates that explain the most to one fit with ranges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bltybench.limits.fit.grid import NATURAL_S, PHASED, WINDOWS, Grid
from bltybench.limits.fit.occupancy import ChargeBounds
from bltybench.limits.fit.queueing import QueueTiming
from bltybench.limits.fit.result import Fit, Phase
from bltybench.limits.fit.scoring import Scored, allowed, contradicted
from bltybench.limits.fit.search import FamilySearch, alike, spread
from bltybench.limits.observations.observation import Ints, Observations

CLOCK_SLACK_S = 0.25
"""How far the server's clock and this one may be apart where windows are called aligned to the clock."""
VARIANTS = 12
QUEUE_STEPS = 21
"""Intervals that are tried within what their spacing leaves open."""
PRECISE = 0.03
"""Half width of a period's range, relative, within which it is rounded to what people choose."""


def best_fit(done: FamilySearch, sights: Observations, hints_s: tuple[float, ...], least: int) -> Fit:
    """Return the best fit of one family; ``least`` is the cost of the best of all."""
    family, found = done.family, done.found
    chosen = alike(found)
    periods = found.grid.period[chosen]
    middle = _representative(
        found, chosen, hints_s if family not in {"token_bucket", "interval_refill"} else ()
    )
    limit = int(found.limit_least[middle])
    limits = (int(found.limit_least[chosen].min()), int(found.limit_most[chosen].max()))
    period, period_range = float(found.grid.period[middle]), (float(periods.min()), float(periods.max()))
    ticks = None
    if family == "token_bucket":
        # The rate is known better than the burst, and the time to fill it depends on both.
        period *= limit
        period_range = (
            float((periods * found.limit_least[chosen]).min()),
            float((periods * found.limit_most[chosen]).max()),
        )
    elif family == "interval_refill":
        shared = np.maximum(1, np.round(found.limit_least[chosen] / found.grid.lump[chosen]))
        ticks = max(1, round(limit / float(found.grid.lump[middle])))
        period, period_range = (
            period * ticks,
            (float((periods * shared).min()), float((periods * shared).max())),
        )
    rounded = _rounded(period, period_range, hints_s)
    period_range = min(rounded, period_range[0]), max(rounded, period_range[1])
    raw = rounded / (ticks or 1)
    same = chosen[found.limit_least[chosen] == limit]
    near = same[np.abs(found.grid.period[same] - raw) <= 0.001 * raw]
    around = found.grid.take(near if len(near) else np.array([middle]))
    phase, edge_s = _phase(family, sights, around, raw, hints_s)
    best = Fit(
        family=family,
        limit=limit,
        limit_range=limits,
        period_s=rounded,
        period_range_s=period_range,
        phase=phase,
        edge_s=edge_s,
        ticks=ticks,
        count_refused=None if family in WINDOWS else done.count_refused,
        contradictions=int(found.contradictions[middle]),
        cost=done.cost,
        phase_share=done.phase_share(middle, least),
    )
    return replace(best, variants=_variants(best, found, sights.origin_s))


def queue_fit(sights: Observations, held: QueueTiming) -> Fit | None:
    """Return the leaky queue that serves at this rate; None where its refusals are not explained by one.

    On who is let in it decides as a token bucket of one more than it lets wait. Who sends as soon as he is
    answered keeps it nearly full, so that doubts about times are many and tell nothing of its limit.
    """
    counted = ChargeBounds(sights, count_refused=False)
    intervals = np.linspace(*held.interval_range_s, QUEUE_STEPS)
    found = contradicted(
        "token_bucket", counted, Grid(intervals, np.zeros(QUEUE_STEPS), np.zeros(QUEUE_STEPS))
    )
    if int(found.cost.min()) > allowed(len(sights)):
        return None
    chosen = alike(found)
    middle = chosen[len(chosen) // 2]
    limit = int(found.limit_least[middle])
    limits = (int(found.limit_least[chosen].min()), int(found.limit_most[chosen].max()))
    period_range = (held.interval_range_s[0] * limits[0], held.interval_range_s[1] * limits[1])
    return Fit(
        family="leaky_queue",
        limit=limit,
        limit_range=limits,
        period_s=_rounded(held.interval_s * limit, period_range, ()),
        period_range_s=period_range,
        phase=None,
        edge_s=None,
        ticks=None,
        count_refused=None,
        contradictions=int(found.contradictions[middle]),
        cost=int(found.cost.min()),
        free=held.free,
    )


def _variants(best: Fit, found: Scored, origin_s: float) -> tuple[Fit, ...]:
    """Return a few of the candidates that explain as much, as fits."""
    made: list[Fit] = []
    for i in spread(found, VARIANTS):
        period, limit = float(found.grid.period[i]), int(found.limit_least[i])
        ticks = max(1, round(limit / float(found.grid.lump[i]))) if best.ticks else None
        times = limit if best.family == "token_bucket" else ticks or 1
        edge_s = origin_s + float(found.grid.phase[i]) if best.family in PHASED else None
        phase: Phase | None = "other" if best.family in PHASED else best.phase
        made.append(
            replace(best, limit=limit, period_s=period * times, ticks=ticks, phase=phase, edge_s=edge_s)
        )
    return tuple(made)


def _representative(found: Scored, chosen: Ints, hints_s: tuple[float, ...]) -> int:
    """Return the candidate in the middle of the best: at the period that is rounded to, if there is one."""
    periods = found.grid.period[chosen]
    wanted = _rounded(0.0, (float(periods.min()), float(periods.max())), hints_s)
    near = chosen[np.abs(periods - wanted) <= 0.001 * wanted] if wanted else chosen[:0]
    tight = near if len(near) else chosen
    limits = found.limit_least[tight]
    values, counts = np.unique(limits, return_counts=True)
    same = tight[limits == values[counts.argmax()]]
    centre = (found.grid.period[same].min() + found.grid.period[same].max()) / 2
    return int(same[np.abs(found.grid.period[same] - centre).argmin()])


def _rounded(period: float, bounds: tuple[float, float], hints_s: tuple[float, ...]) -> float:
    middle = (bounds[0] + bounds[1]) / 2
    for hint in hints_s:
        if bounds[0] <= hint <= bounds[1]:
            return hint
    if (bounds[1] - bounds[0]) / 2 <= PRECISE * middle:
        slack = 0.002 * middle
        near = [each for each in NATURAL_S if bounds[0] - slack <= each <= bounds[1] + slack]
        if near:
            return float(near[-1])
    return period


def _phase(
    family: str, sights: Observations, near: Grid, period_s: float, hints_s: tuple[float, ...]
) -> tuple[Phase | None, float | None]:
    """Return what the windows are aligned to, and an edge of theirs."""
    if family in {"first_hit_window", "first_hit_counter"}:
        return "first_hit", None
    if family not in PHASED:
        return None, None
    # An edge late in the data: an error of the period adds up over many windows.
    periods, phases = near.period, near.phase
    edges = phases + np.round((sights.hi[-1] - phases) / periods) * periods
    turn = 2 * np.pi * np.mod(edges - edges[0], period_s) / period_s
    centre = float(np.angle(np.mean(np.exp(1j * turn))))
    off = np.angle(np.exp(1j * (turn - centre)))
    if float(off.max() - off.min()) > np.pi:
        return None, None
    edge_s = sights.origin_s + float(edges[0]) + centre / (2 * np.pi) * period_s
    # Against the clock only where the period is known exactly: Unix time holds very many of them.
    slack_s = min(CLOCK_SLACK_S, 0.05 * period_s) + 0.01 * period_s
    least, most = (float(each) / (2 * np.pi) * period_s for each in (off.min(), off.max()))
    past_s = (edge_s + period_s / 2) % period_s - period_s / 2
    if period_s in (*NATURAL_S, *hints_s) and past_s + least - slack_s <= 0 <= past_s + most + slack_s:
        return "clock", edge_s - past_s
    return "other", edge_s
