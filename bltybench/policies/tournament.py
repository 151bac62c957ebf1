"""Every policy against every limiter, with the same calls."""

from collections.abc import Sequence

import msgspec

from bltybench.limits.models.families import prose_name
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.policies.tally import PolicyResult, tally
from bltybench.scenario.retry import SDK_POLICIES, Retry
from bltybench.scenario.target import RateLimit, SandboxLimits
from bltybench.scenario.workload import Scenario


class LimiterResult(msgspec.Struct, kw_only=True):
    """The policies against one set of limits, in descending order of goodput."""

    requests: dict[str, float | bool | str] | None
    """Limit, period, algorithm, and options, as in limits.toml."""
    tokens: dict[str, float | bool | str] | None
    concurrency: int | None
    results: list[PolicyResult]

    def sentence(self) -> str:
        """Return the limits in words."""
        limits = [
            f"{limit['limit']:,} {unit} per {limit['period_s']:g} s ({prose_name(str(limit['algorithm']))})"
            for unit, limit in (("requests", self.requests), ("tokens", self.tokens))
            if limit is not None
        ]
        if self.concurrency is not None:
            limits.append(f"{self.concurrency:,} concurrent requests")
        return ", ".join(limits) or "no limits"


class Tournament(msgspec.Struct, kw_only=True):
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
        end = "a batch" if self.duration_s is None else f"{self.duration_s:g} s of arrivals"
        clients = "1 client" if self.clients == 1 else f"{self.clients:,} clients"
        return f"Simulated {end} of {self.scenario}, {clients} with {self.users:,} users, seed {self.seed}."

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def play(
    name: str,
    scenario: Scenario,
    load: SimulatedLoad,
    *,
    service: ServiceTime,
    variants: Sequence[SandboxLimits],
    policies: Sequence[str],
) -> Tournament:
    """Simulate each policy against each set of limits."""
    limiters = []
    for limits in variants:
        results = [
            tally(policy, load, Simulation(load, limits, retry, service, scenario.seed).run())
            for policy, retry in ((policy, variant(scenario.retry, policy)) for policy in policies)
        ]
        results.sort(key=lambda result: -result.goodput_per_min)
        limiters.append(
            LimiterResult(
                requests=_fields(limits.requests),
                tokens=_fields(limits.tokens),
                concurrency=limits.concurrency,
                results=results,
            )
        )
    return Tournament(
        scenario=name,
        seed=scenario.seed,
        clients=load.clients,
        users=load.users,
        duration_s=load.end_s,
        limiters=limiters,
    )


def variant(retry: Retry, policy: str) -> Retry:
    """Return the scenario's retry table with another policy. An SDK's keeps only what applies to it."""
    kept = retry.model_dump(include={"max_attempts", "budget"} if policy in SDK_POLICIES else None)
    return Retry.model_validate(kept | {"policy": policy})


def _fields(limit: RateLimit | None) -> dict[str, float | bool | str] | None:
    return None if limit is None else limit.model_dump(exclude_none=True)
