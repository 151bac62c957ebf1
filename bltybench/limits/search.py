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
CELLS = 50_000
"""Candidates × requests at a time: what the processor's cache holds."""
SURE = 60
"""So many candidates, those that the telling requests contradict least, are looked at in full at first."""
EDGES = 4
"""Recoveries from which phases are taken: the first and the last ones."""
KEPT = 10
"""Candidates that are refined."""
ROUNDS = 4
PHASES = 8
"""Phases of the coarse grid, and so the share of a period that it leaves open."""
SCAN = 200
"""Phases at which it is asked how many would do."""
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
PARTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60)
"""Lumps that fill a bucket."""
LEAST_LUMP = 0.5
BUCKETS = frozenset({"token_bucket", "interval_refill"})
"""Families that need a whole token for a request; a weighted counter rounds its use down instead."""
HARD = 6
"""Weight of a contradiction that no doubt about times excuses, against one that some doubt does."""
FAR = 4 * HARD
"""A family so far from the best is not refined to the end."""


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
            coarse = _ticks(sights, rates or (0.0, np.inf))
        else:
            coarse = _coarse(family, sights, count_refused=count_refused, hints_s=hints_s)
        self.found = judge(family, self._counted, coarse)

    @property
    def size(self) -> int:
        """Return how many requests were seen."""
        return len(self._counted.sights)

    @property
    def cost(self) -> int:
        """Return the least cost so far."""
        return int(self.found.cost.min())

    def refine(self, least: int | None = None) -> None:
        """Look more closely around the best, as long as it may come near to a cost of ``least``."""
        sights, found = self._counted.sights, self.found
        span_s = float(sights.hi[-1] - sights.lo[0])
        for finer in range(ROUNDS):
            chosen = _spread(found)
            kept = found.grid.take(chosen)
            width = np.full(len(kept), STEP - 1)
            if self.family in PHASED:
                width = np.minimum(width, DRIFT * kept.period / span_s)
            slack_s = kept.period / PHASES
            if self.family == "fixed_window":
                slack_s = np.minimum(slack_s, max(hi - lo for lo, hi in _narrow(sights)))
            if self.family == "interval_refill":
                kept, width, slack_s = _shared(found, chosen, width, slack_s)
            around = _around(self.family, kept, width / 4**finer, slack_s / 4**finer)
            before = int(found.cost.min())
            found = found.plus(judge(self.family, self._counted, around))
            stuck = finer > 0 and int(found.cost.min()) == before
            if stuck and least is not None and before > least + FAR:
                break
        self.found = found


    def phase_share(self, best: int) -> float:
        """Return the share of all phases that are no worse with the other parameters of ``best``."""
        if self.family not in PHASED:
            return 1.0
        grid, steps = self.found.grid, np.arange(SCAN)
        period = np.full(SCAN, grid.period[best])
        lump = np.full(SCAN, grid.lump[best])
        phase = grid.phase[best] + period * steps / SCAN
        self._counted.ask(self._counted.every)
        scanned = _chunked(self.family, self._counted, Grid(period, phase, lump))
        return float(np.mean(scanned.cost <= self.found.cost[best]))


