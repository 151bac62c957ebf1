"""Which parameters of a family are tried: a coarse grid over all that the data leave open, and finer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bltybench.limits.observations.observation import Floats, Ints, Observations

STEP = 1.04
"""Between one period (or rate) of the coarse grid and the next."""
FINE_STEP = 1.006
"""The same of a weighted counter that begins with the first request: it has no phase, and a period that is
off by a hundredth already contradicts much."""
DRIFT = 0.3
"""Of a window, over the whole span, between one period of the grid and the next."""
EDGES = 4
"""Recoveries from which phases are taken: the first and the last ones."""
PHASES = 8
"""Phases of the coarse grid, and so the share of a period that it leaves open."""
ANCHORS = 5
"""Times within the first exchange at which windows may have begun."""
HINTED = 100
"""Phases that are tried where the period is documented."""
RESOLVED = 8
"""Windows shorter than so many answers cannot be seen by who sends one request after another."""
PARTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60)
"""Lumps that fill a bucket."""
LEAST_LUMP = 0.5
NATURAL_S = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    3,
    4,
    5,
    6,
    10,
    12,
    15,
    20,
    30,
    60,
    120,
    180,
    240,
    300,
    600,
    900,
    1800,
    3600,
)
"""Periods that people choose."""
PHASED = frozenset({"fixed_window", "sliding_counter", "interval_refill"})
WINDOWS = frozenset({"fixed_window", "first_hit_window"})
"""Families that turn in time, whatever they have refused."""
DRIFTING = frozenset({"fixed_window", "sliding_counter"})
"""Families whose windows follow each other through the whole span."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Candidates of one family: a period (for buckets: the rate's inverse), a phase and a lump each."""

    period: Floats
    phase: Floats
    lump: Floats

    def __len__(self) -> int:
        return len(self.period)

    def take(self, chosen: Ints) -> Grid:
        """Return some of them."""
        return Grid(self.period[chosen], self.phase[chosen], self.lump[chosen])

    def plus(self, other: Grid) -> Grid:
        """Return both."""
        return Grid(
            np.concatenate([self.period, other.period]),
            np.concatenate([self.phase, other.phase]),
            np.concatenate([self.lump, other.lump]),
        )


def coarse(family: str, sights: Observations, *, count_refused: bool, hints_s: tuple[float, ...]) -> Grid:
    """Return the first candidates of a family other than the refill in lumps."""
    span_s = float(sights.hi[-1] - sights.lo[0])
    if family == "token_bucket":
        accepted = int(np.sum(sights.accepted))
        # The period here is the time for one more: from all at once to nothing but the first burst.
        shortest_s, longest_s = span_s / (50 * accepted), 2 * max(hi - lo for lo, hi in _waits(sights))
        shortest_s = max(shortest_s, sights.uncertainty_s() / sights.max_in_flight)
        period = _geometric(shortest_s, max(longest_s, 2 * shortest_s), 1 + (STEP - 1) / 4)
        return _plain(period)
    longest_s = 1.05 * span_s
    shortest_s = span_s / 200 if count_refused else 0.6 * sights.longest_refusal_s()
    shortest_s = min(max(shortest_s, span_s / 2000, RESOLVED * sights.uncertainty_s()), longest_s / 2)
    wanted = [each for each in (*NATURAL_S, *hints_s) if shortest_s <= each <= longest_s]
    if family in DRIFTING:
        even = _dense(shortest_s, longest_s, span_s)
    else:
        even = _geometric(shortest_s, longest_s, FINE_STEP if family == "first_hit_counter" else STEP)
    period = np.union1d(even, np.array(wanted, dtype=np.float64))
    if family not in PHASED:
        return _plain(period)
    middle_s = span_s / 2
    if family == "sliding_counter":
        # Its refusals end at any time; a phase is a time in the middle, from which the windows drift least.
        phases = middle_s + period[:, None] * np.arange(PHASES) / PHASES
    else:
        shares = (0.02, 0.5, 0.98) if family == "fixed_window" else (0.5,)
        phases = np.tile(np.array(_phases(sights, shares)), (len(period), 1))
    clock = np.mod(-sights.origin_s, period)
    clock += period * np.round((middle_s - clock) / period)
    phase = np.concatenate([phases, clock[:, None]], axis=1)
    periods = np.repeat(period, phase.shape[1])
    grid = Grid(periods, phase.ravel(), np.zeros(phase.size))
    for hint in hints_s:
        # A period that is documented deserves every phase.
        steps = np.arange(HINTED) / HINTED
        grid = grid.plus(Grid(np.full(HINTED, hint), middle_s + hint * steps, np.zeros(HINTED)))
    return grid


