"""An API in virtual time: the sandbox's own quotas, streams that last, slots, a network's troubles."""

from __future__ import annotations

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
from bltybench.scenario.target import SandboxLimits

START_S = 1_795_358_417.3
ERRORS = {"malformed": 400, "unknown_model": 404, "wrong_key": 401}


class VirtualApi:
    """Plays experiments.

    ``slow`` is by how much each stream that is served delays the next one's token, ``clock_offset_s`` the
    server's clock less ours, ``lost`` the share of answers that never arrive, ``most_tokens`` the greatest
    max_tokens that is no mistake.
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
        most_tokens: int = 1_000_000,
        others: Callable[[random.Random], int] = lambda _: 0,
        spoil: Callable[[int], tuple[int, str] | None] = lambda _: None,
    ) -> None:
        self.now_s = START_S
        self.limits = limits
        self.slots = limits.concurrency
        self.quotas = Quotas(limits.model_copy(update={"concurrency": None}))
        self.latency_s, self.jitter, self.ttft_s, self.itl_s = latency_s, jitter, ttft_s, itl_s
        self.early_headers, self.terse, self.slow = early_headers, terse, slow
        self.clock_offset_s, self.lost, self.most_tokens = clock_offset_s, lost, most_tokens
        self.others, self.spoil = others, spoil
        self._stage: str | None = None
        self.flights: list[VirtualRequest] = []
        self._in_use = 0
        self._line: deque[VirtualRequest] = deque()
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def attempts(self, first: int = 0) -> list[Attempt]:
        """Return the record of all requests from number ``first`` on; the run began at START_S."""
        return [flight.attempt(START_S) for flight in self.flights[first:]]

    def play(self, experiment: Experiment, name: str | None = None) -> list[ProbeResult]:
        """Run an experiment to its end and return what was seen in it."""
        first = len(self.flights)
        self._stage = None if name is None else STAGE_PREFIX + name
        try:
            step: Step = next(experiment)
            while True:
                self._do(step, first)
                step = experiment.send([flight.result() for flight in self.flights[first:]])
        except StopIteration:
            return [flight.result() for flight in self.flights[first:]]

    def _do(self, step: Step, first: int) -> None:
        if isinstance(step, CancelStep):
            running = [one for one in self.flights[first:] if one.end_s is None and one.begun_s is not None]
            everything = [one for one in self.flights[first:] if one.end_s is None]
            for flight in running[: step.count] if step.count else everything:
                self._cancel(flight)
            return
        self._until(max(self.now_s + step.after_s, step.at_s))
        self._send(step, first)

    def _send(self, step: SendStep, first: int) -> None:
        queue = deque(step.requests)
        mine: list[VirtualRequest] = (
            [] if step.requests else [one for one in self.flights[first:] if one.end_s is None]
        )
        give_up_s = self.now_s + step.timeout_s
        while True:
            pending = [one for one in mine if not one.reached(step.until)]
            if step.until_refused and any(one.decided_s and one.accepted is False for one in mine):
                queue.clear()
            while queue and len(pending) < step.max_in_flight:
                flight = self._launch(queue.popleft())
                mine.append(flight)
                pending.append(flight)
                give_up_s = self.now_s + step.timeout_s
            if not pending:
                return
            if not self._events or self._events[0][0] > give_up_s:
                self.now_s = give_up_s
                return
            self._next()

    def _until(self, at_s: float) -> None:
        while self._events and self._events[0][0] <= at_s:
            self._next()
        self.now_s = max(self.now_s, at_s)

    def _next(self) -> None:
        at_s, _, event = heapq.heappop(self._events)
        self.now_s = max(self.now_s, at_s)
        event()

    def _at(self, at_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._numbers), event))

    def _lag(self) -> float:
        return self.latency_s / 2 * self._rng.lognormvariate(0, self.jitter)

    def _launch(self, shot: ProbeRequest) -> VirtualRequest:
        prompt = shot.prompt_tokens + self._rng.randint(0, 2)
        flight = VirtualRequest(shot=shot, sent_s=self.now_s, prompt=prompt, stage=self._stage)
        self.flights.append(flight)
        self._at(self.now_s + self._lag(), lambda: self._arrive(flight))
        return flight

    def _arrive(self, flight: VirtualRequest) -> None:
        shot, limits = flight.shot, self.limits
        if flight.over:
            return
        spoilt = self.spoil(len(self.flights))
        if spoilt is not None and shot.kind == "chat":
            self._answer(flight, spoilt[0], spoilt[1], accepted=None)
            return
        quota = self.quotas.of("second" if shot.second_key else "first", shot.model or "a")
        clock_s = self.now_s + self.clock_offset_s
        for _ in range(self.others(self._rng)):
            quota.admit(clock_s, 10)
        if shot.kind in ERRORS or shot.kind == "models":
            status = ERRORS.get(shot.kind, 200)
            counts = status in limits.charged_errors or (
                "models" in limits.charged_endpoints and status == 200
            )
            refusal = quota.charge(clock_s) if counts else None
            if refusal is not None:
                self._refuse(flight, refusal)
            else:
                self._answer(flight, status, "", accepted=True if status == 200 else None)
            return
        if shot.max_tokens > self.most_tokens:
            self._answer(flight, 400, "invalid_max_tokens", accepted=None)
            return
        full = self.slots is not None and self._in_use >= self.slots
        if full and limits.concurrency_excess == "refused":
            self._answer(flight, limits.refusal_status, "concurrency_limit_exceeded", accepted=False)
            return
        verdict = quota.admit(clock_s, flight.prompt + shot.max_tokens)
        if isinstance(verdict, Refusal):
            self._refuse(flight, verdict)
            return
        flight.grant = verdict
        flight.headers = _text(verdict.headers)
        if self.early_headers and shot.stream:
            self._at(self.now_s + self._lag(), lambda: self._decide(flight))
        if full:
            self._line.append(flight)
        else:
            self._serve(flight)

    def _refuse(self, flight: VirtualRequest, refusal: Refusal) -> None:
        flight.headers = _text(refusal.error.headers)
        self._answer(flight, refusal.error.status, refusal.error.code or "", accepted=False)

    def _answer(self, flight: VirtualRequest, status: int, code: str, *, accepted: bool | None) -> None:
        def arrive() -> None:
            if not flight.over and not self._loses(flight):
                flight.status, flight.accepted = status, accepted
                flight.code = "" if self.terse else code
                flight.decided_s = flight.end_s = self.now_s
                flight.over = True

        self._at(self.now_s + self._lag(), arrive)

    def _loses(self, flight: VirtualRequest) -> bool:
        """Say whether an answer is lost: then its connection ends instead."""
        flight.lost = self.lost > 0 and not flight.shot.stream and self._rng.random() < self.lost
        if flight.lost:
            flight.decided_s = flight.end_s = self.now_s
            flight.over, flight.headers = True, {}
        return flight.lost

    def _decide(self, flight: VirtualRequest) -> None:
        if not flight.over and flight.decided_s is None:
            flight.decided_s, flight.status, flight.accepted = self.now_s, 200, True

    def _serve(self, flight: VirtualRequest) -> None:
        self._in_use += 1
        flight.served = True
        tokens = 1 if flight.shot.one_word else flight.shot.max_tokens
        began_s = self.now_s + self.ttft_s * (1 + self.slow * self._in_use)
        end_s = began_s + self.itl_s * (tokens - 1)

        def begin() -> None:
            if not flight.over:
                self._decide(flight)
                flight.begun_s = self.now_s

        def end() -> None:
            self._free(flight, tokens)
            self._at(self.now_s + self._lag(), arrive)

        def arrive() -> None:
            if not flight.over and not self._loses(flight):
                self._decide(flight)
                flight.end_s, flight.tokens, flight.over = self.now_s, tokens, True

        if flight.shot.stream:
            self._at(began_s + self._lag(), begin)
        self._at(end_s, end)

    def _free(self, flight: VirtualRequest, tokens: int) -> None:
        if not flight.served:
            return
        flight.served = False
        self._in_use -= 1
        if flight.grant is not None:
            flight.grant.settle(self.now_s + self.clock_offset_s, flight.prompt + tokens)
        if self._line:
            self._serve(self._line.popleft())

    def _cancel(self, flight: VirtualRequest) -> None:
        begun_s = flight.begun_s
        flight.tokens = 0 if begun_s is None else 1 + int((self.now_s - begun_s) / self.itl_s)
        flight.end_s, flight.cancelled, flight.over = self.now_s, True, True
        if flight in self._line:
            self._line.remove(flight)
        if not self.limits.cancelled_keeps_slot:
            self._at(self.now_s + self._lag(), lambda: self._free(flight, flight.tokens))


def _text(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


def virtual_limits(**changes: Any) -> SandboxLimits:
    """Limits of a virtual API: none, but for what ``changes`` names."""
    return SandboxLimits(**({"requests": None, "tokens": None, "concurrency": None} | changes))