def alike(found: Found) -> Ints:
    """Return the candidates that are hardly worse than the best, which only doubt tells apart."""
    return np.flatnonzero(found.cost <= found.cost.min() + HARD // 2)


def _spread(found: Found) -> Ints:
    """Return some of the best candidates: where many are equally good, over all that they leave open."""
    ties = alike(found)
    if len(ties) < KEPT:
        best = np.argsort(found.cost, kind="stable")[: KEPT * 4]
        return best[:: max(1, len(best) // KEPT)][:KEPT]
    grid = found.grid
    ends = [
        ties[int(pick(values[ties]))]
        for values in (grid.period, grid.phase % grid.period, found.limit_least)
        for pick in (np.argmin, np.argmax)
    ]
    ties = ties[np.argsort(grid.period[ties], kind="stable")]
    spread: Ints = np.unique([*ends, *ties[np.linspace(0, len(ties) - 1, KEPT - len(ends)).astype(np.int64)]])
    return spread


def judge(family: str, counted: Counted, grid: Grid) -> Found:
    """Count, for each candidate, the decisions that contradict the limit that suits it best.

    Candidates that cannot be among the best are left out: some of the requests contradict them too often.
    """
    if len(counted.telling) < len(counted.every) and len(grid) > SURE:
        counted.ask(counted.telling)
        at_least = _chunked(family, counted, grid).cost
        order = np.argsort(at_least, kind="stable")
        counted.ask(counted.every)
        found = _chunked(family, counted, grid.take(order[:SURE]))
        rest = order[SURE:]
        rest = rest[at_least[rest] <= found.cost.min()]
        return found.plus(_chunked(family, counted, grid.take(rest))) if len(rest) else found
    counted.ask(counted.every)
    return _chunked(family, counted, grid)


def _chunked(family: str, counted: Counted, grid: Grid) -> Found:
    chunk = max(1, CELLS // max(1, len(counted.columns)))
    parts = [
        _judge(family, counted, grid.take(np.arange(start, min(start + chunk, len(grid)))))
        for start in range(0, len(grid), chunk)
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.plus(part)
    return whole


def _judge(family: str, counted: Counted, grid: Grid) -> Found:
    least, most = USES[family](counted, grid)
    top = 2 * counted.sights.largest_run + 10
    hard = _cost(family, counted, least, most, top)
    # Loose bounds excuse everything: what a candidate says in the middle of its doubt counts a little too.
    middle = (least + most) / 2
    cost = HARD * hard + _cost(family, counted, middle, middle, top)
    best = cost.min(axis=1)
    at_least = cost.argmin(axis=1)
    at_most = cost.shape[1] - 1 - cost[:, ::-1].argmin(axis=1)
    return Found(grid, best, hard[np.arange(len(grid)), at_least], at_least + 1, at_most + 1)


def _cost(family: str, counted: Counted, least: Floats, most: Floats, top: int) -> Ints:
    """Return, for each candidate and each limit from 1 to ``top``, how many decisions contradict it."""
    # Sums of refill round; counts, weighted or not, are whole where it matters.
    doubt = EPS if family in BUCKETS else 0.0
    used = least[:, counted.accepted]
    needed = np.ceil(used + 1 - doubt) if family in BUCKETS else np.floor(used - doubt) + 1
    allowed = np.ceil(most[:, counted.refused])
    # A limit is contradicted by each acceptance that needed more, and each refusal that it would let in.
    steps = _histogram(allowed + 1, top) - _histogram(needed, top)
    cost: Ints = (needed.shape[1] + np.cumsum(steps, axis=1))[:, 1:]
    return cost


def _histogram(values: Floats, top: int) -> Ints:
    k = len(values)
    flat = (np.minimum(values, top + 1) + (np.arange(k) * (top + 2))[:, None]).astype(np.int64).ravel()
    counts: Ints = np.bincount(flat, minlength=k * (top + 2)).reshape(k, top + 2)[:, : top + 1]
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
        return _plain(period)
    longest_s = 1.05 * span_s
    shortest_s = span_s / 200 if count_refused else 0.6 * sights.longest_refusal_s()
    shortest_s = min(max(shortest_s, span_s / 2000, RESOLVED * sights.doubt_s()), longest_s / 2)
    wanted = [each for each in (*NATURAL_S, *hints_s) if shortest_s <= each <= longest_s]
    even = _dense(shortest_s, longest_s, span_s) if family in DRIFTING else _geometric(shortest_s, longest_s)
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
    return Grid(periods, phase.ravel(), np.zeros(phase.size))


def _plain(period: Floats) -> Grid:
    return Grid(period, np.zeros_like(period), np.zeros_like(period))


def _ticks(sights: Sights, rates: tuple[float, float]) -> Grid:
    """Return ticks, by the ends of refusals, with each lump that comes near to a rate between ``rates``."""
    span_s = float(sights.hi[-1] - sights.lo[0])
    longest_s = min(1.1 * max(hi - lo for lo, hi in _waits(sights)), 1.05 * span_s)
    shortest_s = max(0.6 * sights.longest_refusal_s(), span_s / 2000, RESOLVED * sights.doubt_s())
    tick = _dense(min(shortest_s, longest_s / 1.2), longest_s, span_s)
    ticks = np.concatenate([tick, [each for each in NATURAL_S if shortest_s <= each <= longest_s]])
    # The first run is what a full bucket held, or the largest; the limit that suits is shared out later.
    lumps = np.unique([run / parts for parts in PARTS for run in (sights.first_run, sights.largest_run)])
    which, lump = np.nonzero(
        (lumps >= rates[0] * ticks[:, None]) & (lumps <= rates[1] * ticks[:, None]) & (lumps >= LEAST_LUMP)
    )
    phases = np.array([(lo + hi) / 2 for lo, hi in _narrow(sights)])
    return Grid(
        np.repeat(ticks[which], len(phases)), np.tile(phases, len(which)), np.repeat(lumps[lump], len(phases))
    )


def _around(family: str, best: Grid, width: Floats, slack_s: Floats) -> Grid:
    steps = np.linspace(-1.0, 1.0, 9)
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


def _shared(found: Found, chosen: Ints, width: Floats, slack_s: Floats) -> tuple[Grid, Floats, Floats]:
    """Return candidates with lumps that share out the limit that suits each, or one near to it."""
    grid, limit = found.grid.take(chosen), found.limit_least[chosen]
    parts = np.maximum(np.round(limit / grid.lump), 1)
    lump = np.concatenate([(limit + more) / parts for more in (-1, 0, 1)])
    lump = np.where(lump > 0, lump, np.tile(grid.lump, 3))
    return Grid(np.tile(grid.period, 3), np.tile(grid.phase, 3), lump), np.tile(width, 3), np.tile(slack_s, 3)


def _narrow(sights: Sights) -> list[tuple[float, float]]:
    """Return the recoveries that tell best when they were."""
    return sorted(sights.recoveries, key=lambda turn: turn[1] - turn[0])[:EDGES]


def _phases(sights: Sights, shares: tuple[float, ...]) -> list[float]:
    """Return where an edge may lie, by the recoveries; and the first request."""
    found = [float(sights.lo[0]), float(sights.hi[0])]
    for lo, hi in _narrow(sights):
        found += [lo + share * (hi - lo) for share in shares]
    return found
