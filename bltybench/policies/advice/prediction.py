"""What ``bltybench advise`` says: the settings of each client, and what to expect from them."""

from collections.abc import Sequence

import msgspec

from bltybench.policies.advice.known_limits import Sources
from bltybench.policies.advice.prescription import Prescription, one_key, pacers_of
from bltybench.policies.advice.setting import Setting
from bltybench.policies.optimum import Optimum
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.policies.tally import PolicyResult, tally
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import SandboxLimits


class Advice(msgspec.Struct, kw_only=True):
    """The advice for clients of one API."""

    source: str
    """The run or file that the limits are from."""
    limits: Sources
    prescription: Prescription
    workload: str
    predicted: list[PolicyResult]
    """The workload of the clients that share one limit: as advised, and with the same retries but no pace."""
    settings: list[Setting]

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def predict(
    load: SimulatedLoad,
    limits: SandboxLimits,
    prescription: Prescription,
    service: ServiceTime,
    *,
    seed: int,
    best: Optimum | None = None,
) -> list[PolicyResult]:
    """Simulate the clients that share one limit, as advised and unpaced. ``best`` is their optimum."""
    retry = Retry(policy="openai", max_attempts=prescription.max_retries + 1)
    part, paced_by = one_key(load, prescription), pacers_of(prescription)
    paced = Simulation(part, limits, retry, service, seed=seed, paced_by=paced_by).run()
    unpaced = Simulation(part, limits, retry, service, seed=seed).run()
    return [
        tally("openai", part, paced, best, pacing="as advised"),
        tally("openai", part, unpaced, best, pacing="none"),
    ]


def sentences(prescription: Prescription, sources: Sources) -> Sequence[str]:
    """Return the settings of each client in words."""
    lines = []
    spacing_s = prescription.spacing_s
    if prescription.windows:
        lines.append(f"Rate: at most {', '.join(window.words for window in prescription.windows)}.")
    else:
        lines.append("Rate: no limit of requests or tokens is known, so there is no pace to keep.")
    if spacing_s is not None:
        bound = prescription.bound_by
        why = "" if bound == "requests" else " The token limit decides that pace, by the sizes of the calls."
        per_min = prescription.requests_per_min
        rate = "" if per_min is None else f", at most {per_min:,} per minute"
        lines.append(f"Evenly spaced: one request every {spacing_s:g} s{rate}.{why}")
    if prescription.in_flight is not None:
        first = prescription.in_flight_more
        more = f"; the first {first:,} clients {prescription.in_flight + 1:,}" if first else ""
        lines.append(f"Concurrency: at most {prescription.in_flight:,} requests in flight{more}.")
    if prescription.tokens_per_min is not None:
        lines.append(f"Tokens: at most {prescription.tokens_per_min:,} per minute.")
    if prescription.max_retries:
        waits = "after Retry-After, or with exponential backoff and jitter"
        lines.append(f"Retries: {prescription.max_retries}, {waits}.")
    else:
        lines.append("Retries: none. A refusal starts a ban, so stop sending until it has ended.")
    by_name = {name.replace("_", " "): source for name, source in msgspec.structs.asdict(sources).items()}
    if documented := [name for name, source in by_name.items() if source == "documented"]:
        lines.append(f"As documented, not measured: {', '.join(documented)}.")
    if both := [name for name, source in by_name.items() if source == "measured and documented"]:
        lines.append(f"As measured, and for periods of an hour or longer as documented: {', '.join(both)}.")
    return lines
