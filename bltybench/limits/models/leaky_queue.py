"""Limits that delay requests before they refuse any: a leaky queue, and any limit with a waiting room."""

import math
from collections import deque

from bltybench.limits.models.base import Model


class LeakyQueue(Model):
    """Serves r = limit/W requests per second and queues up to ``queue`` above that.

    At a request: x = max(0, excess − r·(t − t₀) + cost), where t₀ is the last accepted request; x = 0 at the
    first. Refuse iff x > queue, and then store nothing. Otherwise excess ← x, and the request is queued for
    max(0, x − free)/r. Without ``delaying``, the decisions are the same but nothing is queued.
    Source: nginx, ngx_http_limit_req_module: ``burst`` is the queue, ``delay`` is the number served
    immediately (``free``), and ``nodelay`` turns queueing off.
    """

    counts_refused = False

    def __init__(
        self,
        limit: int,
        period_s: float,
        queue: int | None = None,
        *,
        free: int = 0,
        delaying: bool = True,
    ) -> None:
        super().__init__(limit, period_s)
        self.queue = limit - 1 if queue is None else queue
        if self.queue < 0:
            raise ValueError(f"queue must be 0 or more: {queue}")
        if free < 0:
            raise ValueError(f"free must be 0 or more: {free}")
        self.free = free
        self.delaying = delaying
        self._rate = limit / period_s
        # One below empty, so that the first request is free.
        self._excess = -1.0
        self._charged_s: float | None = None

    def take(self, t_s: float, cost: float = 1.0) -> bool:
        """Accept and charge, or refuse. Simulations need this to be fast."""
        if not (self._last_s <= t_s < math.inf and 0 <= cost < math.inf):
            return super().take(t_s, cost)
        self._last_s = t_s
        excess = self._excess_at(t_s) + cost
        if excess > self.queue:
            return False
        self._excess, self._charged_s = excess, t_s
        return True

    def _excess_at(self, t_s: float) -> float:
        if self._charged_s is None:
            return self._excess
        excess = self._excess - (t_s - self._charged_s) * self._rate
        return excess if excess > -1 else -1.0

    def _fits(self, t_s: float, cost: float) -> bool:
        return self._excess_at(t_s) + cost <= self.queue

    def _free_at(self, t_s: float, cost: float) -> float:
        if cost > self.queue + 1:
            return math.inf
        return t_s + (self._excess_at(t_s) + cost - self.queue) / self._rate

    def _charge(self, t_s: float, cost: float) -> None:
        self._excess = self._excess_at(t_s) + cost
        self._charged_s = t_s

    def _refund(self, charged_s: float, cost: float) -> None:
        self._excess = max(-1.0, self._excess - cost)

    def delay_s(self, t_s: float) -> float:
        """Return the seconds for which the last request of the queue is queued."""
        return max(0.0, self._excess_at(t_s) - self.free) / self._rate if self.delaying else 0.0

    def remaining(self, t_s: float) -> float:
        """Return the requests that the queue still accepts."""
        return max(0.0, self.queue - self._excess_at(t_s))

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the queue is empty and the next request is free."""
        return (self._excess_at(t_s) + 1) / self._rate


class Waiting(Model):
    """Delays up to ``seats`` requests until ``inner`` accepts them, in the order of their arrival.

    Let s be the turn of the last accepted request. A request at t gets the turn
    s' = min {u ≥ max(s, t): inner accepts at u}, and is charged to ``inner`` at s'. Let w be the number of
    accepted requests whose turn is after t. Accept iff s' = t or w < seats, then delay by s' − t.
    ``limit`` and ``period_s`` are those of ``inner``.
    Sources: .NET System.Threading.RateLimiting, ``QueueLimit`` of FixedWindowRateLimiterOptions;
    resilience4j AtomicRateLimiter, which reserves permits of later cycles.
    """

    counts_refused = False

    def __init__(self, inner: Model, seats: int) -> None:
        if inner.count_refused:
            raise ValueError("a limit with a waiting room can't count refused requests")
        if seats < 1:
            raise ValueError(f"seats must be 1 or more: {seats}")
        super().__init__(inner.limit, inner.period_s)
        self.inner, self.seats = inner, seats
        self._turns: deque[float] = deque()

    def _advance(self, t_s: float) -> None:
        while self._turns and self._turns[0] <= t_s:
            self._turns.popleft()

    def _turn_s(self, t_s: float, cost: float) -> float:
        """Return when ``inner`` accepts a request that arrives at ``t_s``; infinite if it never does."""
        at_s = max(t_s, self.inner._last_s)
        return at_s + (self.inner.peek(at_s, cost).retry_after_s or 0.0)

    def _waiting(self, t_s: float) -> int:
        return sum(turn_s > t_s for turn_s in self._turns)

    def _fits(self, t_s: float, cost: float) -> bool:
        turn_s = self._turn_s(t_s, cost)
        return turn_s <= t_s or (math.isfinite(turn_s) and self._waiting(t_s) < self.seats)

    def _free_at(self, t_s: float, cost: float) -> float:
        # A seat is free when all but ``seats`` - 1 of those who wait have had their turns.
        return math.inf if math.isinf(self._turn_s(t_s, cost)) else self._turns[-self.seats]

    def _charge(self, t_s: float, cost: float) -> None:
        turn_s = self._turn_s(t_s, cost)
        turn_s = turn_s if math.isfinite(turn_s) else t_s
        self.inner.charge(max(turn_s, self.inner._last_s), cost)
        if turn_s > t_s:
            self._turns.append(turn_s)

    def _refund(self, charged_s: float, cost: float) -> None:
        self.inner.refund(max(self._last_s, self.inner._last_s), charged_s, cost)

    def remaining(self, t_s: float) -> float:
        """Return the cost that fits without waiting."""
        at_s = max(t_s, self.inner._last_s)
        self.inner.peek(at_s)
        return 0.0 if self._waiting(t_s) else self.inner.remaining(at_s)

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the window of the last turn ends, or the full limit is available."""
        at_s = max(t_s, self.inner._last_s)
        self.inner.peek(at_s)
        return at_s - t_s + self.inner.reset_s(at_s)

    def delay_s(self, t_s: float) -> float:
        """Return the seconds for which the last request waits."""
        return max(0.0, self._turns[-1] - t_s) if self._turns else 0.0
