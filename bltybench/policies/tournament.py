"""Every policy against every limiter, with the same calls."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import msgspec

from bltybench.limits.models.families import in_words
from bltybench.policies.optimum import Optimum, optimum
from bltybench.policies.simulated_api import windows_start_s
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.policies.tally import PolicyResult, tally
from bltybench.scenario.api.documented_limits import PER_PERIOD
from bltybench.scenario.pacing import PacingName
from bltybench.scenario.retry import SDK_POLICIES, Retry
from bltybench.scenario.target import RateLimit, SandboxLimits
from bltybench.scenario.workload import Scenario


class OptimumResult(msgspec.Struct, kw_only=True):
    """The best that any client could do."""

    accepted: int
    """Calls accepted before the load ended. A batch ends when all are accepted."""
    makespan_s: float | None
    """Time at which the last call of a batch ended, in seconds. Null without a batch."""


class LimiterResult(msgspec.Struct, kw_only=True):
    """The policies against one set of limits, the best first."""

    requests: dict[str, Any] | None
    """Limit, period, algorithm, and options, as in limits.toml."""
    tokens: dict[str, Any] | None
    input_tokens: dict[str, Any] | None
    output_tokens: dict[str, Any] | None
    concurrency: int | None
    other_apis: int
    """Further keys, models, and targets that the calls use, each with its own limits."""
    optimum: OptimumResult | None
    """Null if it is unknown: docs/retries.md has the cases."""
    results: list[PolicyResult]

    def sentence(self) -> str:
        """Return the limits in words."""
        limits = [
            in_words(RateLimit.model_validate(limit), unit)
            for unit in PER_PERIOD
            if (limit := getattr(self, unit)) is not None
        ]
        if self.concurrency is not None:
            limits.append(f"{self.concurrency:,} concurrent requests")
        if self.other_apis:
            limits.append(f"and the limits of {self.other_apis:,} more keys, models, or targets")
        return ", ".join(limits) or "no limits"

    def optimum_sentence(self) -> str:
        """Return what the best client would achieve."""
        if self.optimum is None:
            return "The optimum is unknown for these limits and calls."
        accepted, makespan_s = self.optimum.accepted, self.optimum.makespan_s
        end = "by the end" if makespan_s is None else f"and ended after {makespan_s:,.1f} s"
        return f"Optimum: {accepted:,} calls accepted {end}."


class SimulatedTournament(msgspec.Struct, kw_only=True):
    """A simulated comparison of policies."""

    scenario: str
    seed: int
    clients: int
    users: int
    duration_s: float | None
    """Null for a batch, which ends with its last call."""
    limiters: list[LimiterResult]

    def sentence(self) -> str:
        """Return what was simulated."""
        end = "a batch" if self.duration_s is None else f"{round(self.duration_s, 1):,} s of arrivals"
        clients = "1 client" if self.clients == 1 else f"{self.clients:,} clients"
        users = "1 user" if self.users == 1 else f"{self.users:,} users"
        return f"Simulated {end} of {self.scenario}, {clients} with {users}, seed {self.seed}."

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def play(
    name: str,
    scenario: Scenario,
    load: SimulatedLoad,
    *,
    service: ServiceTime,
    variants: Sequence[Sequence[SandboxLimits]],
    policies: Sequence[str],
    pacings: Sequence[PacingName],
) -> SimulatedTournament:
    """Simulate each retry policy with each pacing against each set of limits, one for each API of the calls.

    The optimum is known for one API.
    """
    limiters = []
    for limits, *others in variants:
        start_s = windows_start_s(limits, scenario.seed)
        best = None if others else optimum(load, limits, service, start_s)
        results = []
        for policy, pacing in product(policies, pacings):
            retry = variant(scenario.retry, policy)
            calls = Simulation(
                load, limits, retry, service, seed=scenario.seed, pacing=pacing, others=others
            ).run()
            results.append(tally(policy, load, calls, best, pacing))
        results.sort(key=lambda row: (row.below_optimum_percent or 0.0, -(row.goodput_per_min or row.ok)))
        limiters.append(
            LimiterResult(
                requests=_fields(limits.requests),
                tokens=_fields(limits.tokens),
                input_tokens=_fields(limits.input_tokens),
                output_tokens=_fields(limits.output_tokens),
                concurrency=limits.concurrency,
                other_apis=len(others),
                optimum=_result(best, load.end_s),
                results=results,
            )
        )
    return SimulatedTournament(
        scenario=name,
        seed=scenario.seed,
        clients=load.clients,
        users=load.users,
        duration_s=load.end_s,
        limiters=limiters,
    )


def variant(retry: Retry, policy: str) -> Retry:
    """Return the scenario's retry table with another policy. An SDK's keeps only what applies to it."""
    kept = retry.model_dump(
        include={"max_attempts", "budget", "fallback"} if policy in SDK_POLICIES else None
    )
    return Retry.model_validate(kept | {"policy": policy})


def _result(best: Optimum | None, end_s: float | None) -> OptimumResult | None:
    if best is None:
        return None
    makespan_s = best.makespan_s if end_s is None else None
    return OptimumResult(accepted=best.accepted_by(end_s), makespan_s=makespan_s)


def _fields(limit: RateLimit | None) -> dict[str, Any] | None:
    return None if limit is None else limit.model_dump(exclude_none=True)
