"""The fast case of a simulation: calls that wait for nothing but their own retries.

Nothing then depends on when a response ends. So an attempt is one event, calls are rows of lists instead of
objects, and the only calls per attempt are the limiter's, and the policy's after a refusal.
"""

from bisect import insort
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import cycle, islice
from math import inf
from random import Random
from typing import NamedTuple

from bltybench.errors import UserError
from bltybench.limits.models import Model
from bltybench.limits.observations.classify import Decision
from bltybench.policies.retry.backoff import Policy
from bltybench.policies.simulated_calls import SimulatedCalls

CHUNK_CALLS, MIN_SPAN_S = 50, 1.0
"""Average number of calls due in a chunk of time, and the minimum length of a load, in seconds."""
ROUNDING = 1e-6
"""Fraction of a chunk by which its start is earlier, so that rounding can't put it after a retry in it."""


def too_many_events(maximum: int) -> UserError:
    """Return the error of a simulation that takes too long."""
    return UserError(
        f"the simulation has more than {maximum:,} events",
        remedy="use fewer users, a shorter --duration-s, or fewer --max-attempts",
    )


class Unhindered(NamedTuple):
    """Calls, and the limiter and policy that decide about them."""

    due_s: Sequence[float]
    """When each is due, ascending."""
    service_s: Sequence[float]
    """Seconds for the response of each."""
    refusal_s: float
    rngs: Sequence[Random]
    """Random numbers of the clients, which take turns."""
    model: Model | None
    """The request limit, if there is one."""
    start_s: float
    """The server's time when the load begins."""
    policy: Policy | None
    max_attempts: int
    announced: Callable[[float], float | None]
    """Returns what a refusal announces, by the wait that it needs."""
    max_events: int

    def play(self) -> SimulatedCalls:  # noqa: PLR0912, PLR0915 - calls of parts would take half of the time
        """Simulate all attempts. Raise UserError if there are more events than the maximum."""
        count = len(self.due_s)
        model, start_s, due_s, service_s = self.model, self.start_s, self.due_s, self.service_s
        refusal_s = self.refusal_s
        if model is None:
            ended_s = [at_s + took_s for at_s, took_s in zip(due_s, service_s, strict=True)]
            return self._calls(list(due_s), ended_s, [0] * count)
        policy, rngs, announced = self.policy, self.rngs, self.announced
        wait_of = None if policy is None else policy.wait_s
        take, needed_s = model.take, model.wait_s
        delay_s = None if type(model).delay_s is Model.delay_s else model.delay_s
        follows, clients = policy is not None and policy.follows, len(rngs)
        accepted_s: list[float | None] = [None] * count
        ended_s = [0.0] * count
        refusals = [0] * count
        waited_s: list[float | None] = [None] * count
        # Retries of the current chunk of time are sorted, and those of later chunks are not yet. That takes
        # half as long as a heap of all. Until a chunk is sorted, its start is the time of its first retry.
        near: list[tuple[float, int, int]] = []
        far: dict[int, list[tuple[float, int, int]]] = {}
        chunks: list[int] = []
        at, current = 0, -1
        chunk_length_s = max(MIN_SPAN_S, due_s[-1] - due_s[0]) * CHUNK_CALLS / count
        pushed, last = 0, self.max_attempts - 1
        arrivals_s = [*due_s, inf]
        arriving, arrives_s, retry_s = 0, arrivals_s[0], inf
        while True:
            if retry_s <= arrives_s:
                if at == len(near):
                    if not chunks:
                        break
                    current, at = heappop(chunks), 0
                    near = sorted(far.pop(current))
                    retry_s = near[0][0]
                    continue
                now_s, _, call = near[at]
                at += 1
                if at < len(near):
                    retry_s = near[at][0]
                else:
                    retry_s = (chunks[0] - ROUNDING) * chunk_length_s if chunks else inf
            else:
                now_s, call = arrives_s, arriving
                arriving += 1
                arrives_s = arrivals_s[arriving]
            if take(start_s + now_s):
                accepted_s[call] = now_s
                delayed_s = 0.0 if delay_s is None else delay_s(start_s + now_s)
                ended_s[call] = now_s + (delayed_s + service_s[call])
                continue
            number = refusals[call]
            refusals[call] = number + 1
            stated_s = announced(needed_s(start_s + now_s, 1.0)) if follows else None
            now_s += refusal_s
            if wait_of is None or number >= last:
                ended_s[call] = now_s
                continue
            wait_s = wait_of(number, stated_s, waited_s[call], rngs[call % clients])
            waited_s[call] = wait_s
            if wait_s is None:
                ended_s[call] = now_s
                continue
            pushed += 1
            at_s = now_s + wait_s
            chunk = int(at_s / chunk_length_s)
            if chunk <= current:
                insort(near, (at_s, pushed, call), at)
                retry_s = near[at][0]
            elif chunk in far:
                far[chunk].append((at_s, pushed, call))
            else:
                far[chunk] = [(at_s, pushed, call)]
                heappush(chunks, chunk)
                if at == len(near):
                    retry_s = (chunks[0] - ROUNDING) * chunk_length_s
            if count + 2 * pushed > self.max_events:
                raise too_many_events(self.max_events)
        return self._calls(accepted_s, ended_s, refusals)

    def _calls(
        self, accepted_s: list[float | None], ended_s: list[float], counts: list[int]
    ) -> SimulatedCalls:
        # Calls with the same number of refusals share a list.
        refusals = [[Decision.REFUSED_BY_REQUESTS] * count for count in range(max(counts) + 1)]
        clients = islice(cycle(range(len(self.rngs))), len(counts))
        return SimulatedCalls(
            list(clients), self.due_s, accepted_s, ended_s, list(map(refusals.__getitem__, counts))
        )
