"""The best times to send equal requests that are due at different times, against one limiter alone.

These limiters accept more from a client that waits, because the client chooses when their windows start, or
when a partly refilled token is lost. Calls are accepted in the order in which they are due: if the k-th that
is accepted were another than the k-th that is due, both could be exchanged.
"""

from collections.abc import Sequence
from itertools import count
from math import inf, isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bltybench.limits.models.families import FAMILIES, WHOLE_TOKEN_BUCKET, model_of
from bltybench.scenario.target import RateLimit

WINDOW_GAP_S = 1e-9
"""Time between a first-hit window and the next one, so that rounding can't put a call into the former."""
TICK_GAP_S = 1e-10
"""Time after a token appears until a request takes it. Ten thousand of them are within the margin."""
MARGIN_S = 1e-6
"""Tolerance of ends, in seconds: it covers the gaps of a thousand windows. Calls that belong to a first-hit
window are due at least as long before its end."""

MAX_CALLS_PERIODS = 1_000_000
"""Maximum calls times periods for which the best times against a counter are searched: up to 10 s."""

Floats = NDArray[np.float64]


def gains_by_waiting(family: str) -> bool:
    """Return whether a request that is sent later can make more room for others."""
    return FAMILIES[family].start == "first_hit" or family == WHOLE_TOKEN_BUCKET


def best_times(due_s: Sequence[float], limit: RateLimit, cost: int, end_s: float) -> tuple[float, ...] | None:
    """Return when the most requests of one cost are accepted by the end, the last as early as possible.

    Return None if it takes too long to find.
    """
    due = np.array([at_s for at_s in due_s if at_s <= end_s + MARGIN_S])
    if cost > (limit.burst or limit.limit) or not len(due):
        return ()
    if due[0] == due[-1]:
        return _batch_times(due, limit, cost, end_s + MARGIN_S)
    if limit.algorithm == WHOLE_TOKEN_BUCKET:
        return _bucket_times(due, limit, cost, end_s + MARGIN_S)
    if FAMILIES[limit.algorithm].kind == "window":
        return _window_times(due, limit, cost, end_s + MARGIN_S)
    periods = (end_s - due[0]) / limit.period_s
    return _Counter(due, limit, cost, end_s).times() if len(due) * periods < MAX_CALLS_PERIODS else None


def _batch_times(due: Floats, limit: RateLimit, cost: int, last_s: float) -> tuple[float, ...]:
    """Return the best times of calls that are due at the same time: each as soon as it is accepted.

    Windows then follow each other without gaps, and no part of a token is lost.
    """
    model, at_s = model_of(limit), float(due[0])
    accepted_s: list[float] = []
    for _ in due:
        at_s += model.peek(at_s, cost).retry_after_s or 0.0
        if at_s > last_s:
            break
        model.charge(at_s, cost)
        accepted_s.append(at_s)
    return tuple(accepted_s)


