"""How fast each of several clients may send, so that the limits refuse almost none of its requests."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import merge
from math import ceil, floor, log10
from random import Random

import msgspec

from bltybench.limits.models.families import model_of
from bltybench.policies.simulated_load import CallSize, SimulatedLoad
from bltybench.scenario.target import RateLimit, SandboxLimits

SLACK = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
"""Fractions by which a pace is slower than the limit. The first one that is safe is chosen.

A slower pace than the last one costs more throughput than the refusals it saves.
"""
MAX_REFUSED = 0.005
"""Maximum fraction of refusals at a safe pace."""
JITTER_S = 0.05
"""Maximum random delay between a client and the server, in seconds."""
TRIALS = 5
"""Trials of a pace, each with another start of the server's windows and of the clients."""
MIN_TRIAL_PERIODS, MIN_TRIAL_REQUESTS = 5, 300
"""Minimum length of a trial."""
MAX_TRIED = 300
"""Largest limit to try. A larger one is divided, like its period, because it takes as long as it is large."""
TOKEN_MARGIN = 0.95
"""Fraction of a token limit to use, because calls differ in size."""
BACKOFF_S, BACKOFF_CAP_S, BACKOFF_JITTER = 0.5, 8.0, 0.75
"""First wait, longest wait, and smallest random factor of the openai package's backoff."""
MIN_RETRIES, MAX_RETRIES = 3, 10


class Prescription(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of each client. Null is what the limits leave open."""

    clients: int
    keys: int
    sharing: int
    """Clients that share one limit."""
    keys_per_client: int
    """Keys that a client uses in turn."""
    spacing_s: float | None
    """Time between the starts of two requests of a client, in seconds."""
    requests_per_min: int | None
    """Requests of a client per minute at that pace, rounded down; also null if it is less than one."""
    tokens_per_min: int | None
    """Tokens that a client may use per minute."""
    in_flight: int | None
    """Requests that a client may have in flight."""
    max_retries: int
    """Retries, so that a client without a Retry-After waits for the longest period; none during a ban."""
    bound_by: str | None
    """The limit that decides the pace: ``requests`` or ``tokens``."""


def prescribe(
    limits: SandboxLimits, sizes: Sequence[CallSize], *, clients: int = 1, keys: int = 1, banned: bool = False
) -> Prescription:
    """Return the settings of each of ``clients`` that divide ``keys`` among them.

    ``sizes`` are the calls to expect: with large ones, the token limit decides the pace. If a refusal starts
    a ban (``banned``), retries would prolong it.
    """
    own_limit = "key" in limits.per
    sharing = ceil(clients / keys) if own_limit else clients
    keys_per_client = max(1, keys // clients) if own_limit else 1
    paces: dict[str, float] = {}
    if limits.requests is not None:
        alone = (limit.model_copy(update={"also": None}) for limit in limits.requests.chain())
        paces["requests"] = max(safe_spacing_s(limit, sharing) for limit in alone)
    tokens_per_s = None
    if limits.tokens is not None:
        slowest = min(limit.limit / limit.period_s for limit in limits.tokens.chain())
        tokens_per_s = TOKEN_MARGIN * slowest / sharing
        mean = sum(size.prompt + size.completion for size in sizes) / max(1, len(sizes))
        if mean:
            paces["tokens"] = mean / tokens_per_s
    bound_by = max(paces, key=lambda name: paces[name], default=None)
    spacing_s = None if bound_by is None else _rounded_up(paces[bound_by] / keys_per_client)
    slots = limits.concurrency
    return Prescription(
        clients=clients,
        keys=keys,
        sharing=sharing,
        keys_per_client=keys_per_client,
        spacing_s=spacing_s,
        requests_per_min=None if not spacing_s else floor(60 / spacing_s) or None,
        tokens_per_min=None if tokens_per_s is None else floor(60 * tokens_per_s * keys_per_client),
        in_flight=None if slots is None else max(1, slots // sharing) * keys_per_client,
        max_retries=0 if banned else _retries(limits),
        bound_by=bound_by,
    )


def safe_spacing_s(limit: RateLimit, sharing: int) -> float:
    """Return the shortest time between two requests of each client at which almost nothing is refused.

    The clients start at random times, and their requests arrive up to ``JITTER_S`` late.
    """
    exact_s = limit.period_s / limit.limit * sharing
    if limit.limit > MAX_TRIED:
        period_s = limit.period_s * MAX_TRIED / limit.limit
        limit = limit.model_copy(update={"limit": MAX_TRIED, "period_s": period_s})
    for slack in SLACK:
        spacing_s = exact_s * (1 + slack)
        if all(_refused(limit, sharing, spacing_s, trial) <= MAX_REFUSED for trial in range(TRIALS)):
            break
    return spacing_s


def _refused(limit: RateLimit, sharing: int, spacing_s: float, trial: int) -> float:
    """Return the fraction of requests that the limit refuses in one trial."""
    rng = Random(f"{trial}/pace")
    model = model_of(limit)
    start_s = rng.uniform(0, limit.period_s)
    per_client = max(MIN_TRIAL_PERIODS * limit.period_s / spacing_s, MIN_TRIAL_REQUESTS / sharing)
    count = ceil(per_client)

    def client() -> Iterable[float]:
        first_s = start_s + rng.uniform(0, spacing_s)
        return sorted(first_s + n * spacing_s + rng.uniform(0, JITTER_S) for n in range(count))

    times_s = merge(*(client() for _ in range(sharing)))
    return sum(not model.decide(at_s).accepted for at_s in times_s) / (sharing * count)


def _rounded_up(value: float) -> float:
    """Round up to four significant digits."""
    unit = 10.0 ** (floor(log10(value)) - 3)
    return float(f"{ceil(value / unit - 1e-6) * unit:.4g}")


def _retries(limits: SandboxLimits) -> int:
    """Return how many retries wait, together and at least, for the longest period."""
    known = (limits.requests, limits.tokens)
    longest_s = max((limit.period_s for top in known if top for limit in top.chain()), default=0.0)
    waited_s, retries = 0.0, 0
    while retries < MAX_RETRIES and (waited_s < longest_s or retries < MIN_RETRIES):
        waited_s += BACKOFF_JITTER * min(BACKOFF_S * 2**retries, BACKOFF_CAP_S)
        retries += 1
    return retries


def one_key(load: SimulatedLoad, prescription: Prescription) -> SimulatedLoad:
    """Return the part of a load that one limit gets."""
    parts = max(1, round(prescription.clients / prescription.sharing)) * prescription.keys_per_client
    return replace(
        load,
        clients=prescription.sharing,
        users=max(prescription.sharing, load.users // parts),
        due_s=None if load.due_s is None else load.due_s[::parts],
        sizes=load.sizes[::parts],
    )


def paced_limits(prescription: Prescription) -> SandboxLimits:
    """Return the limits by which each client that shares one limit paces itself."""
    keys, spacing_s, slots = prescription.keys_per_client, prescription.spacing_s, prescription.in_flight
    pace = None
    if spacing_s is not None:
        pace = RateLimit(limit=1, period_s=spacing_s * keys, algorithm="token_bucket")
    return SandboxLimits(requests=pace, tokens=None, concurrency=None if slots is None else slots // keys)
