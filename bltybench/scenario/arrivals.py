"""Open loop: when each request is due, as absolute times, so that lateness is seen and never adds up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import assert_never

from bltybench.scenario import trace
from bltybench.scenario.workload import Arrivals, Closed, Constant, Poisson, Trace


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request that is due at a time."""

    index: int
    at_s: float
    """Seconds from the start of the run."""
    prompt_tokens: int | None
    """From a trace; None where the call's own lengths are drawn."""
    max_tokens: int | None


def schedule(arrivals: Arrivals, duration_s: float, seed: int, base_dir: Path) -> Iterator[Arrival]:
    """Return every arrival before ``duration_s``, in order of time.

    The schedule is the same for the same seed, wherever it is made: worker i of n makes the whole of it and
    takes those with ``index % n == i``. Raises UserError, before the first arrival, where a trace's file is
    missing or has a mistake in the part that will be used; ValueError for a closed loop, which has no
    schedule.
    """
    match arrivals:
        case Constant():
            return _constant(arrivals.rate_per_min, duration_s)
        case Poisson():
            return _poisson(arrivals.rate_per_min, duration_s, seed)
        case Trace():
            return _trace(arrivals, duration_s, base_dir)
        case Closed():
            raise ValueError("a closed loop has no schedule: its users decide when to send")
    assert_never(arrivals)


def _constant(rate_per_min: float, duration_s: float) -> Iterator[Arrival]:
    index = 0
    while (at_s := index * 60 / rate_per_min) < duration_s:
        yield Arrival(index, at_s, None, None)
        index += 1


def _poisson(rate_per_min: float, duration_s: float, seed: int) -> Iterator[Arrival]:
    rng = Random(f"{seed}:arrivals")
    rate_per_s = rate_per_min / 60
    index = 0
    at_s = rng.expovariate(rate_per_s)
    while at_s < duration_s:
        yield Arrival(index, at_s, None, None)
        index += 1
        at_s += rng.expovariate(rate_per_s)


def _trace(arrivals: Trace, duration_s: float, base_dir: Path) -> Iterator[Arrival]:
    path = base_dir / arrivals.file
    until_s = duration_s * arrivals.speed
    trace.check(path, until_s)
    return (
        Arrival(index, row.at_s / arrivals.speed, row.prompt_tokens, row.max_tokens)
        for index, row in enumerate(trace.rows(path, until_s))
    )
