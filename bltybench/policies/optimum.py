"""The best that any client could do with some calls, if it knew the limits and when all calls are due.

Calls that cost the same are best sent in the order in which they are due. In most families, the best client
sends each as soon as it is accepted: a request that is accepted earlier makes room for later ones no later.
In the others, a client gains by waiting (``chosen_times``). Their best schedule is known if no other limit
keeps the client from it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from math import inf

from bltybench.limits.models.families import FAMILIES, model_of
from bltybench.policies.chosen_times import MARGIN_S, best_times, gains_by_waiting
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import TOKENS
from bltybench.scenario.target import RateLimit, SandboxLimits, alone, chained

FIRST_HIT = (["first_hit_window"], ["first_hit_counter"])
"""Single limits against which no batch gains by waiting, even with few users, by exhaustive search."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best schedule."""

    accepted_s: tuple[float, ...]
    """Times at which calls are accepted, ascending, in seconds."""
    makespan_s: float
    """Time at which the last accepted call ends, in seconds."""

    def accepted_by(self, end_s: float | None) -> int:
        """Return the number of calls that are accepted by a time, or in total."""
        return len(self.accepted_s) if end_s is None else bisect_right(self.accepted_s, end_s + MARGIN_S)

    def last_accepted_s(self, end_s: float | None) -> float:
        """Return the time of the last acceptance by a time, or in total; 0 if there is none."""
        count = self.accepted_by(end_s)
        return self.accepted_s[count - 1] if count else 0.0

    def below(self, accepted_s: Sequence[float], end_s: float | None) -> float | None:
        """Return how many percent fewer calls are accepted by the end; None if none could be.

        Without an end, it is the time at which the optimum has all calls accepted.
        """
        best = self.accepted_by(end_s)
        until_s = (self.last_accepted_s(None) if end_s is None else end_s) + MARGIN_S
        return 100 * (1 - sum(at_s <= until_s for at_s in accepted_s) / best) if best else None


def optimum(
    load: SimulatedLoad, limits: SandboxLimits, service: ServiceTime, start_s: float
) -> Optimum | None:
    """Return the best schedule; None if it is unknown. ``start_s`` is the server's time when the load begins.

    It is unknown if calls of different sizes exhaust the tokens, or calls of different lengths exhaust the
    concurrency or the users, so that fewer are accepted by the end than the other limits allow. Finding the
    best order takes exponentially long.

    If a client gains by waiting, each limit for which it does bounds what all limits accept, and so do the
    others together. A schedule that reaches one of these bounds is the best: that of a client that never
    waits, or the best times for one of the limits. It is unknown if none does.
    """
    split = {what: _split(limit) for what, limit in limits.per_period.items()}
    others = limits.model_copy(update={what: rest for what, (_, rest) in split.items()})
    if not any(FAMILIES[one.algorithm].has_phase for top in others.per_period.values() for one in alone(top)):
        # Nothing depends on the server's time then, and small numbers have small rounding errors.
        start_s = 0.0
    bound = _without_waits(load, others, service, start_s)
    waiting = [(limit, what) for what, (known, _) in split.items() for limit in known]
    # Calls that a window spreads out can end after later ones.
    is_spread = any(limit.spread for limit, _ in waiting)
    if is_spread or not waiting:
        return None if is_spread else bound
    soon = _schedule(load, service, limits, start_s)
    if bound is not None and _reaches(soon, bound, load.end_s):
        return soon
    if load.due_s is None or any(len({size.cost(what) for size in load.sizes}) > 1 for _, what in waiting):
        return None
    families = [limit.algorithm for limit, _ in waiting]
    if load.due_s[0] == load.due_s[-1] and not others.per_period and families in FIRST_HIT:
        return soon
    end_s = soon.last_accepted_s(None) if load.end_s is None else load.end_s
    # Calls in a waiting room begin windows too, so their best times are unknown.
    solved = [(limit, what) for limit, what in waiting if limit.waiting is None]
    priced = [(limit, int(load.sizes[0].cost(what))) for limit, what in solved]
    best_s = [best_times(load.due_s, limit, cost, end_s) for limit, cost in priced if cost]
    plans = [Optimum(times_s, 0.0) for times_s in best_s if times_s is not None]
    planned = (_schedule(replace(load, due_s=plan.accepted_s), service, limits, start_s) for plan in plans)
    bounds = plans if bound is None else [*plans, bound]
    reaching = (
        found for found in (soon, *planned) if any(_reaches(found, best, load.end_s) for best in bounds)
    )
    return next(reaching, None)


