"""The tables of a simulation: what the calls of a policy achieved, and what their attempts cost."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, compress, cycle

import msgspec

from bltybench.limits.observations.classify import Decision
from bltybench.percentiles import percentile
from bltybench.policies.optimum import Optimum
from bltybench.policies.simulated_calls import SimulatedCalls
from bltybench.policies.simulated_load import SimulatedLoad

MIN_BEYOND = 10
"""Values that a percentile needs above it. With fewer it is not shown."""


class PolicyResult(msgspec.Struct, kw_only=True):
    """The calls and attempts of one policy. Null is what does not apply or has too few calls."""

    policy: str
    """Retry policy."""
    pacing: str
    calls: int
    ok: int
    gave_up: int
    """Calls that ended refused."""
    goodput_per_min: float | None
    """Calls that succeeded before the load ended, per minute. Null for a batch, which has no end."""
    below_optimum_percent: float | None
    """Calls accepted before the load ended, compared with the optimum: in percent fewer. For a batch, before
    the optimum has all calls accepted."""
    success_p50_s: float | None
    """Time from when a call was due until it succeeded, in seconds."""
    success_p95_s: float | None
    success_p99_s: float | None
    fairness: float | None
    """Jain's index of the clients' successes: 1 if they are equal, 1/n if one of n clients has all."""
    makespan_s: float
    """Time at which the last call ended, in seconds."""
    attempts: int
    refusals_per_success: float | None
    wasted_tokens: int
    """Tokens of the prompts of refused attempts."""
    refused_by_requests: int
    refused_by_tokens: int
    refused_by_concurrency: int


def tally(
    policy: str,
    load: SimulatedLoad,
    calls: SimulatedCalls,
    best: Optimum | None = None,
    pacing: str = "none",
) -> PolicyResult:
    """Return the tables of a simulation."""
    times_s = sorted(calls.success_s)
    refusals = Counter(chain.from_iterable(calls.refusals))
    accepted_s = [at_s for at_s in calls.accepted_s if at_s is not None]
    goodput_per_min = None
    if load.end_s is not None:
        in_time = sum(map(load.end_s.__ge__, compress(calls.ended_s, calls.ok)))
        goodput_per_min = in_time / load.end_s * 60
    by_client = Counter(compress(calls.client, calls.ok))
    return PolicyResult(
        policy=policy,
        pacing=pacing,
        calls=len(calls),
        ok=len(accepted_s),
        gave_up=len(calls) - len(accepted_s),
        goodput_per_min=goodput_per_min,
        below_optimum_percent=None if best is None else best.below(accepted_s, load.end_s),
        success_p50_s=_shown(times_s, 0.50),
        success_p95_s=_shown(times_s, 0.95),
        success_p99_s=_shown(times_s, 0.99),
        fairness=None if load.clients == 1 else jain([by_client[client] for client in range(load.clients)]),
        makespan_s=max(calls.ended_s),
        attempts=len(accepted_s) + refusals.total(),
        refusals_per_success=refusals.total() / len(accepted_s) if accepted_s else None,
        wasted_tokens=sum(
            size.prompt * len(refused)
            for size, refused in zip(cycle(load.sizes), calls.refusals, strict=False)
            if refused
        ),
        refused_by_requests=refusals[Decision.REFUSED_BY_REQUESTS],
        refused_by_tokens=refusals[Decision.REFUSED_BY_TOKENS],
        refused_by_concurrency=refusals[Decision.REFUSED_BY_CONCURRENCY],
    )


def jain(values: Sequence[float]) -> float | None:
    """Return Jain's fairness index, (Σx)² / (n·Σx²); None if all values are 0."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None


def _shown(ordered: Sequence[float], fraction: float) -> float | None:
    supported = len(ordered) * (1 - fraction) >= MIN_BEYOND - 1e-9
    return percentile(ordered, fraction) if supported else None
