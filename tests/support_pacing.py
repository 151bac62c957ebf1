"""Loads, limits, and runs that the tests of pacing share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bltybench.policies.pacing.pacer import SentRequest, Share
from bltybench.policies.simulated_calls import SimulatedCalls
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.pacing import PacingName
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import RateLimit, SandboxLimits

SECOND = ServiceTime(first_s=1.0, per_token_s=0.0)
RNG = random.Random(1)
ONE = Share(client=0, clients=1)
SIZE = CallSize(5, 5)
SENT = SentRequest(at_s=0.0, size=SIZE)


def limits(
    limit: int = 4, period_s: float = 8.0, algorithm: Algorithm = "sliding_log", **changes: Any
) -> Any:
    rule = RateLimit(limit=limit, period_s=period_s, algorithm=algorithm)
    return SandboxLimits(**({"requests": rule, "tokens": None, "concurrency": None} | changes))


def batch(calls: int, clients: int = 1, users: int = 1000) -> SimulatedLoad:
    return SimulatedLoad(
        clients=clients, users=users, due_s=(0.0,) * calls, think_s=0.0, end_s=None, sizes=(CallSize(5, 5),)
    )


def at_times(due_s: Sequence[float]) -> SimulatedLoad:
    return replace(batch(0), due_s=tuple(due_s), end_s=30.0)


def run(load: SimulatedLoad, limited: SandboxLimits, pacing: PacingName) -> SimulatedCalls:
    retry = Retry(policy="retry_after", max_attempts=50)
    return Simulation(load, limited, retry, SECOND, seed=1, pacing=pacing).run()


def sent_s(calls: SimulatedCalls) -> list[float]:
    return sorted(call.accepted_s for call in calls if call.accepted_s is not None)
