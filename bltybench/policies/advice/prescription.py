"""How fast each of several clients may send, so that the limits refuse almost none of its requests."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import merge
from math import ceil, floor, log10
from random import Random
from typing import Literal

import msgspec

from bltybench.limits.models.families import FAMILIES, WHOLE_TOKEN_BUCKET, model_of
from bltybench.policies.advice.known_limits import by_total_tokens
from bltybench.policies.advice.window import Window
from bltybench.policies.pacing.pacer import Pacer
from bltybench.policies.pacing.pacers import own_pacer
from bltybench.policies.simulated_load import SimulatedLoad
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import RateLimit, SandboxLimits, alone

SLACK_PERCENT = (0.0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6.5, 8, 10, 12, 15, 20, 25, 30, 40, 50)
"""Percentages by which a pace is slower than the limit. The first one that is safe is chosen."""
MAX_REFUSED = 0.005
"""Maximum fraction of refusals at a safe pace."""
MAX_BURST_LOSS, MAX_UNEQUAL = 0.01, 0.03
"""Fractions of the rate that bursts may cost: by their slack, and by unequal shares of the clients."""
JITTER_S = 0.05
"""Maximum random delay between a client and the server, in seconds."""
MIN_TURN_S = 2.0
"""Minimum time between turns at a bucket of whole tokens, in seconds: each turn loses up to a token."""
TRIALS = 5
"""Trials of a pace, each with another start of the server's windows and of the clients."""
MIN_TRIAL_PERIODS, MIN_TRIAL_REQUESTS = 5, 300
"""Minimum length of a trial."""
MAX_TRIED = 300
"""Largest limit to try, in calls. A larger one is tried as this, because it takes as long as it is large."""
USUAL_FRACTION = 0.01
"""Tokens of a call, as a fraction of the limit, if no call is known that fits it."""
SMOOTH = frozenset({"bucket", "queue"})
"""Kinds of limiters that refill while they are used."""
TOKEN_MARGIN = 0.95
"""Fraction of a token limit that evenly spaced calls use, because they differ in size."""
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
    windows: tuple[Window, ...]
    """What a client keeps all at once, by one of its keys: a window for each limit."""
    spacing_s: float | None
    """Time between the starts of two requests of a client that sends evenly, in seconds."""
    requests_per_min: int | None
    """Requests of a client per minute at that pace, rounded down; also null if it is less than one."""
    tokens_per_min: int | None
    """Tokens that a client may use per minute."""
    in_flight: int | None
    """Requests that a client may have in flight."""
    in_flight_more: int
    """Clients, the first ones that share the limit, that may have one more."""
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
    slots = limits.concurrency
    paces: dict[str, float] = {}
    requests, windows = alone(limits.requests), list[Window]()
    for limit in requests:
        paces["requests"] = max(paces.get("requests", 0.0), safe_spacing_s(limit, sharing))
        windows.append(safe_window(limit, "requests", sharing, 1.0, 1))
    tokens_per_s = None
    usual = 1.0
    tokens = [size.tokens for size in sizes]
    mean = sum(tokens) / max(1, len(tokens))
    for limit in alone(by_total_tokens(limits, sizes).tokens):
        fitting = [size for size in tokens if size <= limit.limit] or [ceil(USUAL_FRACTION * limit.limit)]
        usual = sum(fitting) / len(fitting)
        windows.append(safe_window(limit, "tokens", sharing, usual, max(fitting)))
        per_s = TOKEN_MARGIN * limit.limit / limit.period_s / sharing
        tokens_per_s = min(per_s, tokens_per_s or per_s)
    for number, limit in enumerate(requests):
        if limit.algorithm == WHOLE_TOKEN_BUCKET:
            turns, others = windows[number], windows[:number] + windows[number + 1 :]
            windows[number] = _undisturbed(turns, limit, sharing, others=others, tokens=usual, slots=slots)
    if mean and tokens_per_s is not None:
        paces["tokens"] = mean / tokens_per_s
    bound_by = max(paces, key=lambda name: paces[name], default=None)
    spacing_s = None if bound_by is None else _rounded_up(paces[bound_by] / keys_per_client)
    return Prescription(
        clients=clients,
        keys=keys,
        sharing=sharing,
        keys_per_client=keys_per_client,
        windows=tuple(windows),
        spacing_s=spacing_s,
        requests_per_min=None if not spacing_s else floor(60 / spacing_s) or None,
        tokens_per_min=None if tokens_per_s is None else floor(60 * tokens_per_s * keys_per_client),
        in_flight=None if slots is None else max(1, slots // sharing) * keys_per_client,
        in_flight_more=0 if slots is None or slots < sharing else slots % sharing,
        max_retries=0 if banned else _retries(limits),
        bound_by=bound_by,
    )


def safe_spacing_s(limit: RateLimit, sharing: int) -> float:
    """Return the shortest time between two requests of each client at which almost nothing is refused."""
    return limit.period_s / limit.limit * sharing * (1 + _slack(limit, sharing, 1.0, burst=False))


def safe_window(
    limit: RateLimit, counts: Literal["requests", "tokens"], sharing: int, cost: float, largest: int
) -> Window:
    """Return what each client can send so that almost nothing is refused: a burst of its share, if possible.

    Otherwise calls are spaced evenly, and several clients take turns. ``cost`` is that of a usual call, and
    ``largest`` the highest one.
    """
    exact_s = limit.period_s / limit.limit * sharing
    if limit.algorithm == WHOLE_TOKEN_BUCKET and largest == 1:
        return _turns(limit, sharing, min(_capacity(limit), ceil(MIN_TURN_S / exact_s * sharing)))
    turns = sharing if largest == 1 else 1
    spaced_s = exact_s * (1 + _slack(limit, sharing, cost, burst=False, staggered=turns > 1))
    total = min(limit.limit, _capacity(limit))
    amount, more = divmod(total, sharing)
    unequal = (sharing - more) * (total / sharing - amount) / total
    if amount >= largest and amount * sharing > cost and unequal <= MAX_UNEQUAL:
        burst_s = total / sharing * exact_s
        burst_s *= 1 + _slack(limit, sharing, cost, burst=True)
        # Few calls do not use a share completely, but neither do they use a window or log of one client.
        is_used = counts == "requests" or (sharing == 1 and FAMILIES[limit.algorithm].kind not in SMOOTH)
        packed = 1.0 if is_used else 1 - cost / amount / 2
        if packed * total / sharing / burst_s >= (1 - MAX_BURST_LOSS) / spaced_s:
            return Window(counts=counts, amount=amount, more=more, period_s=_rounded_up(burst_s))
    period_s = _rounded_up(spaced_s * largest)
    return Window(
        counts=counts,
        amount=largest,
        period_s=period_s,
        spaced=largest > 1,
        turns=turns,
        by_clock=turns > 1,
    )


def _turns(limit: RateLimit, sharing: int, calls: int) -> Window:
    """Return turns of several requests by the clock: at random times, each would lose a part of a token."""
    slack = _slack(limit, sharing, 1.0, burst=False, staggered=True, calls=calls)
    period_s = _rounded_up(limit.period_s / limit.limit * sharing * calls * (1 + slack))
    return Window(counts="requests", amount=calls, period_s=period_s, turns=sharing, by_clock=True)


def _undisturbed(
    turns: Window,
    limit: RateLimit,
    sharing: int,
    *,
    others: Sequence[Window],
    tokens: float,
    slots: int | None,
) -> Window:
    """Return turns in which no request waits for another limit: those behind it would miss the turn.

    ``tokens`` are those of a usual call.
    """
    at_once = [other.calls_at_once(tokens) for other in others]
    at_once += [] if slots is None else [slots // sharing]
    # The next calls can have fewer tokens than these, but not fewer requests.
    fixed = [other for other in others if other.counts == "requests"]

    def period_s(calls: int) -> float:
        """Return the period in which no turn waits for another limit on requests."""
        own_s = turns.period_s * calls / turns.amount
        return max([own_s, *(other.period_s / (other.amount // calls) for other in fixed)])

    max_calls = max(1, min([turns.amount, *at_once]))
    # Of equal rates, up to rounding, the one with the longest turns: each turn loses a part of a token.
    calls = max(range(max_calls, 0, -1), key=lambda calls: round(calls / period_s(calls), 6))
    if calls < turns.amount:
        turns = _turns(limit, sharing, calls)
    return msgspec.structs.replace(turns, period_s=_rounded_up(max(turns.period_s, period_s(calls))))


def _capacity(limit: RateLimit) -> int:
    """Return what a limiter accepts at most in one instant."""
    if limit.queue is not None:
        return limit.queue + 1
    return limit.limit if limit.burst is None else limit.burst


def _slack(
    limit: RateLimit, sharing: int, cost: float, *, burst: bool, staggered: bool = False, calls: int = 1
) -> float:
    """Return the slack with which clients that send evenly, or in bursts, are safe; the last one if none is.

    Without ``burst``, each client sends ``calls`` at a time. Clients start at random times unless they are
    ``staggered``. Requests arrive up to ``JITTER_S`` late.
    """
    scale = max(1.0, limit.limit / cost / max(MAX_TRIED, sharing))
    whole = {name: value for name in ("limit", "burst", "queue") if (value := getattr(limit, name))}
    tried = limit.model_copy(update={name: max(1, round(value / scale)) for name, value in whole.items()})
    calls = max(1, round(calls / scale))
    exact_s = limit.period_s / tried.limit * sharing * cost * calls
    total = int(min(tried.limit, _capacity(tried)) / cost)
    period_s = limit.period_s * min(1.0, _capacity(tried) / tried.limit) if burst else exact_s
    sent = [
        max(1, total // sharing + (client < total % sharing)) if burst else calls for client in range(sharing)
    ]
    for percent in SLACK_PERCENT:
        slack = percent / 100
        if all(
            _refused(tried, cost, sent, period_s * (1 + slack), trial, staggered=staggered) <= MAX_REFUSED
            for trial in range(TRIALS)
        ):
            break
    return slack


def _refused(
    limit: RateLimit, cost: float, calls: Sequence[int], period_s: float, trial: int, *, staggered: bool
) -> float:
    """Return the fraction of requests that the limit refuses if each client sends its calls each period."""
    rng = Random(f"{trial}/pace")
    model = model_of(limit)
    start_s = rng.uniform(0, limit.period_s)
    periods = max(MIN_TRIAL_PERIODS * limit.period_s / period_s, MIN_TRIAL_REQUESTS / sum(calls))

    def client(number: int) -> Iterable[float]:
        phase_s = number / len(calls) * period_s if staggered else rng.uniform(0, period_s)
        ordered = (n // calls[number] for n in range(ceil(periods * calls[number])))
        return sorted(start_s + phase_s + n * period_s + rng.uniform(0, JITTER_S) for n in ordered)

    times_s = list(merge(*map(client, range(len(calls)))))
    return sum(not model.decide(at_s, cost).accepted for at_s in times_s) / len(times_s)


def _rounded_up(value: float) -> float:
    """Round up to four significant digits."""
    unit = 10.0 ** (floor(log10(value)) - 3)
    return float(f"{ceil(value / unit - 1e-6) * unit:.4g}")


def _retries(limits: SandboxLimits) -> int:
    """Return how many retries wait, together and at least, for the longest period."""
    known = limits.per_period.values()
    longest_s = max((limit.period_s for top in known for limit in top.chain()), default=0.0)
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


def pacers_of(prescription: Prescription) -> list[Pacer]:
    """Return the pacer of each client that shares one limit."""
    slots, keys = prescription.in_flight, prescription.keys_per_client
    return [
        own_pacer(
            [(window.model(client), window.counts) for window in prescription.windows],
            None if slots is None else slots // keys + (client < prescription.in_flight_more),
        )
        for client in range(prescription.sharing)
    ]