def _split(top: RateLimit) -> tuple[list[RateLimit], RateLimit | None]:
    """Return the limits for which a client gains by waiting, and the others as a chain."""
    waits = [limit for limit in alone(top) if gains_by_waiting(limit.algorithm)]
    return waits, chained([limit for limit in alone(top) if not gains_by_waiting(limit.algorithm)])


def _reaches(found: Optimum, bound: Optimum, end_s: float | None) -> bool:
    """Return whether as many calls are accepted by the end or, without an end, whether all are as early."""
    late_s = found.last_accepted_s(None) - bound.last_accepted_s(None) if end_s is None else 0.0
    return found.accepted_by(end_s) >= bound.accepted_by(end_s) and late_s < MARGIN_S


def _without_waits(
    load: SimulatedLoad, limits: SandboxLimits, service: ServiceTime, start_s: float
) -> Optimum | None:
    """Return the best schedule if no client gains by waiting; None if it is unknown."""
    best = _schedule(load, service, limits, start_s)
    if len(set(load.sizes)) == 1:
        return best
    equally_long = len({size.completion for size in load.sizes}) == 1
    if load.due_s is None and not equally_long:
        return None
    # The limits for which calls cost the same bound every schedule. A schedule that reaches it is the best.
    concurrency = limits.concurrency if equally_long else None
    same = limits.model_copy(update={**dict.fromkeys(TOKENS), "concurrency": concurrency})
    users = load.users if equally_long else len(load.sizes) + load.users
    bound = _schedule(replace(load, users=users), service, same, start_s)
    return best if _reaches(best, bound, load.end_s) else None


class _Limits:
    """All limits at once, and the requests in flight."""

    def __init__(self, limits: SandboxLimits, users: int, start_s: float) -> None:
        self._models = [(model_of(limit), what) for what, limit in limits.per_period.items()]
        self._slots = users if limits.concurrency is None else min(users, limits.concurrency)
        self._start_s = self._server_s = start_s
        self._ends_s: list[float] = []

    def accept(self, due_s: float, size: CallSize, service_s: float) -> tuple[float, float] | None:
        """Send a request as soon as it is accepted. Return when it is accepted and ends; None if never."""
        at_s = due_s
        while len(self._ends_s) >= self._slots or (self._ends_s and self._ends_s[0] <= at_s):
            at_s = max(at_s, heappop(self._ends_s))
        costs = [(model, size.cost(what)) for model, what in self._models]
        # Rounding must not put it before the previous one.
        server_s = max(self._server_s, self._start_s + at_s)
        waits_s = [model.peek(server_s, cost).retry_after_s or 0.0 for model, cost in costs]
        wait_s = max(waits_s, default=0.0)
        if wait_s == inf:
            return None
        self._server_s = server_s + wait_s
        delays_s = [model.decide(self._server_s, cost).delay_s for model, cost in costs]
        accepted_s = self._server_s - self._start_s if wait_s else at_s
        end_s = accepted_s + max(delays_s, default=0.0) + service_s
        heappush(self._ends_s, end_s)
        return accepted_s, end_s


def _schedule(load: SimulatedLoad, service: ServiceTime, limits: SandboxLimits, start_s: float) -> Optimum:
    """Send each call as soon as it is accepted."""
    state = _Limits(limits, load.users, start_s)
    due_s = list(load.due_s) if load.due_s is not None else [0.0] * load.users
    heapify(due_s)
    accepted_s: list[float] = []
    number, now_s, last_end_s = 0, 0.0, 0.0
    while due_s:
        # The order of requests is that of their due times, so none is sent before the previous one.
        now_s = max(now_s, heappop(due_s))
        size = load.sizes[number % len(load.sizes)]
        number += 1
        sent = state.accept(now_s, size, service.of(size.completion))
        if sent is None:
            continue
        now_s, end_s = sent
        accepted_s.append(now_s)
        last_end_s = max(last_end_s, end_s)
        next_s = end_s + load.think_s
        if load.due_s is None and load.end_s is not None and next_s < load.end_s:
            heappush(due_s, next_s)
    return Optimum(tuple(accepted_s), last_end_s)
