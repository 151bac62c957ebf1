"""The best that any client could do with some calls, if it knew the limits and when all calls are due.

Calls that cost the same are best sent in the order in which they are due. In most families, the best client
sends each as soon as it is accepted: a request that is accepted earlier makes room for later ones no later.
Windows that start at the first request are different, because the client chooses where they end. For a fixed
window of this kind, dynamic programming finds the best starts. For a counter, and for a bucket of whole
tokens, only the optimum of calls that are all due at the same time is known.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from math import inf

import numpy as np

from bltybench.limits.models.families import FAMILIES, WHOLE_TOKEN_BUCKET, model_of
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.documented_limits import TOKENS
from bltybench.scenario.target import RateLimit, SandboxLimits

UNSOLVED = ("first_hit_counter", WHOLE_TOKEN_BUCKET)
"""Families for which the best schedule of calls that are due at different times is unknown."""
WINDOW_GAP_S = 1e-9
"""Time between a first-hit window and the next one, so that rounding can't put a call into the former."""
MARGIN_S = 1e-6
"""Tolerance of ends, in seconds: it covers the gaps of a thousand windows. Calls that belong to a first-hit
window are due at least as long before its end."""


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
    """
    known = [limit for top in limits.per_period.values() for limit in top.chain()]
    own_times = [limit for limit in known if _gains_by_waiting(limit)]
    if load.due_s is not None and load.due_s[0] == load.due_s[-1]:
        own_times = [limit for limit in own_times if limit.spread]
    if own_times and (own_times != [limits.requests] or not _is_solved(own_times[0])):
        return None
    slots = load.users if limits.concurrency is None else min(load.users, limits.concurrency)
    if own_times:
        if load.due_s is None:
            return None
        starts_s = _best_windows(load.due_s, own_times[0], load.end_s)
        best = _schedule(replace(load, due_s=starts_s), service, _Limits(limits, slots, start_s))
        return best if best.accepted_by(load.end_s) == len(starts_s) else None
    best = _schedule(load, service, _Limits(limits, slots, start_s))
    if len(set(load.sizes)) == 1:
        return best
    equally_long = len({size.completion for size in load.sizes}) == 1
    if load.due_s is None and not equally_long:
        return None
    # The limits for which calls cost the same bound every schedule. A schedule that reaches it is the best.
    same = limits.model_copy(update=dict.fromkeys(TOKENS))
    slots = slots if equally_long else len(load.sizes) + load.users
    bound = _schedule(load, service, _Limits(same, slots, start_s))
    reached = best.accepted_by(load.end_s) == bound.accepted_by(load.end_s)
    late_s = best.last_accepted_s(None) - bound.last_accepted_s(None) if load.end_s is None else 0.0
    return best if reached and late_s < MARGIN_S else None


def _gains_by_waiting(limit: RateLimit) -> bool:
    """Return whether a call that is sent later can make more room for others."""
    return FAMILIES[limit.algorithm].start == "first_hit" or limit.algorithm in UNSOLVED


def _is_solved(limit: RateLimit) -> bool:
    """Return whether the best schedule is known.

    Calls in a waiting room begin windows too. If a window delays calls, later ones can end earlier.
    """
    return limit.algorithm not in UNSOLVED and limit.waiting is None and not limit.spread


def _best_windows(due_s: Sequence[float], limit: RateLimit, end_s: float | None) -> tuple[float, ...]:
    """Return the times of the most calls that first-hit windows can accept by the end, as early as possible.

    The state is the number of calls accepted and, for each number, the earliest end of the last window. The
    next window accepts the next m calls, so it starts once the first is due, less than a period before the
    last.
    """
    due = np.array(due_s)
    last_s = inf if end_s is None else end_s + MARGIN_S
    ends_s = np.full(len(due) + 1, inf)
    ends_s[0] = -inf
    before = np.zeros(len(due) + 1, dtype=int)
    for done in range(len(due)):
        if ends_s[done] == inf:
            continue
        window = due[done : done + limit.limit]
        starts_s = np.maximum(max(ends_s[done] + WINDOW_GAP_S, due[done]), window - limit.period_s + MARGIN_S)
        within = slice(done + 1, done + 1 + len(window))
        found_s = starts_s + limit.period_s
        better = (found_s < ends_s[within]) & (starts_s <= last_s) & (window <= last_s)
        ends_s[within][better] = found_s[better]
        before[within][better] = done
    reached = int(np.flatnonzero(ends_s < inf)[-1])
    accepted_s: list[float] = []
    while reached > 0:
        start_s, done = float(ends_s[reached]) - limit.period_s, int(before[reached])
        accepted_s[:0] = np.maximum(due[done:reached], start_s).tolist()
        reached = done
    return tuple(accepted_s)


class _Limits:
    """All limits at once, and the requests in flight."""

    def __init__(self, limits: SandboxLimits, slots: int, start_s: float) -> None:
        self._models = [(model_of(limit), what) for what, limit in limits.per_period.items()]
        self._slots = slots
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


def _schedule(load: SimulatedLoad, service: ServiceTime, limits: _Limits) -> Optimum:
    due_s = list(load.due_s) if load.due_s is not None else [0.0] * load.users
    heapify(due_s)
    accepted_s: list[float] = []
    number, now_s, last_end_s = 0, 0.0, 0.0
    while due_s:
        # The order of requests is that of their due times, so none is sent before the previous one.
        now_s = max(now_s, heappop(due_s))
        size = load.sizes[number % len(load.sizes)]
        number += 1
        sent = limits.accept(now_s, size, service.of(size.completion))
        if sent is None:
            continue
        now_s, end_s = sent
        accepted_s.append(now_s)
        last_end_s = max(last_end_s, end_s)
        next_s = end_s + load.think_s
        if load.due_s is None and load.end_s is not None and next_s < load.end_s:
            heappush(due_s, next_s)
    return Optimum(tuple(accepted_s), last_end_s)
