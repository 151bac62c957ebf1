"""The hands of the probe's experiments: send what a step asks for, hold streams open, go away from them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gevent
import msgspec
from gevent import GreenletExit
from locust.exception import StopUser
from pydantic import SecretStr

from bltybench.limits.observations.classify import Decision, classify, refusal_status
from bltybench.limits.observations.probe_result import ProbeResult, result_of
from bltybench.limits.probe.protocol import STAGE_PREFIX, CancelStep, Experiment, ProbeRequest, SendStep, Step
from bltybench.load.client import ChatClient
from bltybench.load.run.context import RunContext
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.scenario.prompts import prose, tokens
from bltybench.wire.sse.stream import StreamFold

T = TypeVar("T")

SHORT_PROMPT = "Hi"
SHORT_TOKENS = 32
"""Up to so many tokens the prompt is short, whatever was asked for."""
LONG_ANSWER = "Count from one to ten thousand in words, one number after the other, and do not stop."
FIRST_WORD = ["a", "e", "i", "o"]
"""Stop strings that hardly any word is without."""
NO_SUCH_MODEL = "bltybench-no-such-model"
NO_SUCH_KEY = SecretStr("sk-bltybench-no-such-key")
POLL_S = 0.004


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class ProbeStopped(Exception):  # noqa: N818 - an end, not always an error
    """The probe cannot go on; the message says why."""


@dataclass
class _Flight:
    """A request that was sent, and what is known of it."""

    shot: ProbeRequest
    client: ChatClient
    greenlet: gevent.Greenlet[..., Any] | None = None
    attempt: Attempt | None = None
    stopped: bool = False
    prompt: int = 0
    """Tokens of its prompt, by our count."""
    fold: StreamFold = field(default_factory=lambda: StreamFold(keep_text=False))
    folded: int = 0

    def begun_ns(self) -> int | None:
        """Return when the first token came, as far as the answer is here."""
        exchange = self.client.exchange
        if exchange is None or exchange.sent_ns is None or not exchange.is_event_stream:
            return None
        if exchange.fold is not None and exchange.fold.times:
            return exchange.fold.times[0]
        arrivals = exchange.arrivals
        while not self.fold.times and self.folded < len(arrivals):
            self.fold.take(exchange.pieces[self.folded], arrivals[self.folded])
            self.folded += 1
        return self.fold.times[0] if self.fold.times else None


class StepExecutor:
    """Plays experiments. What it sent is in ``attempts``, experiment by experiment."""

    def __init__(
        self, context: RunContext, earlier: Sequence[Attempt] = (), second_key: SecretStr | None = None
    ) -> None:
        """``earlier`` are the other attempts of the run. They show which status refuses."""
        self._earlier = earlier
        self._context = context
        self._second_key = second_key
        if second_key is not None:
            context.origin.secrets += (second_key.get_secret_value(),)
        self._idle: dict[str, list[ChatClient]] = {}
        self._flights: list[_Flight] = []
        self._rng = random.Random(context.scenario.seed)
        self._stage = ""
        self.sent = 0
        self.attempts: list[Attempt] = []
        self.tokens = 0
        """Prompts and answers together; what was not reported counts in full."""

    def play(self, name: str, experiment: Experiment, say: Any) -> list[ProbeResult]:
        """Play an experiment to its end; ``say`` is told what each step is for. Raises ProbeStopped."""
        self._stage = STAGE_PREFIX + name
        self._flights = []
        apart(prose.pool)  # counting it takes a second, once
        try:
            step = _next(experiment, None)
            while step is not None:
                self._do(step, say)
                step = _next(experiment, self.seen())
            return self.seen()
        except StopUser as end:
            raise ProbeStopped("the budget is spent, or the run was stopped") from end
        finally:
            self._drop(self._flights)

    def seen(self) -> list[ProbeResult]:
        """Return what was seen in this experiment so far."""
        start_s = self._context.clock.start_wall_ns / 1e9
        status = self._refusal_status()
        return [self._seen(flight, start_s, status) for flight in self._flights]

    def models(self) -> list[str]:
        """Return the names that the list of models holds; none where there is none."""
        self._stage = STAGE_PREFIX + "models"
        flight = self._launch(ProbeRequest(role="models", kind="models"))
        gevent.joinall([flight.greenlet])
        if flight.stopped:
            raise ProbeStopped("the budget is spent, or the run was stopped")
        return model_names(flight.client.body)

    def _do(self, step: Step, say: Any) -> None:
        if isinstance(step, CancelStep):
            running = [one for one in self._open() if one.begun_ns() is not None]
            self._drop(running[: step.count] if step.count else self._open())
            return
        now_s = self._now_s()
        at_s = max(now_s + step.after_s, step.at_s)
        say(step.purpose, at_s - now_s)
        start_s = self._context.clock.start_wall_ns / 1e9
        if not self._context.clock.wait_until(round((at_s - start_s) * 1e9)):
            raise ProbeStopped("the run's time was over")
        self._send(step)

    def _send(self, step: SendStep) -> None:
        queue = deque(step.requests)
        mine = [] if step.requests else self._open()
        give_up_s = self._now_s() + step.timeout_s
        while True:
            pending = [flight for flight in mine if not _reached(flight, step.until)]
            if any(flight.stopped for flight in mine):
                raise StopUser
            if step.until_refused and self._any_refused(mine):
                queue.clear()
            while queue and len(pending) < step.max_in_flight:
                flight = self._launch(queue.popleft())
                mine.append(flight)
                pending.append(flight)
                give_up_s = self._now_s() + step.timeout_s
            if not pending:
                return
            if self._now_s() >= give_up_s:
                return
            if self._context.clock.over.is_set():
                raise ProbeStopped("the run's time was over")
            if step.until == "ended":
                gevent.wait([flight.greenlet for flight in pending], timeout=0.25, count=1)
            else:
                gevent.sleep(POLL_S)

    def _refusal_status(self) -> int | None:
        return refusal_status([*self._earlier, *self.attempts])

    def _any_refused(self, flights: Sequence[_Flight]) -> bool:
        status = self._refusal_status()
        ended = [flight.attempt for flight in flights if flight.attempt is not None]
        return any(classify(attempt, status).refused for attempt in ended)

    def _launch(self, shot: ProbeRequest) -> _Flight:
        flight = _Flight(shot, self._client(shot))
        self._flights.append(flight)
        self.sent += 1
        flight.greenlet = gevent.spawn(self._run, flight)
        return flight

    def _client(self, shot: ProbeRequest) -> ChatClient:
        slot = "second" if shot.second_key else "wrong" if shot.kind == "wrong_key" else "own"
        idle = self._idle.setdefault(slot, [])
        if idle:
            return idle.pop()
        key = {"second": self._second_key, "wrong": NO_SUCH_KEY, "own": None}[slot]
        return ChatClient(self._context, key)

    def _run(self, flight: _Flight) -> None:
        shot, client = flight.shot, flight.client
        client.forget()
        try:
            if shot.kind == "models":
                client.list_models(name=shot.role, stage=self._stage)
            else:
                self._chat(flight)
        except GreenletExit:
            pass
        except StopUser:
            flight.stopped = True
        if client.last is not None:
            flight.attempt = client.last
            self.attempts.append(client.last)
            used = (client.last.prompt_tokens or 0) + (client.last.completion_tokens or 0)
            broken = client.last.outcome in {Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.TRANSPORT_ERROR}
            self.tokens += shot.max_total_tokens if broken else used
        slot = "second" if shot.second_key else "wrong" if shot.kind == "wrong_key" else "own"
        self._idle[slot].append(client)

    def _chat(self, flight: _Flight) -> None:
        shot, client = flight.shot, flight.client
        parameters: dict[str, Any] = {"stop": FIRST_WORD} if shot.one_word else {}
        messages = [] if shot.kind == "malformed" else self._messages(shot)
        # Longer ones are made of exactly so many tokens; counting them would hold up what is due.
        long = shot.kind == "chat" and shot.prompt_tokens > SHORT_TOKENS
        flight.prompt = shot.prompt_tokens if long else tokens.count_messages(messages)
        client.chat(
            messages,
            stream=shot.stream,
            max_tokens=shot.max_tokens,
            model=NO_SUCH_MODEL if shot.kind == "unknown_model" else shot.model,
            name=shot.role,
            stage=self._stage,
            keep_text=False,
            prompt_tokens=flight.prompt,
            **parameters,
        )

    def _messages(self, shot: ProbeRequest) -> list[dict[str, str]]:
        if shot.prompt_tokens > SHORT_TOKENS:
            text = prose.text_of(shot.prompt_tokens - 4, 1, self._rng)
        else:
            text = LONG_ANSWER if shot.stream else SHORT_PROMPT
        return [{"role": "user", "content": text}]

    def _open(self) -> list[_Flight]:
        return [flight for flight in self._flights if flight.attempt is None and not flight.stopped]

    def _drop(self, flights: Sequence[_Flight]) -> None:
        gevent.killall([flight.greenlet for flight in flights if flight.greenlet is not None])

    def _now_s(self) -> float:
        return (self._context.clock.start_wall_ns + self._context.clock.now_ns()) / 1e9

    def _seen(self, flight: _Flight, start_s: float, status: int | None) -> ProbeResult:
        if flight.attempt is not None:
            return result_of(flight.attempt, start_s, status)
        exchange, shot = flight.client.exchange, flight.shot

        def at(ns: int | None) -> float | None:
            return None if ns is None else start_s + (ns - self._context.clock.start_ns) / 1e9

        head = None if exchange is None else exchange.status
        ok = head is not None and 200 <= head < 300
        return ProbeResult(
            role=shot.role,
            sent_s=at(None if exchange is None else exchange.sent_ns) or self._now_s(),
            decided_s=at(exchange.headers_ns) if exchange is not None and ok else None,
            begun_s=at(flight.begun_ns()),
            decision=Decision.ACCEPTED if ok else None,
            status=head,
            prompt_tokens=flight.prompt,
            max_tokens=shot.max_tokens,
        )


def model_names(body: bytes) -> list[str]:
    """Return the ids in an answer of /v1/models; none where it is something else."""
    try:
        data = msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, msgspec.ValidationError):
        return []
    return [each.id for each in data]


def _next(experiment: Experiment, seen: Sequence[ProbeResult] | None) -> Step | None:
    """Return the next step, None after the last, outside the event loop: some take a while to think of."""

    def advance() -> Step | None:
        try:
            return next(experiment) if seen is None else experiment.send(seen)
        except StopIteration:
            return None

    return apart(advance)


def apart(work: Callable[[], T]) -> T:
    """Do work that takes a while outside the event loop."""
    done: T = gevent.get_hub().threadpool.apply(work)
    return done


def _reached(flight: _Flight, until: str) -> bool:
    if flight.attempt is not None or flight.stopped:
        return True
    exchange = flight.client.exchange
    if until == "decided":
        # An error's head says only half of it: wait for its end.
        return exchange is not None and exchange.headers_ns is not None and exchange.status == 200
    return until == "begun" and flight.begun_ns() is not None
