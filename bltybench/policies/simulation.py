"""A discrete-event simulation: clients with retry and pacing policies, in virtual time, against an API."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from itertools import cycle, islice
from math import inf
from operator import attrgetter
from random import Random
from typing import NamedTuple

from bltybench.errors import UserError
from bltybench.limits.observations.classify import Decision
from bltybench.policies.pacing.pacer import MARGIN_S, Pacer, SentRequest, Share
from bltybench.policies.pacing.pacers import pacer_of
from bltybench.policies.retries import Retries
from bltybench.policies.retry.backoff import FailedAttempt
from bltybench.policies.simulated_api import Answer, SimulatedApi, windows_start_s
from bltybench.policies.simulated_calls import SimulatedCalls
from bltybench.policies.simulated_load import ResponseTimes, SimulatedLoad
from bltybench.policies.unhindered import Unhindered, too_many_events
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.pacing import PacingName
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import SandboxLimits

MAX_EVENTS = 20_000_000
"""Maximum events of a simulation, which then takes a minute or more."""


class _Kind(IntEnum):
    """Kinds of events, in their order at the same time: a slot is released before a request needs it."""

    RESPONSE = 0
    WAKE = 1
    SEND = 2
    ARRIVE = 3


@dataclass(slots=True, eq=False)
class _Call:
    """One call and its outcome."""

    client: int
    due_s: float
    size: CallSize
    routes: tuple[int, ...]
    """Numbers of the APIs that it is sent to, in turn, until all have refused it."""
    refusals: list[Decision] = field(default_factory=list)
    failed: list[tuple[Answer, SimulatedApi]] = field(default_factory=list)
    """Refusals since the last wait."""
    waited_s: float | None = None
    """Wait before the current attempt, in seconds."""
    accepted_s: float | None = None
    """Time at which the attempt that succeeded was sent, in seconds."""
    sent_s: float = 0.0
    """Time at which the last attempt was sent, in seconds."""
    ended_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Client:
    retries: Retries
    pacer: Pacer
    rng: Random
    idle: int
    """Users without a call."""
    waiting: deque[_Call] = field(default_factory=deque)
    """Calls that are due but have no user."""
    held: deque[_Call] = field(default_factory=deque)
    """Calls whose next attempt the pacer holds, in order."""
    wakes: bool = False
    """Whether an event will try to send the first of them."""


class _Event(NamedTuple):
    at_s: float
    kind: _Kind
    number: int
    """Order of creation, which decides between events of the same kind and time."""
    call: _Call
    answer: Answer | None = None


class Simulation:
    """One simulation, from the first call to the last. The seed decides when the limits' windows begin."""

    def __init__(
        self,
        load: SimulatedLoad,
        limits: SandboxLimits,
        retry: Retry,
        service: ResponseTimes,
        *,
        seed: int,
        pacing: PacingName = "none",
        paced_by: Sequence[Pacer] | None = None,
        others: Sequence[SandboxLimits] = (),
        start_s: float | None = None,
    ) -> None:
        """``start_s`` is the server's time when the load begins, in Unix seconds.

        ``paced_by`` are the clients' own pacers, instead of ``pacing`` by a share of the API's limits.
        ``others`` are the limits of the further APIs that the routes of the load name. Raise UserError if
        there are any and the clients pace, because they would pace by one of them.
        """
        if others and pacing != "none":
            raise UserError(
                "pacing is by the limits of one key, model, and target, but the calls have several",
                where=f"--pacing {pacing}",
                remedy="use --pacing none, or a scenario without lists and fallback",
            )
        self._load = load
        self._retry = retry
        self._hinders = pacing != "none" or paced_by is not None or retry.budget != "none"
        self._hinders |= {(0,)} != {*load.routes}
        self._service = service
        has_headers = pacing == "headers"
        self._apis = [SimulatedApi(one, has_headers=has_headers) for one in (limits, *others)]
        self._start_s = windows_start_s(limits, seed) if start_s is None else start_s
        self._clients = [
            _Client(
                Retries(retry),
                pacer_of(pacing, limits, Share(client, load.clients), self._start_s)
                if paced_by is None
                else paced_by[client],
                Random(f"{seed}/retry/{client}"),
                load.users_of(client),
            )
            for client in range(load.clients)
        ]
        self._events: list[_Event] = []
        self._numbers = 0
        self._calls: list[_Call] = []

    def run(self) -> SimulatedCalls:
        """Return all calls, in the order in which they became due."""
        calls = self._unhindered()
        return self.run_by_events() if calls is None else calls.play()

    def _unhindered(self) -> Unhindered | None:
        """Return the calls if each waits for nothing but its retries; None if not, or if one could."""
        load, api, client = self._load, self._apis[0], self._clients[0]
        known, model = api.request_limit
        if (
            not known
            or len(self._apis) > 1
            or self._hinders
            or load.due_s is None
            or max(map(len, load.routes)) > 1
        ):
            return None
        # The last client has the fewest users, and the first one the most calls.
        has_users = load.users_of(load.clients - 1) >= -(-len(load.due_s) // load.clients)
        if not has_users or sorted(load.due_s) != [*load.due_s]:
            return None
        refused = FailedAttempt(number=0, decision=Decision.REFUSED_BY_REQUESTS, status=api.refusal_status)
        service_s = cycle([self._service.of(size.completion) for size in load.sizes])
        return Unhindered(
            due_s=load.due_s,
            service_s=list(islice(service_s, len(load.due_s))),
            refusal_s=self._service.refusal_s,
            rngs=[one.rng for one in self._clients],
            model=model,
            start_s=self._start_s,
            policy=client.retries.policy if client.retries.retries(refused) else None,
            max_attempts=self._retry.max_attempts,
            announced=api.announced_s,
            max_events=MAX_EVENTS,
        )

    def run_by_events(self) -> SimulatedCalls:
        """Return the same as ``run``, which is faster if nothing hinders the calls.

        ``run`` takes one time for all refusals.
        """
        if (load := self._load).due_s is None:
            for user in range(load.users):
                self._add(0.0, _Kind.ARRIVE, self._new_call(user % load.clients, 0.0))
        else:
            for index, due_s in enumerate(load.due_s):
                self._new_call(index % load.clients, due_s)
        events = self._events
        # Calls with known due times are not among the events, because a short heap is faster.
        arrivals = deque(sorted(self._calls, key=attrgetter("due_s")) if load.due_s is not None else ())
        while events or arrivals:
            if arrivals and not (events and events[0].at_s <= arrivals[0].due_s):
                call = arrivals.popleft()
                self._arrive(call.due_s, call)
                continue
            at_s, kind, _, call, answer = heappop(events)
            if answer is not None:
                self._respond(at_s, call, answer)
            elif kind is _Kind.SEND:
                self._hold(at_s, call)
            elif kind is _Kind.WAKE:
                client = self._clients[call.client]
                client.wakes = False
                self._release(at_s, client)
            else:
                self._arrive(at_s, call)
        names = SimulatedCalls.__dataclass_fields__
        return SimulatedCalls(**{name: [getattr(call, name) for call in self._calls] for name in names})

    def _new_call(self, client: int, due_s: float) -> _Call:
        load, number = self._load, len(self._calls)
        routes = load.routes[number % len(load.routes)]
        call = _Call(client, due_s, load.sizes[number % len(load.sizes)], routes)
        self._calls.append(call)
        return call

    def _add(self, at_s: float, kind: _Kind, call: _Call, answer: Answer | None = None) -> None:
        self._numbers += 1
        if self._numbers > MAX_EVENTS:
            raise too_many_events(MAX_EVENTS)
        heappush(self._events, _Event(at_s, kind, self._numbers, call, answer))

    def _arrive(self, now_s: float, call: _Call) -> None:
        client = self._clients[call.client]
        if client.idle == 0:
            client.waiting.append(call)
            return
        client.idle -= 1
        self._begin(now_s, call)

    def _begin(self, now_s: float, call: _Call) -> None:
        self._clients[call.client].retries.begin(now_s)
        self._hold(now_s, call)

    def _hold(self, now_s: float, call: _Call) -> None:
        client = self._clients[call.client]
        client.held.append(call)
        if len(client.held) == 1:
            self._release(now_s, client)

    def _release(self, now_s: float, client: _Client) -> None:
        """Send the calls that the pacer holds, until it holds one longer."""
        while client.held and not client.wakes:
            call = client.held[0]
            wait_s = client.pacer.wait_s(now_s, call.size, client.rng)
            if wait_s == inf:
                return  # until a response
            if wait_s > 0:
                client.wakes = True
                self._add(now_s + wait_s + MARGIN_S, _Kind.WAKE, call)
                return
            client.held.popleft()
            client.pacer.send(now_s, call.size)
            self._send(now_s, call)

    def _send(self, now_s: float, call: _Call) -> None:
        call.sent_s = now_s
        answer = self._api_of(call).decide(self._start_s + now_s, call.size)
        if answer.decision is Decision.ACCEPTED:
            call.accepted_s = now_s
            took_s = answer.delay_s + self._service.of(call.size.completion)
        else:
            took_s = self._service.refusal_s
        self._add(now_s + took_s, _Kind.RESPONSE, call, answer)

    def _respond(self, now_s: float, call: _Call, answer: Answer) -> None:
        client = self._clients[call.client]
        refused = answer.decision is not Decision.ACCEPTED
        sent = SentRequest(call.sent_s, call.size)
        if client.pacer.reads_headers:
            announced = self._api_of(call).headers_of(answer, self._start_s + call.sent_s)
            client.pacer.hear(sent, now_s, announced)
        client.pacer.answer(sent, now_s, answer.announced_s, refused=refused)
        if refused:
            self._refused(now_s, call, answer)
        else:
            self._api_of(call).release()
            client.retries.succeed()
            self._end(now_s, call)
        if client.held:
            client.wakes = client.wakes and not client.pacer.reads_headers
            self._release(now_s, client)

    def _api_of(self, call: _Call) -> SimulatedApi:
        return self._apis[call.routes[len(call.failed)]]

    def _refused(self, now_s: float, call: _Call, answer: Answer) -> None:
        client = self._clients[call.client]
        call.failed.append((answer, self._api_of(call)))
        call.refusals.append(answer.decision)
        if len(call.failed) < len(call.routes):
            self._hold(now_s, call)
            return
        # As in a run, the policy decides by the refusal with the shortest wait, or else by the last one.
        announced = [one for one in call.failed if one[0].announced_s is not None]
        answer, api = min(announced, key=lambda one: one[0].announced_s or 0.0, default=call.failed[-1])
        failed = FailedAttempt(
            number=len(call.refusals) // len(call.routes) - 1,
            decision=answer.decision,
            status=api.refusal_status,
            announced_s=answer.announced_s,
            standard_s=answer.announced_s,
            waited_s=call.waited_s,
        )
        call.failed.clear()
        call.waited_s = client.retries.wait_s(failed, now_s, client.rng)
        if call.waited_s is None:
            self._end(now_s, call)
        else:
            self._add(now_s + call.waited_s, _Kind.SEND, call)

    def _end(self, now_s: float, call: _Call) -> None:
        """End a call. Its user takes the next one."""
        call.ended_s = now_s
        client, load = self._clients[call.client], self._load
        if client.waiting:
            self._begin(now_s, client.waiting.popleft())
            return
        client.idle += 1
        due_s = now_s + load.think_s
        if load.due_s is None and load.end_s is not None and due_s < load.end_s:
            self._add(due_s, _Kind.ARRIVE, self._new_call(call.client, due_s))
