"""The smallest request limit with which a policy meets an objective."""

import re
from dataclasses import dataclass
from math import inf

import msgspec

from bltybench.errors import UserError
from bltybench.percentiles import percentile
from bltybench.policies.simulated_calls import SimulatedCalls
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.scenario.pacing import PacingName
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import RateLimit, SandboxLimits

_OBJECTIVE = re.compile(r"\s*(p50|p95|p99|gave_up|refused)\s*<=\s*(\d+(?:\.\d+)?)\s*(s|%)?\s*", re.ASCII)
UNITS = {"p50": "s", "p95": "s", "p99": "s", "gave_up": "%", "refused": "%"}
"""Metrics of an objective, with their units."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric of a simulation and its maximum, in seconds or percent."""

    metric: str
    maximum: float

    def holds(self, calls: SimulatedCalls) -> bool:
        """Return whether the calls meet it."""
        return self.value(calls) <= self.maximum

    def value(self, calls: SimulatedCalls) -> float:
        """Return the metric of the calls. A call that gave up takes forever."""
        if self.metric == "gave_up":
            return 100 * calls.ok.count(False) / len(calls)
        if self.metric == "refused":
            return 100 * calls.refused / (calls.refused + calls.ok.count(True))
        times_s = sorted(calls.success_s) + [inf] * calls.ok.count(False)
        return percentile(times_s, int(self.metric[1:]) / 100) or inf

    def __str__(self) -> str:
        """Return it as an option has it."""
        return f"{self.metric} <= {self.maximum:g} {UNITS[self.metric]}"


class NeededLimit(msgspec.Struct, kw_only=True):
    """The smallest limit for one policy. Null if no limit is enough."""

    policy: str
    pacing: str
    objective: str
    period_s: float
    algorithm: str
    limit: int | None
    value: float | None
    """The metric at that limit."""


def read_objective(text: str) -> Objective:
    """Return the objective of an option, such as ``p95 <= 5``. Raise UserError for another form."""
    match = _OBJECTIVE.fullmatch(text)
    if match is None or match[3] not in {None, UNITS[match[1]]}:
        raise UserError(
            "must be a metric and its maximum, such as 'p95 <= 5 s', 'gave_up <= 1 %', or 'refused <= 5 %'",
            where=f"--need {text[:40]}",
            remedy=f"the metrics are {', '.join(UNITS)}",
        )
    return Objective(match[1], float(match[2]))


def needed_limit(
    load: SimulatedLoad,
    limits: SandboxLimits,
    retry: Retry,
    service: ServiceTime,
    objective: Objective,
    *,
    seed: int,
    pacing: PacingName = "none",
) -> NeededLimit:
    """Search the smallest request limit, with the period and algorithm of ``limits``.

    With it the objective holds, and with one request less it does not. If the metric does not only fall with
    the limit, a still smaller one can meet the objective.
    """
    own = limits.requests or RateLimit(limit=1)

    def simulated(limit: int) -> SimulatedCalls:
        changed = limits.model_copy(update={"requests": own.model_copy(update={"limit": limit})})
        return Simulation(load, changed, retry, service, seed=seed, pacing=pacing).run()

    fails, holds = 0, 1
    calls = simulated(holds)
    # A limit of more than all calls refuses none of them, so a higher one changes nothing.
    while not objective.holds(calls) and holds < 2 * len(calls):
        fails, holds = holds, 2 * holds
        calls = simulated(holds)
    found = objective.holds(calls)
    while found and holds - fails > 1:
        middle = (fails + holds) // 2
        tried = simulated(middle)
        if objective.holds(tried):
            holds, calls = middle, tried
        else:
            fails = middle
    return NeededLimit(
        policy=retry.policy,
        pacing=pacing,
        objective=str(objective),
        period_s=own.period_s,
        algorithm=own.algorithm,
        limit=holds if found else None,
        value=objective.value(calls) if found else None,
    )
