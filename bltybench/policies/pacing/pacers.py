"""Pacing policies: when a client sends its next request, before it is refused."""

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from random import Random

from bltybench.limits.models import Model, TokenBucket
from bltybench.policies.pacing.header_pacer import HeaderPacer
from bltybench.policies.pacing.limiter_copy import SLOWDOWN, CopiedLimiter, LimiterCopy, own_limit
from bltybench.policies.pacing.limiter_pacer import LimiterPacer
from bltybench.policies.pacing.pacer import Pacer, SentRequest, Share
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import What
from bltybench.scenario.pacing import PacingName
from bltybench.scenario.target import SandboxLimits

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


class CopyPacer(Pacer):
    """Limiters of the client's own, and a number of requests in flight."""

    def __init__(self, copied: Iterable[CopiedLimiter], slots: int | None = None) -> None:
        self._copy = LimiterCopy(copied)
        self._slots = inf if slots is None else slots
        self._in_flight = 0

    def wait_s(self, now_s: float, size: CallSize, rng: Random) -> float:
        """Return how long to hold the next request. One that never fits is sent: waiting doesn't help."""
        del rng
        if self._in_flight >= self._slots:
            return inf
        return 0.0 if (wait_s := self._copy.wait_s(now_s, size)) == inf else wait_s

    def send(self, now_s: float, size: CallSize) -> None:
        """Charge a request."""
        self._in_flight += 1
        self._copy.charge(now_s, size)

    def answer(self, *_: object, **__: object) -> None:
        """Release the slot."""
        self._in_flight -= 1


def own_pacer(models: Iterable[tuple[Model, What]], slots: int | None) -> CopyPacer:
    """Return a pacer that keeps limiters of its own. Each is with what it counts."""
    return CopyPacer((CopiedLimiter(*known) for known in models), slots)


def bucket_pacer(limits: SandboxLimits, share: Share, *, burst: bool) -> CopyPacer:
    """Return token buckets for requests and tokens, at the rates of the client's share of the limits."""
    slowdown = SLOWDOWN if burst else 1.0
    return CopyPacer(
        CopiedLimiter(
            TokenBucket(own.limit, own.period_s * slowdown, 1 if what == "requests" and not burst else None),
            what,
        )
        for what, limit in limits.per_period.items()
        for own in own_limit(limit, share).chain()
    )


class AimdPacer(Pacer):
    """Additive increase, multiplicative decrease of the rate."""

    def __init__(self) -> None:
        self._per_s = AIMD_START_PER_S
        self._since_s = 0.0
        """Time of the last change of the rate."""
        self._next_s = 0.0

    def wait_s(self, now_s: float, size: CallSize, rng: Random) -> float:
        """Return how long to hold the next request."""
        del size, rng
        return max(0.0, self._next_s - now_s)

    def send(self, now_s: float, size: CallSize) -> None:
        """Count a request that is sent."""
        del size
        self._next_s = now_s + 1 / self._rate(now_s)

    def answer(self, sent: SentRequest, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Reduce the rate after a refusal."""
        del sent, announced_s
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

    def wait_s(self, now_s: float, size: CallSize, rng: Random) -> float:
        """Return how long to hold the next request."""
        del size
        for times_s in (self._tries, self._accepted):
            while times_s and times_s[0] <= now_s - ADAPTIVE_WINDOW_S:
                times_s.popleft()
        tries, accepted = len(self._tries), len(self._accepted)
        self._tries.append(now_s)
        return ADAPTIVE_HOLD_S if rng.random() < (tries - ADAPTIVE_K * accepted) / (tries + 1) else 0.0

    def answer(self, sent: SentRequest, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Count an accepted request."""
        del sent, announced_s
        if not refused:
            self._accepted.append(now_s)


def pacer_of(name: PacingName, limits: SandboxLimits, share: Share, start_s: float) -> Pacer:
    """Return a new pacer for a client's share of the limits. ``start_s`` is the server's time at 0."""
    makers: dict[PacingName, Callable[[], Pacer]] = {
        "none": Pacer,
        "token_bucket": lambda: bucket_pacer(limits, share, burst=True),
        "even": lambda: bucket_pacer(limits, share, burst=False),
        "headers": HeaderPacer,
        "aimd": AimdPacer,
        "adaptive": AdaptivePacer,
        "limiter": lambda: LimiterPacer(limits, share, start_s),
    }
    return makers[name]()
