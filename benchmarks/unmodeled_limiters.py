"""Limiters outside the modeled families, which the probe may name only if a family predicts them."""

import random
from collections.abc import Callable, Sequence

from bltybench.limits.fit.result import Ban, Verdict
from bltybench.limits.models import Banned, FirstHitWindow, FixedWindow, SlidingLog, TokenBucket
from bltybench.limits.models.base import Admission, Limiter, Model

MIN_PREDICTED = 0.97
"""Minimum fraction of the decisions on other traffic that a named model must predict."""
TRAFFIC_PERIODS = 25
"""Duration of that traffic, in periods."""
TRAFFIC_RATE = 1.6
"""Mean rate of that traffic, in multiples of the limit."""
REFILL_TOLERANCE = 0.05
"""A wrong prediction counts as right if the request is accepted within this fraction of a period."""
MAX_SAFE_RATE = 1.01
"""Maximum of the rate that is reported as safe, relative to the sustained rate of the limit."""


class Layers:
    """Several limits in one. A request that one of them refuses is charged to none."""

    def __init__(self, *inner: Model) -> None:
        self._inner = inner

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Return the first refusal, or charge all limits."""
        admissions = [model.peek(t_s, cost) for model in self._inner]
        refused = next((admission for admission in admissions if not admission.accepted), None)
        if refused is None:
            for model in self._inner:
                model.charge(t_s, cost)
        return refused or admissions[0]


class SeparateNodes:
    """Several nodes with separate limits. Each request reaches a random one."""

    def __init__(self, inner: Sequence[Model], rng: random.Random) -> None:
        self._inner, self._rng = inner, rng

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Return the decision of a random node."""
        return self._rng.choice(self._inner).decide(t_s, cost)


class SharedQuota:
    """A quota shared with other clients, whose requests arrive at random."""

    def __init__(self, inner: Model, per_s: float, rng: random.Random) -> None:
        self._inner, self._per_s, self._rng = inner, per_s, rng
        self._next_s: float | None = None

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Process the other clients' earlier requests, then decide."""
        at_s = t_s - 2 * self._inner.period_s if self._next_s is None else self._next_s
        while at_s < t_s:
            self._inner.decide(at_s)
            at_s += self._rng.expovariate(self._per_s)
        self._next_s = at_s
        return self._inner.decide(t_s, cost)


class Changing:
    """A limit that changes every ``span_s`` seconds."""

    def __init__(self, inner: Sequence[Model], span_s: float) -> None:
        self._inner, self._span_s = inner, span_s

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Return the decision of the limit in force at this time."""
        return self._inner[int(t_s / self._span_s) % len(self._inner)].decide(t_s, cost)


MakeLimiter = Callable[[int, float, random.Random], Limiter]


def _ban(family: type[Model], *, restarts: bool = False) -> MakeLimiter:
    return lambda limit, period_s, rng: Banned(
        family(limit, period_s), period_s * rng.choice([0.5, 1, 2, 3]), restarts=restarts
    )


def _two(family: type[Model]) -> MakeLimiter:
    return lambda limit, period_s, rng: Layers(
        family(max(1, limit // rng.randint(2, 5)), period_s / 10), family(limit, period_s)
    )


UNMODELED: dict[str, MakeLimiter] = {
    "ban after a log": _ban(SlidingLog),
    "ban after a window": _ban(FirstHitWindow),
    "ban that refusals extend": _ban(SlidingLog, restarts=True),
    "two logs": _two(SlidingLog),
    "two windows": _two(FixedWindow),
    "bucket and window": lambda limit, period_s, _: Layers(
        TokenBucket(limit, period_s, max(1, limit // 3)), FixedWindow(limit * 4 // 5 + 1, period_s)
    ),
    "quota shared with other clients": lambda limit, period_s, rng: SharedQuota(
        rng.choice([FixedWindow, SlidingLog, TokenBucket])(limit, period_s),
        rng.uniform(0.2, 0.6) * limit / period_s,
        rng,
    ),
    "several nodes": lambda limit, period_s, rng: SeparateNodes(
        [FirstHitWindow(limit, period_s) for _ in range(rng.randint(2, 3))], rng
    ),
    "limit that changes": lambda limit, period_s, rng: Changing(
        [FixedWindow(other, period_s) for other in (limit, max(2, limit // 2), limit + 3)],
        period_s * rng.uniform(3, 9),
    ),
}


def _matches(actual: Banned, found: Ban) -> bool:
    """Return whether a ban is within the ranges of the one that was found."""
    return (
        found.restarts in {actual.restarts, None}
        and found.length_range_s[0] <= actual.ban_s <= found.length_range_s[1]
        and found.limit_range[0] <= actual.limit <= found.limit_range[1]
        and found.period_range_s[0] <= actual.period_s <= found.period_range_s[1]
        and found.safe_rate_per_min <= MAX_SAFE_RATE * actual.limit * 60 / actual.period_s
    )


def judge(verdict: Verdict, actual: Limiter, offset_s: float, ended_s: float, rng: random.Random) -> str:
    """Return "right" if the named model predicts ``actual``, as it can if only one of several limits binds.

    A ban is right if its length, its limit, the limit's period, and whether refusals restart it are.
    The clock of ``actual`` is ``offset_s`` ahead. The probe sent its last request at ``ended_s``.
    """
    if verdict.ban is not None:
        return "right" if isinstance(actual, Banned) and _matches(actual, verdict.ban) else "wrong"
    best = verdict.best
    if verdict.status != "found" or best is None:
        return "abstained"
    # By then, no request of the probe counts any more.
    at_s = ended_s + 10 * best.period_s
    model, right, decisions = best.model(), 0, 0
    end_s = at_s + TRAFFIC_PERIODS * best.period_s
    while at_s < end_s:
        at_s += rng.expovariate(TRAFFIC_RATE * best.limit / best.period_s)
        accepted, predicted = actual.decide(at_s + offset_s).accepted, model.peek(at_s)
        if accepted or best.count_refused:
            model.charge(at_s)
        decisions += 1
        soon = (predicted.retry_after_s or 0.0) <= REFILL_TOLERANCE * best.period_s
        right += accepted == predicted.accepted or soon
    return "right" if right >= MIN_PREDICTED * decisions else "wrong"
