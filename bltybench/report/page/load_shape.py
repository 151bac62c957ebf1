"""A one-line description of a scenario's load."""

from typing import assert_never

from bltybench.report.text import count
from bltybench.scenario.patterns import (
    Bursts,
    Closed,
    Constant,
    Gamma,
    Ladder,
    Poisson,
    Ramp,
    Replay,
    Stairs,
    Trace,
)
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Scenario


def load_shape(scenario: Scenario) -> str:  # noqa: PLR0911, PLR0912 - one per kind
    """Return a description of the load."""
    match scenario.arrivals:
        case Closed(think_s=think_s):
            return f"closed loop, {count(scenario.users, 'user')}" + (
                f", {think_s:g} s think time" if think_s else ""
            )
        case Ladder(users=users):
            return f"closed loop, {_listed(users)} users one after another"
        case CapacitySearch(load=load, start=start, max=highest):
            unit = "calls/min" if load == "rate" else "users"
            return f"capacity search between {start:g} and {highest:g} {unit}"
        case Tournament(policies=policies, stage_s=stage_s):
            shape = load_shape(scenario.of_one_policy())
            return f"tournament of {len(policies)} policies, each with {stage_s:g} s of {shape}"
        case Trace(file=file, speed=speed):
            return f"open loop, trace {file} at {speed:g}×"
        case Replay(run=run):
            return f"open loop, replay of {run}"
        case Constant(rate_per_min=rate):
            arrivals = f"{rate:g} calls/min evenly spaced"
        case Poisson(rate_per_min=rate):
            arrivals = f"{rate:g} calls/min Poisson"
        case Gamma(rate_per_min=rate, burstiness=burstiness):
            arrivals = f"{rate:g} calls/min, burstiness {burstiness:g}"
        case Ramp(from_per_min=low, to_per_min=high, unit=unit):
            arrivals = f"ramp from {low:g} to {high:g} {_per_min(unit)}"
        case Stairs(rates_per_min=rates, unit=unit):
            arrivals = f"stairs of {_listed(rates)} {_per_min(unit)}"
        case Bursts(size=size, every_s=every_s):
            arrivals = f"bursts of {size} calls every {every_s:g} s"
        case never:
            assert_never(never)
    return f"open loop, {arrivals}, at most {scenario.users} in flight"


def _per_min(unit: str) -> str:
    return "tokens/min" if unit == "tokens" else "calls/min"


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
