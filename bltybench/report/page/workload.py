"""How a load was made, in words, where it is more than a rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Arrivals = dict[str, Any]


def _gamma(arrivals: Arrivals, users: int) -> str:
    rate, burstiness = arrivals["rate_per_min"], arrivals["burstiness"]
    return f"open loop, {rate:g} calls/min, burstiness {burstiness:g}, at most {users} in flight"


def _unit(arrivals: Arrivals) -> str:
    return "tokens/min" if arrivals.get("unit") == "tokens" else "calls/min"


def _ramp(arrivals: Arrivals, users: int) -> str:
    low, high = arrivals["from_per_min"], arrivals["to_per_min"]
    return f"open loop, a ramp from {low:g} to {high:g} {_unit(arrivals)}, at most {users} in flight"


def _stairs(arrivals: Arrivals, users: int) -> str:
    rates = ", ".join(f"{rate:g}" for rate in arrivals["rates_per_min"])
    return f"open loop, stairs of {rates} {_unit(arrivals)}, at most {users} in flight"


def _bursts(arrivals: Arrivals, users: int) -> str:
    size, every = arrivals["size"], arrivals["every_s"]
    return f"open loop, bursts of {size} calls every {every:g} s, at most {users} in flight"


def _ladder(arrivals: Arrivals, _: int) -> str:
    return f"closed loop, {', '.join(str(count) for count in arrivals['users'])} users one after another"


def _search(arrivals: Arrivals, _: int) -> str:
    unit = "calls/min" if arrivals.get("load", "rate") == "rate" else "users"
    return f"a search between {arrivals['start']:g} and {arrivals['max']:g} {unit}"


LOADS: dict[str, Callable[[Arrivals, int], str]] = {
    "gamma": _gamma,
    "ramp": _ramp,
    "stairs": _stairs,
    "bursts": _bursts,
    "ladder": _ladder,
    "search": _search,
}
"""By kind of arrivals: from their table and the scenario's users to words."""
