"""Pacing by copies of the server's limiter, which decide before the server does."""

from math import ceil, floor, inf
from random import Random

from bltybench.limits.models.families import WHOLE_TOKEN_BUCKET
from bltybench.policies.pacing.limiter_copy import SLOWDOWN, copy_of
from bltybench.policies.pacing.pacer import MAX_HOLD_S, Pacer, SentRequest, Share
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import RateLimit, SandboxLimits, alone

REFUSED_HOLD_S = 1.0
"""Hold after a refusal without an announced wait, in seconds."""
BORROW_GAP = 2.0
"""Time between requests beyond the client's share, in multiples of the limit's time per request."""
MAX_BACKOFF_PERIODS = 0.5
"""Longest wait before the next request beyond the client's share, in periods."""
NETWORK_MARGIN_S = 0.01
"""Time by which a request is sent after its wait in a run, in seconds: the network delays some requests less
than those before them, which would put them before the end of a period."""
ROUNDING = 1e-4
"""Tolerance of times, in ticks."""


class _Ticks:
    """Times at which requests lose no part of a token of a bucket of whole tokens.

    They are a little more than the time per token apart. Clients that share the limit use the same ticks of
    the server's clock, because each acceptance of any of them loses what has been refilled of the next token.
    A client does not wait for a tick if it has not sent since an empty bucket would have become full.
    """

    def __init__(self, limit: RateLimit) -> None:
        tick_s = limit.period_s / limit.limit
        self._step_s, self._slack_s = tick_s * SLOWDOWN, tick_s * (SLOWDOWN - 1)
        self._full_s = (limit.burst or limit.limit) * self._step_s
        """Time after which an unused bucket is full, in seconds."""
        self._next_s: float | None = None
        """Tick for which the next request waits."""
        self._charged_s = -inf
        """Tick at which the last request counts: between ticks, the next one."""
        self._sent_s = self._open_until_s = -inf

    def last_s(self, at_s: float) -> float:
        """Return the last tick, or the one at which the last request counts."""
        return max(self._charged_s, floor(at_s / self._step_s + ROUNDING) * self._step_s)

    def wait_s(self, now_s: float, wait_s: float) -> float:
        """Return how long to hold a request that fits after ``wait_s``."""
        at_s = now_s + wait_s
        if at_s <= self._open_until_s or at_s - self._sent_s > self._full_s:
            return wait_s
        if self._next_s is None or at_s > max(now_s, self._next_s):
            self._next_s = self._next_tick_s(at_s)
        return max(0.0, self._next_s - now_s)

    def send(self, now_s: float) -> None:
        """Count a request that is sent. Others can follow immediately."""
        if now_s > self._open_until_s:
            is_at_tick = self._next_s is not None and now_s >= self._next_s
            self._charged_s = self.last_s(now_s) if is_at_tick else self._next_tick_s(now_s)
            self._open_until_s = now_s + self._slack_s
        self._sent_s, self._next_s = now_s, None

    def _next_tick_s(self, at_s: float) -> float:
        return ceil(at_s / self._step_s - ROUNDING) * self._step_s


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
        self._own, self._whole = (copy_of(limits, part) for part in (share, Share(0, 1)))
        self._slots = inf if limits.concurrency is None else max(1, share.of(limits.concurrency))
        self._start_s = start_s
        self._in_flight = 0
        self._held_until_s = 0.0
        self._borrowed_s: set[float] = set()
        """Send times of borrowed requests without an answer."""
        self._borrow_at_s = self._backoff_s = 0.0
        whole_tokens = [one for one in alone(limits.requests) if one.algorithm == WHOLE_TOKEN_BUCKET]
        slowest = max(whole_tokens, key=lambda one: one.period_s / one.limit, default=None)
        self._ticks = None if slowest is None else _Ticks(slowest)

    def wait_s(self, now_s: float, size: CallSize, rng: Random) -> float:
        """Return how long to hold the next request. One that never fits is sent: waiting doesn't help."""
        del rng
        if self._in_flight >= self._slots:
            return inf
        copied_s = self._copied_s(now_s)
        late_s = self._start_s + now_s - copied_s
        wait_s = self._own.wait_s(copied_s, size)
        if wait_s:
            whole_s = self._whole.wait_s(copied_s, size)
            wait_s = min(wait_s, max(whole_s, self._borrow_at_s - now_s + late_s))
            wait_s = 0.0 if whole_s == inf else wait_s - late_s
        wait_s = max(0.0, wait_s, self._held_until_s - now_s)
        return wait_s if self._ticks is None else self._ticks.wait_s(self._start_s + now_s, wait_s)

    def send(self, now_s: float, size: CallSize) -> None:
        """Charge a request."""
        if self._ticks is not None:
            self._ticks.send(self._start_s + now_s)
        copied_s = self._copied_s(now_s)
        if self._own.wait_s(copied_s, size):
            self._borrowed_s.add(now_s)
        self._in_flight += 1
        self._own.charge(copied_s, size)
        self._whole.charge(copied_s, size)
        self._borrow_at_s = max(self._borrow_at_s, now_s + self._gap_s(size))

    def answer(self, sent: SentRequest, now_s: float, announced_s: float | None, *, refused: bool) -> None:
        """Release the slot. After a refusal, hold all requests, and borrow later."""
        self._in_flight -= 1
        borrowed = sent.at_s in self._borrowed_s
        self._borrowed_s.discard(sent.at_s)
        if not refused:
            self._backoff_s /= 2 if borrowed else 1
            return
        copied_s = self._copied_s(now_s)
        if borrowed:
            self._own.refund(copied_s, self._copied_s(sent.at_s), sent.size)
        self._whole.exhaust(copied_s)
        hold_s = announced_s or REFUSED_HOLD_S
        if self._slots == inf:
            # Retry-After is rounded up to whole seconds, and the copy can know it better.
            hold_s = max(hold_s - 1, min(hold_s, self._whole.wait_s(copied_s, sent.size)))
        self._held_until_s = max(self._held_until_s, now_s + min(hold_s, MAX_HOLD_S))
        longest_s = MAX_BACKOFF_PERIODS * max(
            (limit.period_s for limit in self._limits.values()), default=0.0
        )
        self._backoff_s = min(max(2 * self._backoff_s, self._gap_s(sent.size)), longest_s)
        # From half to one and a half of it, so that the clients don't borrow at the same time.
        spread = 0.5 + (self._share.client + 0.5) / self._share.clients
        self._borrow_at_s = now_s + self._backoff_s * spread

    def _copied_s(self, now_s: float) -> float:
        """Return the time of the copies, which is that of the server, or the last tick."""
        server_s = self._start_s + now_s
        return server_s if self._ticks is None else self._ticks.last_s(server_s)

    def _gap_s(self, size: CallSize) -> float:
        """Return the least time between borrowed requests; short if a share is only a few requests."""
        gaps_s = (
            limit.period_s * min(BORROW_GAP * size.cost(what) / limit.limit, 1 / self._share.clients)
            for what, limit in self._limits.items()
        )
        return max(gaps_s, default=0.0)
