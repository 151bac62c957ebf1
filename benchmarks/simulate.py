"""Simulated attempts per second of one process, by policy and number of attempts.

All cases are measured in rounds, and the fastest of each counts: others on the machine only make it slower.

python -m benchmarks.simulate --calls 10000 40000 160000      # prints the table of docs/retries.md
"""

import argparse
import time
from itertools import product
from typing import get_args

from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.retry import PolicyName, Retry
from bltybench.scenario.target import RateLimit, SandboxLimits

POLICIES: tuple[PolicyName, ...] = ("none", "fixed", "exponential", "full_jitter", "openai")
"""Policies without state, and that of an SDK."""
RATE_PER_S, LIMIT_PER_MIN = 100.0, 3000
"""Calls per second, evenly spaced, and the request limit: half of what is sent."""
MAX_ATTEMPTS, ROUNDS = 5, 5
SIZE = CallSize(prompt=100, completion=100)


def attempts_per_s(
    policy: PolicyName, calls: int, algorithm: Algorithm = "fixed_window"
) -> tuple[int, float]:
    """Return the attempts of a simulation, and how many of them it made per second of CPU time."""
    load = SimulatedLoad(
        clients=1,
        users=calls,
        due_s=tuple(number / RATE_PER_S for number in range(calls)),
        think_s=0.0,
        end_s=calls / RATE_PER_S,
        sizes=(SIZE,),
    )
    rule = RateLimit(limit=LIMIT_PER_MIN, algorithm=algorithm)
    limits = SandboxLimits(requests=rule, tokens=None, concurrency=None)
    retry = Retry(policy=policy, max_attempts=MAX_ATTEMPTS)
    simulation = Simulation(load, limits, retry, ServiceTime(1.0, 0.0), seed=1)
    started_s = time.process_time()
    made = simulation.run()
    took_s = time.process_time() - started_s
    attempts = made.refused + made.ok.count(True)
    return attempts, attempts / took_s


def main() -> None:
    """Print a row for each policy and number of calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--limiter", choices=get_args(Algorithm), nargs="+", default=["fixed_window"])
    given = parser.parse_args()
    cases = list(product(given.limiter, POLICIES, given.calls))
    rounds = [
        [attempts_per_s(policy, calls, limiter) for limiter, policy, calls in cases] for _ in range(ROUNDS)
    ]
    print("| limiter | policy | calls | attempts | attempts per CPU second |")
    print("|---|---|---|---|---|")
    for (limiter, policy, calls), measured in zip(cases, zip(*rounds, strict=True), strict=True):
        attempts, per_s = max(measured)
        print(f"| {limiter} | `{policy}` | {calls:,} | {attempts:,} | {per_s:,.0f} |")


if __name__ == "__main__":
    main()
