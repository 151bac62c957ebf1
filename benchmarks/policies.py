"""Distance of retry and pacing policies from the optimum, over random limiters and loads, in virtual time.

python -m benchmarks.policies --cases 500 --seed 7      # prints the tables of docs/retries.md
python -m benchmarks.policies --cases 500 --seed 11 --pacing limiter
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import get_args

from bltybench.limits.observations.proportion import Proportion
from bltybench.percentiles import percentile
from bltybench.policies.optimum import optimum
from bltybench.policies.simulated_api import windows_start_s
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.policies.tally import PolicyResult, tally
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.pacing import PACINGS, PacingName
from bltybench.scenario.retry import PolicyName, Retry
from bltybench.scenario.target import RateLimit, SandboxLimits

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
"""Families of the cases."""
PERIODS = 6
"""Duration of a load, in periods."""
MAX_ATTEMPTS = 10
"""Attempts of a call, including the first."""
CLOSE_PERCENT = 3.0
"""Distance from the optimum that counts as close, in percent."""
USERS = 100_000
"""Users, so that no call waits for one."""


@dataclass(frozen=True, slots=True)
class Case:
    """A limiter and a load."""

    limits: SandboxLimits
    load: SimulatedLoad
    service: ServiceTime
    seed: int


@dataclass(slots=True)
class Row:
    """The results of one combination of policies."""

    policy: PolicyName
    pacing: PacingName
    below: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    gave_up: list[float] = field(default_factory=list)

    def add(self, result: PolicyResult) -> None:
        """Add the result of a case."""
        if result.below_optimum_percent is not None:
            self.below.append(result.below_optimum_percent)
        if result.refusals_per_success is not None:
            self.refusals.append(result.refusals_per_success)
        self.gave_up.append(100 * result.gave_up / result.calls)

    def with_cases_of(self, other: Row) -> Row:
        """Return the results of both."""
        return Row(
            self.policy,
            self.pacing,
            self.below + other.below,
            self.refusals + other.refusals,
            self.gave_up + other.gave_up,
        )

    def markdown(self) -> str:
        """Return a row of the table."""
        close = Proportion(sum(value <= CLOSE_PERCENT for value in self.below), len(self.below))
        low, high = close.interval() or (0.0, 1.0)
        share = f"{100 * close.count / close.of:.0f} ({100 * low:.0f} to {100 * high:.0f})"
        far = percentile(sorted(self.below), 0.95) or 0.0
        return (
            f"| `{self.policy}` | `{self.pacing}` | {median(self.below):.1f} | {far:.1f} | {share} "
            f"| {median(self.refusals):.2f} | {sum(self.gave_up) / len(self.gave_up):.1f} |"
        )


def random_case(seed: int) -> Case:
    """Return a limiter and a load, drawn from a seed."""
    rng = random.Random(f"policies/{seed}")
    limit = round(5 * 20 ** rng.random())
    period_s = 60 ** rng.random()
    rule = RateLimit(limit=limit, period_s=period_s, algorithm=rng.choice(ALGORITHMS))
    duration_s = PERIODS * period_s
    rate_per_s = limit / period_s * rng.uniform(0.5, 2.0)
    due_s = tuple(sorted(arrivals(rng, rate_per_s, duration_s)))
    load = SimulatedLoad(
        clients=rng.choice((1, 1, 2, 5)),
        users=USERS,
        due_s=due_s or (0.0,),
        think_s=0.0,
        end_s=duration_s,
        sizes=(CallSize(100, 100),),
    )
    limits = SandboxLimits(requests=rule, tokens=None, concurrency=None)
    return Case(limits, load, ServiceTime(rng.uniform(0.2, 3.0), 0.0), seed)


def arrivals(rng: random.Random, rate_per_s: float, duration_s: float) -> Iterator[float]:
    """Yield the times of a Poisson process of batches, of one call each or of several."""
    batch = rng.choice((1, 1, 5, 20))
    at_s = rng.expovariate(rate_per_s / batch)
    while at_s < duration_s:
        yield from [at_s] * batch
        at_s += rng.expovariate(rate_per_s / batch)


def measure(cases: Sequence[Case], rows: Sequence[Row]) -> int:
    """Simulate every case with every combination. Return the number of attempts."""
    attempts = 0
    for case in cases:
        best = optimum(case.load, case.limits, case.service, windows_start_s(case.limits, case.seed))
        for row in rows:
            retry = Retry(policy=row.policy, max_attempts=MAX_ATTEMPTS)
            simulation = Simulation(
                case.load, case.limits, retry, case.service, seed=case.seed, pacing=row.pacing
            )
            result = tally(row.policy, case.load, simulation.run(), best, row.pacing)
            attempts += result.attempts
            row.add(result)
    return attempts


def rows_of_all() -> list[Row]:
    """Return every retry policy without pacing, and every pacing with one retry policy."""
    return [
        *(Row(policy, "none") for policy in get_args(PolicyName)),
        *(Row("retry_after_jitter", pacing) for pacing in PACINGS if pacing != "none"),
    ]


def main() -> None:
    """Print a table for cases with one client, one for cases with several, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pacing", choices=PACINGS, help="only rows with this pacing; by default all")
    given = parser.parse_args()
    cases = [random_case(given.seed * 1_000_000 + number) for number in range(given.cases)]
    tables = []
    for who, chosen in (
        ("one client", [case for case in cases if case.load.clients == 1]),
        ("several clients", [case for case in cases if case.load.clients > 1]),
    ):
        rows = [row for row in rows_of_all() if given.pacing in {None, row.pacing}]
        attempts = measure(chosen, rows)
        tables.append(rows)
        print_table(f"{len(chosen)} cases with {who}, {attempts:,} attempts", rows)
    print_table("All cases", [one.with_cases_of(other) for one, other in zip(*tables, strict=True)])


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n")
    print("| policy | pacing | median | p95 | close, % | refusals per success | gave up, % |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(row.markdown(), flush=True)


if __name__ == "__main__":
    main()
