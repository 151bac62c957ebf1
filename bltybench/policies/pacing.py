"""Pacing: when a client sends its next request, before it is refused."""

from collections import deque
from collections.abc import Callable
from math import inf
from random import Random
from typing import Literal, NamedTuple, get_args

from bltybench.limits.models import TokenBucket
from bltybench.limits.models.families import model_of
from bltybench.scenario.target import RateLimit, SandboxLimits

PacingName = Literal["none", "token_bucket", "even", "aimd", "adaptive", "limiter"]
"""Pacing policies: docs/retries.md describes each."""
PACINGS: tuple[PacingName, ...] = get_args(PacingName)

AIMD_START_PER_S, AIMD_INCREASE_PER_S2, AIMD_DECREASE = 1.0, 0.05, 0.5
"""First rate, its increase in each second without a refusal, and its factor after one."""
AIMD_MIN_PER_S = 0.01
"""Lowest rate of AIMD, in requests per second."""
AIMD_PAUSE_S = 1.0
"""Refusals within this time of a decrease, in seconds, are of the former rate and don't decrease it again."""
ADAPTIVE_K, ADAPTIVE_WINDOW_S = 2.0, 120.0
"""Google's multiplier of accepted requests, and the time over which requests are counted, in seconds."""
ADAPTIVE_HOLD_S = 1.0
"""Time for which a throttled request is held before it tries again, in seconds."""
REFUSED_HOLD_S, MAX_HOLD_S = 1.0, 60.0
"""Hold of ``limiter`` after a refusal without an announced wait, and the longest hold, in seconds."""
MARGIN_S = 1e-6
"""Time by which a held request is sent after its wait, in seconds, so that rounding can't make it early."""


class Share(NamedTuple):
    """A client's place among those that share the limits."""

    client: int
    clients: int

    def of(self, total: int) -> int:
        """Return the client's part of a total. The first clients take the remainder."""
        return total // self.clients + (self.client < total % self.clients)


