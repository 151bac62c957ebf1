"""Limiters of no family: what should not be named, or only where what is named foretells them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from bltybench.limits.fit.select import Verdict
from bltybench.limits.models import FirstHitWindow, FixedWindow, SlidingLog, TokenBucket
from bltybench.limits.models.base import Admission, Limiter, Model

FORETOLD = 0.97
"""Share of the decisions on traffic of another kind that a model which was named must foretell."""
PERIODS = 25
"""For so many periods."""
BUSY = 1.6
"""Times the limit that such traffic asks for."""
NEAR = 0.05
"""Parts of a period: what would be let in so soon is not counted as foretold wrongly."""


class Ban:
    """Who is refused is kept out for so long; where it ``extends``, each refusal begins it anew."""

    def __init__(self, inner: Model, ban_s: float, *, extends: bool = False) -> None:
        self._inner, self._ban_s, self._extends = inner, ban_s, extends
        self._until_s = float("-inf")

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Decide, or refuse who is banned."""
        banned = t_s < self._until_s
        decision = (
            replace(self._inner.peek(t_s, cost), accepted=False) if banned else self._inner.decide(t_s, cost)
        )
        if not decision.accepted and (self._extends or not banned):
            self._until_s = t_s + self._ban_s
        return decision


class Layers:
    """Several limits at once: what one refuses is charged to none."""

    def __init__(self, *inner: Model) -> None:
        self._inner = inner

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Ask all, and charge all only where all accept."""
        decisions = [each.peek(t_s, cost) for each in self._inner]
        refused = next((each for each in decisions if not each.accepted), None)
        if refused is None:
            for each in self._inner:
                each.charge(t_s, cost)
        return refused or decisions[0]


class Nodes:
    """Several nodes, each with a limit of its own, one of which is asked by chance."""

    def __init__(self, inner: Sequence[Model], rng: random.Random) -> None:
        self._inner, self._rng = inner, rng

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Have one node decide."""
        return self._rng.choice(self._inner).decide(t_s, cost)


class Shared:
    """A quota that others use too, who come by chance."""

    def __init__(self, inner: Model, per_s: float, rng: random.Random) -> None:
        self._inner, self._per_s, self._rng = inner, per_s, rng
        self._next_s: float | None = None

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Let the others come first who come before."""
        at_s = t_s - 2 * self._inner.period_s if self._next_s is None else self._next_s
        while at_s < t_s:
            self._inner.decide(at_s)
            at_s += self._rng.expovariate(self._per_s)
        self._next_s = at_s
        return self._inner.decide(t_s, cost)


class Changing:
    """A limit that is another one each ``span_s``."""

    def __init__(self, inner: Sequence[Model], span_s: float) -> None:
        self._inner, self._span_s = inner, span_s

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Have the limit of this time decide."""
        return self._inner[int(t_s / self._span_s) % len(self._inner)].decide(t_s, cost)


class Forgetful:
    """A bucket that counts whole requests, and forgets what has come back in part whenever it lets one in.

    As Varnish's vsthrottle and others of few lines do.
    """

    def __init__(self, limit: int, period_s: float) -> None:
        self._limit, self._each_s = limit, period_s / limit
        self._left, self._since_s = limit, float("-inf")

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Decide, and take note of the time only where it is let in."""
        back = (t_s - self._since_s) / self._each_s
        left = self._limit if back >= self._limit else min(self._limit, self._left + int(back))
        accepted = left >= cost
        if accepted:
            self._left, self._since_s = left - int(cost), t_s
        return Admission(accepted, None, self._limit, float(left), 0.0)


Make = Callable[[int, float, random.Random], Limiter]


def _ban(family: type[Model], *, extends: bool = False) -> Make:
    return lambda limit, period_s, rng: Ban(
        family(limit, period_s), period_s * rng.choice([0.5, 1, 2, 3]), extends=extends
    )


def _two(family: type[Model]) -> Make:
    return lambda limit, period_s, rng: Layers(
        family(max(1, limit // rng.randint(2, 5)), period_s / 10), family(limit, period_s)
    )


STRANGERS: dict[str, Make] = {
    "a ban, after a log": _ban(SlidingLog),
    "a ban, after a window": _ban(FirstHitWindow),
    "a ban that refusals extend": _ban(SlidingLog, extends=True),
    "two logs": _two(SlidingLog),
    "two windows": _two(FixedWindow),
    "a bucket that forgets": lambda limit, period_s, _: Forgetful(limit, period_s),
    "a bucket and a window": lambda limit, period_s, _: Layers(
        TokenBucket(limit, period_s, max(1, limit // 3)), FixedWindow(limit * 4 // 5 + 1, period_s)
    ),
    "a quota that others use": lambda limit, period_s, rng: Shared(
        rng.choice([FixedWindow, SlidingLog, TokenBucket])(limit, period_s),
        rng.uniform(0.2, 0.6) * limit / period_s,
        rng,
    ),
    "several nodes": lambda limit, period_s, rng: Nodes(
        [FirstHitWindow(limit, period_s) for _ in range(rng.randint(2, 3))], rng
    ),
    "a limit that changes": lambda limit, period_s, rng: Changing(
        [FixedWindow(each, period_s) for each in (limit, max(2, limit // 2), limit + 3)],
        period_s * rng.uniform(3, 9),
    ),
}


def judge(verdict: Verdict, true: Limiter, offset_s: float, after_s: float, rng: random.Random) -> str:
    """Say whether what was named is right: one limit of several may be the only one that is ever met.

    ``true`` lives on a clock that is ``offset_s`` ahead, and was last asked before ``after_s``.
    """
    best = verdict.best
    if verdict.status != "found" or best is None:
        return "abstained"
    # So that nothing of the probe counts any more.
    at_s = after_s + 10 * best.period_s
    model, right, decisions = best.model(), 0, 0
    ends_s = at_s + PERIODS * best.period_s
    while at_s < ends_s:
        at_s += rng.expovariate(BUSY * best.limit / best.period_s)
        accepted, foretold = true.decide(at_s + offset_s).accepted, model.peek(at_s)
        if accepted or best.count_refused:
            model.charge(at_s)
        decisions += 1
        right += accepted == foretold.accepted or (foretold.retry_after_s or 0.0) <= NEAR * best.period_s
    return "right" if right >= FORETOLD * decisions else "wrong"
