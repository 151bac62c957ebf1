"""Pacing policies: when a client sends its next request, before it is refused."""

from collections import deque
from collections.abc import Callable, Iterable
from math import floor, inf
from random import Random
from typing import NamedTuple

from bltybench.limits.models import Model, TokenBucket
from bltybench.limits.models.families import FAMILIES, model_of
from bltybench.policies.header_pacing import HeaderPacer
from bltybench.policies.pacer import MAX_HOLD_S, Pacer, SentRequest
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import What
from bltybench.scenario.pacing import PacingName
from bltybench.scenario.target import RateLimit, SandboxLimits

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
REFUSED_HOLD_S = 1.0
"""Hold of ``limiter`` after a refusal without an announced wait, in seconds."""
BORROW_GAP = 2.0
"""Time between requests beyond the client's share, in multiples of the limit's time per request."""
MAX_BACKOFF_PERIODS = 0.5
"""Longest wait before the next request beyond the client's share, in periods."""
NETWORK_MARGIN_S = 0.01
"""Time by which ``limiter`` sends a request after its wait in a run, in seconds: the network delays some
requests less than those before them, which would put them before the end of a period."""
BUCKET_SLOWDOWN = 1.01
"""Factor of the period of ``token_bucket``. At exactly the rate of a window, each request would come just
when one leaves the window, and the network would decide whether it is refused."""


class Share(NamedTuple):
    """A client's place among those that share the limits."""

    client: int
    clients: int

    def of(self, total: int) -> int:
        """Return the client's part of a total. The first clients take the remainder."""
        return total // self.clients + (self.client < total % self.clients)


class _Copied(NamedTuple):
    """A copy of one of the server's limiters."""

    model: Model
    counts: What
    scale: int = 1
    """Units of the model per request or token."""

    def cost(self, size: CallSize) -> float:
        """Return what a request costs."""
        return self.scale * size.cost(self.counts)


class _Copy:
    """Copies of the server's limiters."""

    def __init__(self, copied: Iterable[_Copied]) -> None:
        self._copied = tuple(copied)

    def wait_s(self, now_s: float, size: CallSize) -> float:
        """Return how long until a request fits; infinity if it never does."""
        waits_s = [one.model.peek(now_s, one.cost(size)).retry_after_s or 0.0 for one in self._copied]
        return max(waits_s, default=0.0)

    def charge(self, now_s: float, size: CallSize) -> None:
        """Count a request, even if it does not fit."""
        for one in self._copied:
            one.model.charge(now_s, one.cost(size))

    def refund(self, now_s: float, charged_s: float, size: CallSize) -> None:
        """Refund a request, except to limiters that count refused ones."""
        for one in self._copied:
            if not one.model.count_refused:
                one.model.refund(now_s, charged_s, one.cost(size))

    def exhaust(self, now_s: float) -> None:
        """Count what others must have used: no request fits now."""
        for one in self._copied:
            one.model.charge(now_s, float(floor(one.model.peek(now_s).remaining)))


class CopyPacer(Pacer):
    """Limiters of the client's own, and a number of requests in flight."""

    def __init__(self, copied: Iterable[_Copied], slots: int | None = None) -> None:
        self._copy = _Copy(copied)
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
    return CopyPacer((_Copied(*known) for known in models), slots)


