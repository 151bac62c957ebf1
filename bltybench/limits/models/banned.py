"""A limit whose refusals start a ban."""

import math

from bltybench.limits.models.base import Model


class Banned(Model):
    """Refuses everything for ``ban_s`` after a request that exceeds ``inner``.

    Let r be the time of that refusal: requests at t < r + ban_s are refused, and not charged. If refusals
    restart the ban, each of them sets r ← t. ``limit`` and ``period_s`` are those of ``inner``.
    Sources: Varnish vmod_vsthrottle, ``block``; rate-limiter-flexible, ``blockDuration`` (from the
    first refusal); HCL BigFix Remote Control, account lockout (restarts).
    """

    counts_refused = False

    def __init__(self, inner: Model, ban_s: float, *, restarts: bool = False) -> None:
        if inner.count_refused:
            raise ValueError("a limit with a ban can't count refused requests")
        if not (ban_s > 0 and math.isfinite(ban_s)):
            raise ValueError(f"ban_s must be positive: {ban_s}")
        super().__init__(inner.limit, inner.period_s)
        self.inner, self.ban_s, self.restarts = inner, ban_s, restarts
        self._until_s = -math.inf

    def _advance(self, t_s: float) -> None:
        self.inner.peek(t_s)

    def _fits(self, t_s: float, cost: float) -> bool:
        return t_s >= self._until_s and self.inner._fits(t_s, cost)

    def _free_at(self, t_s: float, cost: float) -> float:
        return max(self._until_s, t_s + (self.inner.peek(t_s, cost).retry_after_s or 0.0))

    def _charge(self, t_s: float, cost: float) -> None:
        self.inner.charge(t_s, cost)

    def _refuse(self, t_s: float, cost: float) -> None:
        # Another limit can refuse what fits this one, which starts no ban here.
        if not self._fits(t_s, cost) and (self.restarts or t_s >= self._until_s):
            self._until_s = t_s + self.ban_s

    def _refund(self, charged_s: float, cost: float) -> None:
        self.inner.refund(self._last_s, charged_s, cost)

    def remaining(self, t_s: float) -> float:
        """Return the cost that still fits at ``t_s``; nothing during a ban."""
        return self.inner.remaining(t_s) if t_s >= self._until_s else 0.0

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the ban has ended and the limit is completely available."""
        return max(self._until_s - t_s, self.inner.reset_s(t_s))

    def delay_s(self, t_s: float) -> float:
        """Return the seconds for which a request is queued."""
        return self.inner.delay_s(t_s)
