"""Leaky queue: requests above the rate are queued, and refused if the queue is full."""

import math

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