def bucket_pacer(limits: SandboxLimits, share: Share, *, burst: bool) -> CopyPacer:
    """Return token buckets for requests and tokens, at the rates of the client's share of the limits."""
    slowdown = BUCKET_SLOWDOWN if burst else 1.0
    return CopyPacer(
        _Copied(
            TokenBucket(own.limit, own.period_s * slowdown, 1 if what == "requests" and not burst else None),
            what,
        )
        for what, limit in limits.per_period.items()
        for own in _own(limit, share).chain()
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


class LimiterPacer(Pacer):
    """Our own: copies of the server's limiter, as limits.toml has it, decide before the server does.

    One copy has the client's share of each limit. A request that doesn't fit it is borrowed from what others
    leave: it is sent if the other copy, of the whole limit, accepts it. A refusal shows that the whole limit
    is exhausted. The time between borrowed requests doubles with each refused one and halves with each
    accepted one.
    """

    margin_s = NETWORK_MARGIN_S

    def __init__(self, limits: SandboxLimits, share: Share, start_s: float) -> None:
        self._limits, self._share = limits.per_period, share
        self._own, self._whole = (
            _Copy(_copied(limit, what, part) for what, limit in self._limits.items())
            for part in (share, Share(0, 1))
        )
        self._slots = inf if limits.concurrency is None else max(1, share.of(limits.concurrency))
        self._start_s = start_s
        self._in_flight = 0
        self._held_until_s = 0.0
        self._borrowed_s: set[float] = set()
        """Send times of borrowed requests without an answer."""
        self._borrow_at_s = self._backoff_s = 0.0

    def wait_s(self, now_s: float, size: CallSize, rng: Random) -> float:
        """Return how long to hold the next request. One that never fits is sent: waiting doesn't help."""
        del rng
        if self._in_flight >= self._slots:
            return inf
        wait_s = self._own.wait_s(self._start_s + now_s, size)
        if wait_s:
            whole_s = self._whole.wait_s(self._start_s + now_s, size)
            wait_s = 0.0 if whole_s == inf else min(wait_s, max(whole_s, self._borrow_at_s - now_s))
        return max(wait_s, self._held_until_s - now_s)

    def send(self, now_s: float, size: CallSize) -> None:
        """Charge a request."""
        server_s = self._start_s + now_s
        if self._own.wait_s(server_s, size):
            self._borrowed_s.add(now_s)
        self._in_flight += 1
        self._own.charge(server_s, size)
        self._whole.charge(server_s, size)
        self._borrow_at_s = max(self._borrow_at_s, now_s + self._gap_s(size))

    def answer(self, sent: SentRequest, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Release the slot. After a refusal, hold all requests, and borrow later."""
        self._in_flight -= 1
        borrowed = sent.at_s in self._borrowed_s
        self._borrowed_s.discard(sent.at_s)
        if not refused:
            self._backoff_s /= 2 if borrowed else 1
            return
        server_s = self._start_s + now_s
        if borrowed:
            self._own.refund(server_s, self._start_s + sent.at_s, sent.size)
        self._whole.exhaust(server_s)
        hold_s = announced_s or REFUSED_HOLD_S
        if self._slots == inf:
            # Retry-After is rounded up to whole seconds, and the copy can know it better.
            hold_s = max(hold_s - 1, min(hold_s, self._whole.wait_s(server_s, sent.size)))
        self._held_until_s = max(self._held_until_s, now_s + min(hold_s, MAX_HOLD_S))
        longest_s = MAX_BACKOFF_PERIODS * max(
            (limit.period_s for limit in self._limits.values()), default=0.0
        )
        self._backoff_s = min(max(2 * self._backoff_s, self._gap_s(sent.size)), longest_s)
        # From half to one and a half of it, so that the clients don't borrow at the same time.
        spread = 0.5 + (self._share.client + 0.5) / self._share.clients
        self._borrow_at_s = now_s + self._backoff_s * spread

    def _gap_s(self, size: CallSize) -> float:
        """Return the least time between borrowed requests; short if a share is only a few requests."""
        gaps_s = (
            limit.period_s * min(BORROW_GAP * size.cost(what) / limit.limit, 1 / self._share.clients)
            for what, limit in self._limits.items()
        )
        return max(gaps_s, default=0.0)


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


def _copied(limit: RateLimit, counts: What, share: Share) -> _Copied:
    """Return a copy of a client's share of a limiter.

    A counter rounds down what is used, which would add up to a request per client. So it counts fractions.
    """
    own = _own(limit, share)
    is_counter = FAMILIES[limit.algorithm].kind == "counter" and limit.also is None
    scale = share.clients if is_counter else 1
    return _Copied(model_of(own.model_copy(update={"limit": own.limit * scale})), counts, scale)


def _own(limit: RateLimit, share: Share) -> RateLimit:
    """Return a client's share of a limit. With more clients than requests, each has one per longer period."""
    if limit.limit >= share.clients:
        changes: dict[str, object] = {"limit": share.of(limit.limit)}
    else:
        changes = {"limit": 1, "period_s": limit.period_s * share.clients / limit.limit}
    if limit.burst is not None:
        changes["burst"] = max(1, share.of(limit.burst))
    if limit.queue is not None:
        changes["queue"] = share.of(limit.queue)
    if limit.also is not None:
        changes["also"] = _own(limit.also, share)
    return limit.model_copy(update=changes)
