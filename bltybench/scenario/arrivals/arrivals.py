"""Open-loop schedules: absolute due times, so that delays are visible and never accumulate."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from random import Random
from statistics import fmean

from bltybench.scenario.arrivals import trace
from bltybench.scenario.arrivals.trace_line import ChatId, TraceRow
from bltybench.scenario.patterns import (
    Bursts,
    Closed,
    Constant,
    Gamma,
    Ladder,
    Poisson,
    Ramp,
    Replay,
    Spacing,
    Stairs,
    Trace,
)
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Arrivals


@dataclass(frozen=True, slots=True)
class Arrival:
    """One scheduled request."""

    index: int
    at_s: float
    """Seconds since the start of the run."""
    prompt_tokens: int | None = None
    """Set by a trace. None if the call draws its own lengths."""
    max_tokens: int | None = None
    stage: str | None = None
    """Step of the stairs that the arrival belongs to."""
    blocks: tuple[int, ...] = ()
    """Set by a trace with shared prefixes: IDs of the blocks that make up the prompt."""
    block_tokens: int = 0
    """Tokens of each block but the last."""
    call: str | None = None
    """Set by a trace: a call of the mix. None if the mix decides."""
    session: int | None = None
    """Set by a trace: index of the first arrival of its session."""
    after: int | None = None
    """Index of the arrival before it in its session, whose answer must have ended before it is sent."""
    turn: int | None = None
    """Recorded turn of its session."""
    number: int | None = None
    """Set by a trace of recorded requests: number of the request in the file, from 0."""

    def worker(self, workers: int) -> int:
        """Return the number of the worker that sends it. A session stays on one."""
        return (self.index if self.session is None else self.session) % workers


def schedule(
    arrivals: Arrivals, duration_s: float, seed: int, base_dir: Path, calls: Collection[str] | None = None
) -> Iterator[Arrival]:
    """Yield every arrival before ``duration_s``, in order of time.

    The schedule depends only on its arguments, wherever it is computed. Worker i of n computes all of it and
    takes the arrivals with ``worker(n) == i``. Raise UserError, before the first arrival, if a trace file is
    missing or invalid in the part to be used. With ``calls`` (the names of the mix) a row that names another
    call is invalid too. Raise ValueError for a closed loop, which has no schedule.
    """
    rng = Random(f"{seed}:arrivals")
    match arrivals:
        case Trace():
            return _trace(arrivals, duration_s, seed, base_dir, calls)
        case Stairs():
            return _stairs(arrivals, duration_s, rng)
        case Constant():
            times_s = _even(arrivals.rate_per_min, duration_s)
        case Poisson():
            times_s = _poisson(arrivals.rate_per_min, duration_s, rng)
        case Gamma():
            # Mean m and coefficient of variation c of the gaps give shape 1/c² and scale m·c².
            shape = arrivals.burstiness**-2
            scale = 60 / arrivals.rate_per_min / shape
            times_s = _renewal(lambda: rng.gammavariate(shape, scale), duration_s)
        case Ramp():
            times_s = _ramp(arrivals, duration_s, rng)
        case Bursts():
            times_s = _bursts(arrivals, duration_s, rng)
        case Closed() | Ladder():
            raise ValueError("a closed loop has no schedule: its users decide when to send")
        case CapacitySearch():
            raise ValueError("a search has no schedule: each trial determines the next")
        case Tournament():
            raise ValueError("a tournament has no schedule: each policy begins after the last one")
        case Replay():
            raise ValueError("a former run must be converted to a trace before it is replayed")
    return (Arrival(index, at_s) for index, at_s in enumerate(times_s))


def expected_arrivals(arrivals: Arrivals, duration_s: float) -> float:
    """Return how many arrivals a drawn schedule has on average; 0 for a trace or a closed loop."""
    match arrivals:
        case Constant() | Poisson() | Gamma():
            per_min = arrivals.rate_per_min
        case Ramp():
            per_min = arrivals.calls_per_min((arrivals.from_per_min + arrivals.to_per_min) / 2)
        case Stairs():
            per_min = arrivals.calls_per_min(fmean(arrivals.rates_per_min))
        case Bursts():
            return arrivals.size * (1 + duration_s / arrivals.every_s)
        case _:
            return 0.0
    return per_min * duration_s / 60


def _even(rate_per_min: float, duration_s: float) -> Iterator[float]:
    index = 0
    while (at_s := index * 60 / rate_per_min) < duration_s:
        yield at_s
        index += 1


def _poisson(rate_per_min: float, duration_s: float, rng: Random) -> Iterator[float]:
    return _renewal(lambda: rng.expovariate(rate_per_min / 60), duration_s)


def _renewal(draw_gap_s: Callable[[], float], duration_s: float) -> Iterator[float]:
    at_s = draw_gap_s()
    while at_s < duration_s:
        yield at_s
        at_s += draw_gap_s()


def _ramp(arrivals: Ramp, duration_s: float, rng: Random) -> Iterator[float]:
    """Yield times at which the expected number of arrivals, a·t + (b − a)·t²/2d, reaches given values.

    Even spacing uses 0, 1, 2, … Random spacing uses the times of a Poisson process of rate 1, which gives a
    Poisson process with the ramp's rate.
    """
    start = arrivals.calls_per_min(arrivals.from_per_min) / 60
    slope = (arrivals.calls_per_min(arrivals.to_per_min) / 60 - start) / duration_s
    even = arrivals.spacing == "even"
    level = 0.0 if even else rng.expovariate(1.0)
    while True:
        square = start * start + 2 * slope * level
        if square < 0:  # a downward ramp never reaches this number
            return
        # This form of the quadratic's root keeps its digits if the slope is small.
        at_s = 2 * level / (start + sqrt(square)) if level else 0.0
        if at_s >= duration_s:
            return
        yield at_s
        level += 1.0 if even else rng.expovariate(1.0)


def _stairs(arrivals: Stairs, duration_s: float, rng: Random) -> Iterator[Arrival]:
    index = 0
    stages = arrivals.stages(duration_s)
    step_s = stages[0].end_s
    for rate, stage in zip(arrivals.rates_per_min, stages, strict=True):
        for at_s in step_times(arrivals.calls_per_min(rate), step_s, arrivals.spacing, rng):
            yield Arrival(index, stage.begin_s + at_s, stage=stage.name)
            index += 1


def step_times(rate_per_min: float, step_s: float, spacing: Spacing, rng: Random) -> Iterator[float]:
    """Return the times of one constant-rate step, in seconds since its start."""
    return _even(rate_per_min, step_s) if spacing == "even" else _poisson(rate_per_min, step_s, rng)


def _bursts(arrivals: Bursts, duration_s: float, rng: Random) -> Iterator[float]:
    number = 0
    while (begin_s := number * arrivals.every_s) < duration_s:
        late_s = sorted(rng.random() * arrivals.spread_s for _ in range(arrivals.size))
        yield from (begin_s + late for late in late_s if begin_s + late < duration_s)
        number += 1


def _trace(
    arrivals: Trace, duration_s: float, seed: int, base_dir: Path, calls: Collection[str] | None
) -> Iterator[Arrival]:
    path = base_dir / arrivals.file
    until_s = arrivals.start_s + min(duration_s * arrivals.speed, arrivals.length_s or float("inf"))
    unit = arrivals.time_unit
    trace.check(path, arrivals.start_s, until_s, calls, unit)
    recorded = trace.rows(path, arrivals.start_s, until_s, time_unit=unit)
    rows = trace.scaled(recorded, arrivals.scale, Random(f"{seed}:trace"))
    return _linked(rows, arrivals)


def _linked(rows: Iterator[TraceRow], arrivals: Trace) -> Iterator[Arrival]:
    """Yield an arrival per row. A chat's parent that is not among the earlier rows is ignored."""
    known: dict[tuple[ChatId, int], Arrival] = {}
    for index, row in enumerate(rows):
        parent = None if row.parent is None else known.get((row.parent, row.copy))
        session = index if parent is None else parent.session
        arrival = Arrival(
            index,
            (row.at_s - arrivals.start_s) / arrivals.speed,
            row.prompt_tokens,
            row.max_tokens,
            blocks=row.blocks,
            block_tokens=row.block_tokens,
            call=row.call,
            session=None if row.chat is None and parent is None else session,
            after=None if parent is None else parent.index,
            turn=row.turn,
            number=row.number,
        )
        if row.chat is not None:
            known[row.chat, row.copy] = replace(arrival, blocks=())
        yield arrival
