"""Copies of the server's limiters, complete or with a client's share of each limit."""

from collections.abc import Iterable
from math import floor
from typing import NamedTuple

from bltybench.limits.models import Model
from bltybench.limits.models.families import FAMILIES, TOKEN_BUCKET, WHOLE_TOKEN_BUCKET, model_of
from bltybench.policies.pacing.pacer import Share
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import What
from bltybench.scenario.target import RateLimit, SandboxLimits

SLOWDOWN = 1.01
"""Factor of the period of buckets that clients keep. At exactly the rate of the limit, each request would
come just when the server accepts one more, and the network would decide whether it is refused."""


class CopiedLimiter(NamedTuple):
    """A copy of one of the server's limiters."""

    model: Model
    counts: What
    scale: int = 1
    """Units of the model per request or token."""

    def cost(self, size: CallSize) -> float:
        """Return what a request costs."""
        return self.scale * size.cost(self.counts)


class LimiterCopy:
    """Copies of the server's limiters."""

    def __init__(self, copied: Iterable[CopiedLimiter]) -> None:
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


def copy_of(limits: SandboxLimits, share: Share) -> LimiterCopy:
    """Return copies of the limiters on requests and tokens, with a client's share of each limit."""
    return LimiterCopy(_copied(limit, what, share) for what, limit in limits.per_period.items())


def own_limit(limit: RateLimit, share: Share) -> RateLimit:
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
        changes["also"] = own_limit(limit.also, share)
    return limit.model_copy(update=changes)


def _copied(limit: RateLimit, counts: What, share: Share) -> CopiedLimiter:
    if share.clients == 1 or not all(map(_refills_evenly, limit.chain())):
        return CopiedLimiter(model_of(own_limit(limit, share)), counts)
    return CopiedLimiter(model_of(_staggered(limit, share)), counts, share.clients)


def _refills_evenly(limit: RateLimit) -> bool:
    family = FAMILIES[limit.algorithm]
    return family.refills_singly or family.kind in {"counter", "queue"}


def _staggered(limit: RateLimit, share: Share) -> RateLimit:
    """Return a client's share of a limit that refills evenly, in parts of a request: one for each client.

    Each client can send one part more than the next one. Busy clients then send in turns, together as much as
    the limit: the sum of floor((x + k) / n) over k < n is floor(x).
    """
    whole = limit.limit if limit.queue is None else limit.queue + 1
    most = max(share.clients, (limit.burst or whole) + share.clients - 1 - share.client)
    changes: dict[str, object] = {"burst": most}
    if limit.algorithm == WHOLE_TOKEN_BUCKET:
        # The client sends at ticks, at which this bucket loses nothing.
        changes |= {"algorithm": TOKEN_BUCKET, "period_s": limit.period_s * SLOWDOWN}
    elif FAMILIES[limit.algorithm].kind == "queue":
        changes = {"queue": most - 1}
    elif FAMILIES[limit.algorithm].kind == "counter":
        changes = {"limit": most, "period_s": limit.period_s * max(1.0, share.clients / limit.limit)}
    if limit.also is not None:
        changes["also"] = _staggered(limit.also, share)
    return limit.model_copy(update=changes)