def _window_times(due: Floats, limit: RateLimit, cost: int, last_s: float) -> tuple[float, ...]:
    """Return the best times against a first-hit window.

    The state is the number of calls accepted and, for each number, the earliest end of the last window. The
    next window accepts the next m calls, so it starts once the first is due, less than a period before the
    last. Nothing else of the past matters to later windows.
    """
    ends_s = np.full(len(due) + 1, inf)
    ends_s[0] = -inf
    before = np.zeros(len(due) + 1, dtype=int)
    for done in range(len(due)):
        if ends_s[done] == inf:
            continue
        window = due[done : done + limit.limit // cost]
        starts_s = np.maximum(max(ends_s[done] + WINDOW_GAP_S, due[done]), window - limit.period_s + MARGIN_S)
        within = slice(done + 1, done + 1 + len(window))
        found_s = starts_s + limit.period_s
        better = (found_s < ends_s[within]) & (starts_s <= last_s)
        ends_s[within][better] = found_s[better]
        before[within][better] = done
    reached = int(np.flatnonzero(ends_s < inf)[-1])
    accepted_s: list[float] = []
    while reached > 0:
        start_s, done = float(ends_s[reached]) - limit.period_s, int(before[reached])
        accepted_s[:0] = np.maximum(due[done:reached], start_s).tolist()
        reached = done
    return tuple(accepted_s)


def _bucket_times(due: Floats, limit: RateLimit, cost: int, last_s: float) -> tuple[float, ...]:
    """Return the best times against a bucket of whole tokens.

    The state after k calls is the time of the last one and the level that it left. Between two ticks the
    level is the same, so the next call is sent as soon as it is accepted, or at the next tick, which loses
    no part of a token. A later tick gains nothing more. A state is dropped if an earlier one holds at least
    as many tokens by the time of the dropped one. It then always does, so it can accept the same calls.
    """
    burst, rate = float(limit.burst or limit.limit), limit.limit / limit.period_s
    at_s, level = due[:1], np.array([burst - cost])
    states: list[tuple[Floats, NDArray[np.intp]]] = [(at_s, np.zeros(1, dtype=np.intp))]
    for due_s in due[1:]:
        now_s = np.maximum(at_s, due_s)
        gained = np.floor((now_s - at_s) * rate)
        ticks = np.maximum(gained, cost - level)
        soon_s = np.where(ticks > gained, at_s + ticks / rate + TICK_GAP_S, now_s)
        waits = np.flatnonzero((ticks == gained) & (level + ticks < burst))
        came_from = np.concatenate((np.arange(len(at_s)), waits))
        at_s = np.concatenate((soon_s, (at_s + (ticks + 1) / rate + TICK_GAP_S)[waits]))
        level = np.minimum(burst, np.concatenate((level + ticks, (level + ticks + 1)[waits]))) - cost
        order = np.lexsort((-level, at_s))
        order = order[at_s[order] <= last_s]
        if not len(order):
            break
        kept = order[_undominated(at_s[order], level[order], rate)]
        at_s, level = at_s[kept], level[kept]
        states.append((at_s, came_from[kept]))
    accepted_s: list[float] = []
    index = 0
    for times_s, parents in reversed(states):
        accepted_s.append(float(times_s[index]))
        index = int(parents[index])
    return tuple(reversed(accepted_s))


def _undominated(at_s: Floats, level: Floats, rate: float) -> NDArray[np.bool_]:
    """Return which states, in the order of time, may hold more tokens than each earlier one by then."""
    by_then = level - at_s * rate
    most = np.maximum.accumulate(np.concatenate(([-inf], level[:-1])))
    # Less than one token is lost to the part of a tick between both.
    most_by_then = np.maximum.accumulate(np.concatenate(([-inf], by_then[:-1])))
    kept: NDArray[np.bool_] = (level > most) & (by_then > most_by_then - 1)
    return kept


class _Chain(NamedTuple):
    """Adjacent windows of a first-hit counter, each with at least one call."""

    done: int
    """Calls accepted before."""
    start_s: float
    windows: int
    calls: int


class _Counter:
    """The best times against a first-hit counter.

    Windows follow each other in a chain until one is empty. After it, the next call starts a new chain at any
    time. By the end of any window, it can accept as many calls as the limit, whatever the one before it
    accepted. So a chain of some windows accepts some calls if enough are due before the end of each, to keep
    the chain going and to leave no more than the rest can accept. Each of these conditions is a lower bound
    of the start, and an earlier start is never worse. This gives the earliest end of a chain for each number
    of calls. In the last window, calls wait for the one before it to count less: with the same start, it is
    best if each earlier window accepts as many as it can, because one more there delays the others by no more
    than one call's place.
    """

    def __init__(self, due: Floats, limit: RateLimit, cost: int, end_s: float) -> None:
        self._due, self._last_s = due, end_s + MARGIN_S / 2
        self._limit, self._cost, self._period_s = limit.limit, cost, limit.period_s
        self._per_window = limit.limit // cost
        self._free_s = np.full(len(due) + 1, inf)
        """Earliest time at which a new chain can start, for each number of calls accepted."""
        self._free_s[0] = -inf
        self._before: dict[int, _Chain] = {}
        """Chain after which it is that time."""
        self._best: tuple[int, float, _Chain | None] = (0, 0.0, None)
        """Calls accepted, the negative time of the last, and the last chain."""

    def times(self) -> tuple[float, ...]:
        """Return when calls are accepted."""
        for done in range(len(self._due)):
            if isfinite(self._free_s[done]) or done == 0:
                self._extend(done)
        chain = self._best[2]
        accepted_s: list[float] = []
        while chain is not None:
            accepted_s[:0] = self._times_of(chain)
            chain = self._before.get(chain.done)
        return tuple(accepted_s)

    def _extend(self, done: int) -> None:
        """Find the chains that start after some calls."""
        first_s = max(float(self._free_s[done]) + WINDOW_GAP_S, float(self._due[done]))
        begun = (self._last_s - first_s) // self._period_s + 1
        if done + self._per_window * begun < self._best[0]:
            return
        # Earliest starts of chains of `windows` windows that accept `windows`, `windows` + 1, … calls.
        shorter, starts_s = np.empty(0), np.array([first_s])
        for windows in count():
            if not len(starts_s) or starts_s[0] + windows * self._period_s > self._last_s:
                return
            calls = np.arange(windows + 1, min(len(self._due) - done, self._per_window * (windows + 1)) + 1)
            longer = np.maximum(
                starts_s[np.maximum(calls - self._per_window - windows, 0)],
                self._due[done + calls - 1] - (windows + 1) * self._period_s + MARGIN_S,
            )
            self._end_in(done, windows, shorter, starts_s, longer)
            free_s = longer + (windows + 2) * self._period_s
            for index in np.flatnonzero((free_s < self._free_s[done + calls]) & (free_s <= self._last_s)):
                accepted = int(calls[index])
                self._free_s[done + accepted] = free_s[index]
                self._before[done + accepted] = _Chain(done, float(longer[index]), windows + 1, accepted)
            shorter, starts_s = starts_s, longer

    def _end_in(self, done: int, windows: int, shorter: Floats, full: Floats, longer: Floats) -> None:
        """Note the best chain that ends in the window after some full ones."""
        edge_s, period_s = windows * self._period_s, self._period_s
        starts_s = np.concatenate((shorter, full, longer))
        starts_s = starts_s[(starts_s >= full[0]) & (starts_s + edge_s <= self._last_s)]
        calls = windows - 1 + np.searchsorted(full, starts_s, "right")
        previous = calls - (windows - 2 + np.searchsorted(shorter, starts_s, "right"))
        previous = np.maximum(previous, 1) if windows else np.zeros(len(starts_s), dtype=int)
        left = np.maximum(0.0, 1 - (self._last_s - starts_s - edge_s) / period_s)
        fits = np.ceil((self._limit + 1) / self._cost - previous * left).astype(int) - 1
        until_s = np.minimum(self._last_s, starts_s + edge_s + period_s - MARGIN_S / 2)
        more = np.minimum(fits, np.searchsorted(self._due, until_s, "right") - done - calls)
        total = done + calls + more
        total[more <= 0] = 0
        accepted = int(total.max(initial=0))
        if not accepted or accepted < self._best[0]:
            return
        chosen = np.flatnonzero(total == accepted)
        released_s = self._released_s(starts_s[chosen] + edge_s, previous[chosen], more[chosen])
        ended_s = np.maximum(released_s, self._due[accepted - 1])
        first = int(ended_s.argmin())
        if (accepted, -float(ended_s[first])) > self._best[:2]:
            last = _Chain(done, float(starts_s[chosen[first]]), windows + 1, accepted - done)
            self._best = accepted, -float(ended_s[first]), last

    def _released_s(
        self, edges_s: Floats | float, previous: NDArray[np.int_] | int, numbers: NDArray[np.int_]
    ) -> Floats:
        """Return when windows that start at ``edges_s`` accept their first, second, … call."""
        used = self._cost * np.maximum(previous, 1)
        weight = np.where(previous, (self._limit + 1 - self._cost * numbers) / used, 1.0)
        released: Floats = edges_s + self._period_s * np.maximum(0.0, 1 - weight)
        return released

    def _times_of(self, chain: _Chain) -> list[float]:
        accepted_s: list[float] = []
        previous = 0
        for window in range(chain.windows):
            edge_s = chain.start_s + window * self._period_s
            within_s = edge_s + self._period_s - MARGIN_S / 2
            due = int(np.searchsorted(self._due, within_s, "right")) - chain.done
            # One call is left for each later window, which keeps the chain going.
            most = min(len(accepted_s) + self._per_window, due, chain.calls - (chain.windows - 1 - window))
            numbers = np.arange(len(accepted_s), most)
            released_s = self._released_s(
                edge_s + (WINDOW_GAP_S if window else 0), previous, numbers - len(accepted_s) + 1
            )
            accepted_s += np.maximum(self._due[chain.done + numbers], released_s).tolist()
            previous = len(numbers)
        return accepted_s