def _plain(period: Floats) -> Grid:
    return Grid(period, np.zeros_like(period), np.zeros_like(period))


def ticks_and_lumps(sights: Observations, rates: tuple[float, float], limits: Sequence[int] = ()) -> Grid:
    """Return ticks, by the ends of refusals, with each lump that comes near to a rate between ``rates``.

    Lumps are parts of ``limits``; where none are given, of what was let in at once.
    """
    span_s = float(sights.hi[-1] - sights.lo[0])
    longest_s = min(1.1 * max(hi - lo for lo, hi in _waits(sights)), 1.05 * span_s)
    shortest_s = max(0.6 * sights.longest_refusal_s(), span_s / 2000, RESOLVED * sights.uncertainty_s())
    tick = _dense(min(shortest_s, longest_s / 1.2), longest_s, span_s)
    ticks = np.concatenate([tick, [each for each in NATURAL_S if shortest_s <= each <= longest_s]])
    # The first run is what a full bucket held, or the largest; the limit that suits is shared out later.
    full = limits or (sights.first_accepted_run, sights.longest_accepted_run)
    lumps = np.unique([each / parts for parts in PARTS for each in full])
    which, lump = np.nonzero(
        (lumps >= rates[0] * ticks[:, None]) & (lumps <= rates[1] * ticks[:, None]) & (lumps >= LEAST_LUMP)
    )
    if not len(which):
        # No lump gives such a rate, so none explains anything; one candidate shows that: the largest lump.
        which, lump = np.array([0]), np.array([len(lumps) - 1])
    phases = np.array([(lo + hi) / 2 for lo, hi in narrow(sights)])
    return Grid(
        np.repeat(ticks[which], len(phases)), np.tile(phases, len(which)), np.repeat(lumps[lump], len(phases))
    )


def from_the_first(best: Grid, sights: Observations) -> Grid:
    """Return windows of the same periods that only happened to begin with the first request."""
    phases = np.linspace(sights.lo[0], sights.hi[0], ANCHORS)
    period = np.repeat(best.period, ANCHORS)
    return Grid(period, np.tile(phases, len(best)), np.zeros_like(period))


def around(family: str, best: Grid, width: Floats, slack_s: Floats) -> Grid:
    """Return candidates around others: ``width`` is relative to the period, ``slack_s`` is the phase's."""
    steps = np.linspace(-1.0, 1.0, 7)
    shifts = steps if family in PHASED else np.zeros(1)
    period = best.period[:, None, None] * (1 + width[:, None, None] * steps[None, :, None])
    phase = best.phase[:, None, None] + slack_s[:, None, None] * shifts[None, None, :]
    shape = (len(best), len(steps), len(shifts))
    lump = np.broadcast_to(best.lump[:, None, None], shape)
    return Grid(
        np.broadcast_to(period, shape).ravel(), np.broadcast_to(phase, shape).ravel(), lump.ravel().copy()
    )


def _geometric(least: float, most: float, step: float = STEP) -> Floats:
    steps = int(np.ceil(np.log(most / least) / np.log(step)))
    return np.array(least * step ** np.arange(steps + 1), dtype=np.float64)


def _dense(least: float, most: float, span_s: float) -> Floats:
    """Return a grid on which windows do not drift by more than a part of one over the whole span."""
    found = [least]
    while found[-1] < most:
        found.append(found[-1] * (1 + min(STEP - 1, DRIFT * found[-1] / span_s)))
    return np.array(found, dtype=np.float64)


def _waits(sights: Observations) -> list[tuple[float, float]]:
    """Return, for each recovery, when the refusals before it began and when it was seen."""
    found: list[tuple[float, float]] = []
    since: float | None = None
    for lo, hi, seen in zip(sights.lo, sights.hi, sights.codes, strict=True):
        if seen == 0:
            since = float(lo) if since is None else since
        elif seen == 1:
            if since is not None:
                found.append((since, float(hi)))
            since = None
    return found


def narrow(sights: Observations) -> list[tuple[float, float]]:
    """Return the recoveries that tell best when they were."""
    return sorted(sights.recoveries, key=lambda turn: turn[1] - turn[0])[:EDGES]


def _phases(sights: Observations, shares: tuple[float, ...]) -> list[float]:
    """Return where an edge may lie, by the recoveries; and the first request."""
    found = [float(sights.lo[0]), float(sights.hi[0])]
    for lo, hi in narrow(sights):
        found += [lo + share * (hi - lo) for share in shares]
    return found
