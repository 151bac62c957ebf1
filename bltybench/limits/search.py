"""For one family: the parameters that the fewest observed decisions contradict, by a grid that is refined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bltybench.limits import usage
from bltybench.limits.sights import Floats, Ints, Sights
from bltybench.limits.usage import Counted

STEP = 1.04
"""Between one period (or rate) of the coarse grid and the next."""
DRIFT = 0.3
"""Of a window, over the whole span, between one period of the grid and the next."""
CELLS = 200_000
"""Candidates × requests at a time: bounds memory."""
EDGES = 4
"""Recoveries from which phases are taken: the first and the last ones."""
KEPT = 10
"""Candidates that are refined."""
ROUNDS = 3
RESOLVED = 8
"""Windows shorter than so many answers cannot be seen by who sends one request after another."""
EPS = 1e-6

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
PHASED = frozenset({"fixed_window", "sliding_counter", "interval_refill"})
DRIFTING = frozenset({"fixed_window", "sliding_counter"})
"""Families whose windows follow each other through the whole span."""
BUCKETS = frozenset({"token_bucket", "interval_refill"})
"""Families that need a whole token for a request; a weighted counter rounds its use down instead."""
HARD = 6
"""Weight of a contradiction that no doubt about times excuses, against one that some doubt does."""


def search(
    family: str,
    sights: Sights,
    *,
    count_refused: bool = False,
    hints_s: tuple[float, ...] = (),
    give_up: int | None = None,
) -> Found:
    """Try a grid over all that the data leave open, then finer ones around the best.

    ``hints_s`` are periods to try in any case. A family whose cost on the coarse grid is above
    ``give_up`` is not refined. There must be a recovery in ``sights``.
    """
    counted = Counted(sights, count_refused=count_refused)
    found = judge(family, counted, _coarse(family, sights, count_refused=count_refused, hints_s=hints_s))
    if give_up is not None and int(found.cost.min()) > give_up:
        return found
    width = STEP - 1
    slack_s = max(hi - lo for lo, hi in sights.recoveries)
    for _ in range(ROUNDS):
        best = np.argsort(found.cost, kind="stable")[: KEPT * 4]
        spread = best[:: max(1, len(best) // KEPT)][:KEPT]
        found = found.plus(judge(family, counted, _around(family, found.grid.take(spread), width, slack_s)))
        width, slack_s = width / 4, slack_s / 4
    return found


def judge(family: str, counted: Counted, grid: Grid) -> Found:
    """Count, for each candidate, the decisions that contradict the limit that suits it best."""
    chunk = max(1, CELLS // max(1, len(counted.sights)))
    parts = [
        _judge(family, counted, grid.take(np.arange(start, min(start + chunk, len(grid)))))
        for start in range(0, len(grid), chunk)
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.plus(part)
    return whole


def _judge(family: str, counted: Counted, grid: Grid) -> Found:
    sights = counted.sights
    least, most = USES[family](counted, grid)
    top = 2 * sights.largest_run() + 10
    hard = _cost(family, sights, least, most, top)
    # Loose bounds excuse everything: what a candidate says in the middle of its doubt counts a little too.
    middle = (least + most) / 2
    cost = HARD * hard + _cost(family, sights, middle, middle, top)
    best = cost.min(axis=1)
    at_least = cost.argmin(axis=1)
    at_most = cost.shape[1] - 1 - cost[:, ::-1].argmin(axis=1)
    return Found(grid, best, hard[np.arange(len(grid)), at_least], at_least + 1, at_most + 1)


def _cost(family: str, sights: Sights, least: Floats, most: Floats, top: int) -> Ints:
    """Return, for each candidate and each limit from 1 to ``top``, how many decisions contradict it."""
    # Sums of refill round; counts, weighted or not, are whole where it matters.
    doubt = EPS if family in BUCKETS else 0.0
    used = least[:, sights.accepted]
    needed = np.ceil(used + 1 - doubt) if family in BUCKETS else np.floor(used - doubt) + 1
    allowed = np.ceil(most[:, sights.refused])
    above = _histogram(np.minimum(needed, top).astype(np.int64), top)
    below = _histogram(np.minimum(allowed, top).astype(np.int64), top)
    # A limit is contradicted by each acceptance that needed more, and each refusal that it would let in.
    too_low = above.sum(axis=1, keepdims=True) - np.cumsum(above, axis=1)
    too_high = np.cumsum(below, axis=1) - below
    cost: Ints = (too_low + too_high)[:, 1:]
    return cost


def _histogram(values: Ints, top: int) -> Ints:
    k = len(values)
    flat = (np.arange(k)[:, None] * (top + 1) + values).ravel()
    counts: Ints = np.bincount(flat, minlength=k * (top + 1)).reshape(k, top + 1)
    return counts


def _coarse(family: str, sights: Sights, *, count_refused: bool, hints_s: tuple[float, ...]) -> Grid:
    span_s = float(sights.hi[-1] - sights.lo[0])
    if family == "token_bucket":
        accepted = int(np.sum(sights.accepted))
        # The period here is the time for one more: from all at once to nothing but the first burst.
        shortest_s, longest_s = span_s / (50 * accepted), 2 * max(hi - lo for lo, hi in _waits(sights))
        together = float(np.max(sights.offsets(np.ones(len(sights), dtype=np.int64))[0])) + 1
        shortest_s = max(shortest_s, sights.doubt_s() / together)
        period = _geometric(shortest_s, max(longest_s, 2 * shortest_s), 1 + (STEP - 1) / 4)
        return Grid(period, np.zeros_like(period), np.zeros_like(period))
    longest_s = 1.05 * span_s
    shortest_s = span_s / 200 if count_refused else 0.6 * sights.longest_refusal_s()
    shortest_s = min(max(shortest_s, span_s / 2000, RESOLVED * sights.doubt_s()), longest_s / 2)
    if family == "interval_refill":
        longest_s = max(1.1 * max(hi - lo for lo, hi in _waits(sights)), 1.2 * shortest_s)
    wanted = [each for each in (*NATURAL_S, *hints_s) if shortest_s <= each <= longest_s]
    even = _dense(shortest_s, longest_s, span_s) if family in DRIFTING else _geometric(shortest_s, longest_s)
    period = np.union1d(even, np.array(wanted, dtype=np.float64))
    if family not in PHASED:
        return Grid(period, np.zeros_like(period), np.zeros_like(period))
    shares = (0.02, 0.5, 0.98) if family == "fixed_window" else (0.5,)
    phases = np.array(_phases(sights, shares))
    clock = np.mod(-sights.origin_s, period)
    phase = np.concatenate([np.tile(phases, (len(period), 1)), clock[:, None]], axis=1)
    periods = np.repeat(period, phase.shape[1])
    grid = Grid(periods, phase.ravel(), np.zeros(phase.size))
    if family != "interval_refill":
        return grid
    lumps = np.array(_lumps(sights))
    return Grid(
        np.repeat(grid.period, len(lumps)), np.repeat(grid.phase, len(lumps)), np.tile(lumps, len(grid))
    )


def _around(family: str, best: Grid, width: float, slack_s: float) -> Grid:
    steps = np.linspace(-1.0, 1.0, 9)
    shifts = steps * slack_s if family in PHASED else np.zeros(1)
    period = best.period[:, None, None] * (1 + width * steps)[None, :, None]
    phase = best.phase[:, None, None] + shifts[None, None, :]
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


def _waits(sights: Sights) -> list[tuple[float, float]]:
    """Return, for each recovery, when the refusals before it began and when it was seen."""
    found: list[tuple[float, float]] = []
    since: float | None = None
    for lo, hi, seen in zip(sights.lo, sights.hi, sights.seen, strict=True):
        if seen == 0:
            since = float(lo) if since is None else since
        elif seen == 1:
            if since is not None:
                found.append((since, float(hi)))
            since = None
    return found


def _phases(sights: Sights, shares: tuple[float, ...]) -> list[float]:
    """Return where an edge may lie, by the recoveries; and the first request."""
    turns = sights.recoveries
    narrow = sorted(turns, key=lambda turn: turn[1] - turn[0])[:EDGES]
    found = [float(sights.lo[0]), float(sights.hi[0])]
    for lo, hi in narrow:
        found += [lo + share * (hi - lo) for share in shares]
    return found


def _lumps(sights: Sights) -> list[float]:
    """Return how much a tick may give: shares of the largest run."""
    largest = sights.largest_run()
    return sorted(
        {largest / parts for parts in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60) if largest / parts >= 0.5}
    )