class Pacer:
    """Base class. It sends every request immediately."""

    def wait_s(self, now_s: float, tokens: int, rng: Random) -> float:
        """Return how long to hold the next request; 0 to send it, infinity to wait for a response."""
        del now_s, tokens, rng
        return 0.0

    def send(self, now_s: float, tokens: int) -> None:
        """Count a request that is sent."""

    def answer(self, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Count the end of a response."""


class BucketPacer(Pacer):
    """Token buckets for requests and tokens, at the rates of the limits."""

    def __init__(self, limits: SandboxLimits, share: Share, *, burst: bool) -> None:
        def bucket(limit: RateLimit) -> TokenBucket:
            own = _own(limit, share)
            return TokenBucket(own.limit, own.period_s)

        self._requests = None if limits.requests is None else bucket(limits.requests)
        self._tokens = None if limits.tokens is None else bucket(limits.tokens)
        if self._requests is not None and not burst:
            self._requests = TokenBucket(self._requests.limit, self._requests.period_s, burst=1)

    def wait_s(self, now_s: float, tokens: int, rng: Random) -> float:
        """Return how long to hold the next request."""
        del rng
        waits_s = [bucket.peek(now_s, cost).retry_after_s for bucket, cost in self._costs(tokens)]
        return _longest(waits_s)

    def send(self, now_s: float, tokens: int) -> None:
        """Charge a request."""
        for bucket, cost in self._costs(tokens):
            bucket.charge(now_s, cost)

    def _costs(self, tokens: int) -> list[tuple[TokenBucket, float]]:
        pairs = ((self._requests, 1.0), (self._tokens, float(tokens)))
        return [(bucket, cost) for bucket, cost in pairs if bucket is not None]


class AimdPacer(Pacer):
    """Additive increase, multiplicative decrease of the rate."""

    def __init__(self) -> None:
        self._per_s = AIMD_START_PER_S
        self._since_s = 0.0
        """Time of the last change of the rate."""
        self._next_s = 0.0

    def wait_s(self, now_s: float, tokens: int, rng: Random) -> float:
        """Return how long to hold the next request."""
        del tokens, rng
        return max(0.0, self._next_s - now_s)

    def send(self, now_s: float, tokens: int) -> None:
        """Count a request that is sent."""
        del tokens
        self._next_s = now_s + 1 / self._rate(now_s)

    def answer(self, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Reduce the rate after a refusal."""
        del announced_s
        if refused and now_s - self._since_s >= AIMD_PAUSE_S:
            self._per_s = max(AIMD_MIN_PER_S, self._rate(now_s) * AIMD_DECREASE)
            self._since_s = now_s

    def _rate(self, now_s: float) -> float:
        return self._per_s + AIMD_INCREASE_PER_S2 * (now_s - self._since_s)


class AdaptivePacer(Pacer):
    """Google's adaptive throttling: requests are held with a probability that grows with the refusals."""

    def __init__(self) -> None:
        self._tries: deque[float] = deque()
        self._accepted: deque[float] = deque()

    def wait_s(self, now_s: float, tokens: int, rng: Random) -> float:
        """Return how long to hold the next request."""
        del tokens
        for times_s in (self._tries, self._accepted):
            while times_s and times_s[0] <= now_s - ADAPTIVE_WINDOW_S:
                times_s.popleft()
        tries, accepted = len(self._tries), len(self._accepted)
        self._tries.append(now_s)
        return ADAPTIVE_HOLD_S if rng.random() < (tries - ADAPTIVE_K * accepted) / (tries + 1) else 0.0

    def answer(self, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Count an accepted request."""
        del announced_s
        if not refused:
            self._accepted.append(now_s)


class LimiterPacer(Pacer):
    """Our own: a copy of the server's limiter, as limits.toml has it, decides before the server does."""

    def __init__(self, limits: SandboxLimits, share: Share, start_s: float) -> None:
        self._models = [
            (None if limit is None else model_of(_own(limit, share)))
            for limit in (limits.requests, limits.tokens)
        ]
        self._slots = inf if limits.concurrency is None else max(1, share.of(limits.concurrency))
        self._start_s = start_s
        self._in_flight = 0
        self._held_until_s = 0.0

    def wait_s(self, now_s: float, tokens: int, rng: Random) -> float:
        """Return how long to hold the next request."""
        del rng
        if self._in_flight >= self._slots:
            return inf
        server_s = self._start_s + now_s
        waits_s = [
            model.peek(server_s, cost).retry_after_s
            for model, cost in zip(self._models, (1.0, float(tokens)), strict=True)
            if model is not None
        ]
        return max(_longest(waits_s), self._held_until_s - now_s)

    def send(self, now_s: float, tokens: int) -> None:
        """Charge a request."""
        self._in_flight += 1
        for model, cost in zip(self._models, (1.0, float(tokens)), strict=True):
            if model is not None:
                model.charge(self._start_s + now_s, cost)

    def answer(self, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Release the slot. A refusal means that others use the limit too, so hold all requests."""
        self._in_flight -= 1
        if refused:
            hold_s = min(announced_s or REFUSED_HOLD_S, MAX_HOLD_S)
            self._held_until_s = max(self._held_until_s, now_s + hold_s)


def pacer_of(name: PacingName, limits: SandboxLimits, share: Share, start_s: float) -> Pacer:
    """Return a new pacer for a client's share of the limits. ``start_s`` is the server's time at 0."""
    makers: dict[PacingName, Callable[[], Pacer]] = {
        "none": Pacer,
        "token_bucket": lambda: BucketPacer(limits, share, burst=True),
        "even": lambda: BucketPacer(limits, share, burst=False),
        "aimd": AimdPacer,
        "adaptive": AdaptivePacer,
        "limiter": lambda: LimiterPacer(limits, share, start_s),
    }
    return makers[name]()


def _own(limit: RateLimit, share: Share) -> RateLimit:
    """Return a client's share of a limit. With more clients than requests, each has one per longer period."""
    if limit.limit >= share.clients:
        changes: dict[str, float] = {"limit": share.of(limit.limit)}
    else:
        changes = {"limit": 1, "period_s": limit.period_s * share.clients / limit.limit}
    if limit.burst is not None:
        changes["burst"] = max(1, share.of(limit.burst))
    if limit.queue is not None:
        changes["queue"] = share.of(limit.queue)
    return limit.model_copy(update=changes)


def _longest(waits_s: list[float | None]) -> float:
    """Return the longest wait. A request that never fits is sent, because waiting doesn't help."""
    return max((wait_s for wait_s in waits_s if wait_s is not None and wait_s != inf), default=0.0)
