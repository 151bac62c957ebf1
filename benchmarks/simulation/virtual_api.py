"""An API in virtual time: the sandbox's quotas, streams, slots, and the faults of a network."""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.simulation.virtual_request import VirtualRequest
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.protocol import STAGE_PREFIX, CancelStep, Experiment, ProbeRequest, SendStep, Step
from bltybench.runs.attempt import Attempt
from bltybench.sandbox.quota import Quotas, Refusal
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import SandboxLimits

START_S = 1_795_358_417.3
ERRORS = {"malformed": 400, "unknown_model": 404, "wrong_key": 401}


class VirtualApi:
    """Runs experiments against limits.

    ``slow`` is the increase of the TTFT per request being served, relative to ``ttft_s``. ``clock_offset_s``
    is the server's clock minus the client's. ``lost`` is the fraction of responses that never arrive.
    ``terse`` omits the reason for a refusal. Above ``max_model_tokens``, max_tokens is a client error. A
    canceled stream releases its slot after ``cancel_delay_s``.
    ``others`` returns the number of other clients' requests before each of ours, and ``spoil`` the status and
    code of an unexpected response to request number n, or None.
    """

    def __init__(
        self,
        limits: SandboxLimits,
        *,
        latency_s: float = 0.02,
        jitter: float = 0.2,
        ttft_s: float = 0.15,
        itl_s: float = 0.02,
        seed: int = 1,
        early_headers: bool = True,
        terse: bool = False,
        slow: float = 0.0,
        clock_offset_s: float = 0.0,
        lost: float = 0.0,
        max_model_tokens: int = 1_000_000,
        cancel_delay_s: float = 0.0,
        others: Callable[[random.Random], int] = lambda _: 0,
        spoil: Callable[[int], tuple[int, str] | None] = lambda _: None,
    ) -> None:
        self.now_s = START_S
        self.requests: list[VirtualRequest] = []
        self._limits = limits
        self.quotas = Quotas(limits.model_copy(update={"concurrency": None}))
        self._latency_s, self._jitter, self._ttft_s, self._itl_s = latency_s, jitter, ttft_s, itl_s
        self._early_headers, self._terse, self._slow = early_headers, terse, slow
        self.clock_offset_s, self._lost, self._max_model_tokens = clock_offset_s, lost, max_model_tokens
        self._others, self._spoil, self._cancel_delay_s = others, spoil, cancel_delay_s
        self._stage: str | None = None
        self._slots_in_use = 0
        self._queue: deque[VirtualRequest] = deque()
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def attempts(self, first: int = 0) -> list[Attempt]:
        """Return the records of the requests from number ``first`` on, in a run that began at START_S."""
        return [request.attempt(START_S) for request in self.requests[first:]]

    def play(self, experiment: Experiment, name: str | None = None) -> list[ProbeResult]:
        """Run an experiment to its end and return its results."""
        first = len(self.requests)
        self._stage = None if name is None else STAGE_PREFIX + name
        try:
            step: Step = next(experiment)
            while True:
                self._execute(step, first)
                step = experiment.send([request.result() for request in self.requests[first:]])
        except StopIteration:
            return [request.result() for request in self.requests[first:]]

    def _execute(self, step: Step, first: int) -> None:
        in_flight = [request for request in self.requests[first:] if not request.over]
        if isinstance(step, CancelStep):
            begun = [request for request in in_flight if request.begun_s is not None]
            for request in begun[: step.count] if step.count else in_flight:
                self._cancel(request)
            return
        self._until(max(self.now_s + step.after_s, step.at_s))
        self._send(step, first)

    def _send(self, step: SendStep, first: int) -> None:
        queue = deque(step.requests)
        awaited = [] if step.requests else [request for request in self.requests[first:] if not request.over]
        timeout_s = self.now_s + step.timeout_s
        while True:
            pending = [request for request in awaited if not request.reached(step.until)]
            refused = any(request.decided_s and request.accepted is False for request in awaited)
            if step.until_refused and refused:
                queue.clear()
            while queue and len(pending) < step.max_in_flight:
                request = self._launch(queue.popleft())
                awaited.append(request)
                pending.append(request)
                timeout_s = self.now_s + step.timeout_s
            if not pending:
                return
            if not self._events or self._events[0][0] > timeout_s:
                self.now_s = timeout_s
                return
            self._run_next_event()

    def _until(self, at_s: float) -> None:
        while self._events and self._events[0][0] <= at_s:
            self._run_next_event()
        self.now_s = max(self.now_s, at_s)

    def _run_next_event(self) -> None:
        at_s, _, event = heapq.heappop(self._events)
        self.now_s = max(self.now_s, at_s)
        event()

    def _at(self, at_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._numbers), event))

    def _after_transit(self, event: Callable[[], None], since_s: float | None = None) -> None:
        """Schedule an event for when a message that is sent now, or at ``since_s``, arrives."""
        transit_s = self._latency_s / 2 * self._rng.lognormvariate(0, self._jitter)
        self._at((self.now_s if since_s is None else since_s) + transit_s, event)

    def _launch(self, probe_request: ProbeRequest) -> VirtualRequest:
        request = VirtualRequest(
            request=probe_request,
            sent_s=self.now_s,
            prompt_tokens=probe_request.prompt_tokens + self._rng.randint(0, 2),
            stage=self._stage,
        )
        self.requests.append(request)
        self._after_transit(lambda: self._arrive(request))
        return request

    def _arrive(self, request: VirtualRequest) -> None:
        """Decide on a request that has arrived at the server."""
        sent, limits = request.request, self._limits
        if request.over:
            return
        spoiled = self._spoil(len(self.requests))
        if spoiled is not None and sent.kind == "chat":
            self._respond(request, spoiled[0], spoiled[1], accepted=None)
            return
        quota = self.quotas.of("second" if sent.second_key else "first", sent.model or "a")
        clock_s = self.now_s + self.clock_offset_s
        for _ in range(self._others(self._rng)):
            quota.admit(clock_s, CallSize(10, 0))
        if sent.kind != "chat":
            status = ERRORS.get(sent.kind, 200)
            listed = "models" in limits.charged_endpoints and status == 200
            refusal = quota.charge(clock_s) if listed or status in limits.charged_errors else None
            if refusal is not None:
                self._refuse(request, refusal)
            else:
                self._respond(request, status, "", accepted=True if status == 200 else None)
            return
        if sent.max_tokens > self._max_model_tokens:
            self._respond(request, 400, "invalid_max_tokens", accepted=None)
            return
        full = limits.concurrency is not None and self._slots_in_use >= limits.concurrency
        if full and limits.concurrency_excess == "refused":
            self._respond(request, limits.refusal_status, "concurrency_limit_exceeded", accepted=False)
            return
        grant = quota.admit(clock_s, CallSize(request.prompt_tokens, sent.max_tokens))
        if isinstance(grant, Refusal):
            self._refuse(request, grant)
            return
        request.grant = grant
        request.headers = _text(grant.headers)
        if self._early_headers and sent.stream:
            self._after_transit(lambda: self._accept(request))
        if full:
            self._queue.append(request)
        else:
            self._serve(request)

    def _refuse(self, request: VirtualRequest, refusal: Refusal) -> None:
        request.headers = _text(refusal.error.headers)
        self._respond(request, refusal.error.status, refusal.error.code or "", accepted=False)

    def _respond(self, request: VirtualRequest, status: int, code: str, *, accepted: bool | None) -> None:
        """Send a response without a completion."""

        def arrive() -> None:
            if not request.over and not self._loses(request):
                request.status, request.accepted = status, accepted
                request.code = "" if self._terse else code
                request.decided_s = request.end_s = self.now_s

        self._after_transit(arrive)

    def _loses(self, request: VirtualRequest) -> bool:
        """Return whether the network loses the response. If so, the connection ends."""
        request.lost = self._lost > 0 and not request.request.stream and self._rng.random() < self._lost
        if request.lost:
            request.decided_s = request.end_s = self.now_s
            request.headers = {}
        return request.lost

    def _accept(self, request: VirtualRequest) -> None:
        if not request.over and request.decided_s is None:
            request.decided_s, request.status, request.accepted = self.now_s, 200, True

    def _serve(self, request: VirtualRequest) -> None:
        self._slots_in_use += 1
        request.served = True
        completion_tokens = 1 if request.request.one_word else request.request.max_tokens
        first_token_s = self.now_s + self._ttft_s * (1 + self._slow * self._slots_in_use)
        end_s = first_token_s + self._itl_s * (completion_tokens - 1)

        def begin() -> None:
            if not request.over:
                self._accept(request)
                request.begun_s = self.now_s

        def end() -> None:
            self._release(request, completion_tokens)
            self._after_transit(arrive)

        def arrive() -> None:
            if not request.over and not self._loses(request):
                self._accept(request)
                request.end_s, request.completion_tokens = self.now_s, completion_tokens

        if request.request.stream:
            self._after_transit(begin, first_token_s)
        self._at(end_s, end)

    def _release(self, request: VirtualRequest, completion_tokens: int) -> None:
        if not request.served:
            return
        request.served = False
        self._slots_in_use -= 1
        if request.grant is not None:
            now_s = self.now_s + self.clock_offset_s
            request.grant.settle(now_s, CallSize(request.prompt_tokens, completion_tokens))
        if self._queue:
            self._serve(self._queue.popleft())

    def _cancel(self, request: VirtualRequest) -> None:
        if request.begun_s is not None:
            request.completion_tokens = 1 + int((self.now_s - request.begun_s) / self._itl_s)
        request.end_s, request.cancelled = self.now_s, True
        if request in self._queue:
            self._queue.remove(request)
        if not self._limits.cancelled_keeps_slot:
            noticed_s = self.now_s + self._cancel_delay_s
            self._after_transit(lambda: self._release(request, request.completion_tokens), noticed_s)


def _text(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


def virtual_limits(**changes: Any) -> SandboxLimits:
    """Return limits with the given fields, and no other limit."""
    return SandboxLimits(**({"requests": None, "tokens": None, "concurrency": None} | changes))
