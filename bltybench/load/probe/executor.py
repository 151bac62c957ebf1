"""Send the requests of the probe's experiments, hold streams open, and cancel them."""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import gevent
import msgspec
from gevent import GreenletExit
from locust.exception import StopUser
from pydantic import SecretStr

from bltybench.limits.observations.classify import Decision, classify, refusal_statuses
from bltybench.limits.observations.probe_result import ProbeResult, result_of
from bltybench.limits.probe.protocol import STAGE_PREFIX, CancelStep, Experiment, ProbeRequest, SendStep, Step
from bltybench.load.client import ChatClient
from bltybench.load.probe.sent_probe import SentProbe
from bltybench.load.recorder import describe
from bltybench.load.run.context import RunContext
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.scenario.prompts import prose, tokens

T = TypeVar("T")
Yielded = TypeVar("Yielded")
Sent = TypeVar("Sent")
Returned = TypeVar("Returned")
Progress = Callable[[str, float], None]
"""Reports the purpose of the next step, and the seconds until it starts."""

SHORT_PROMPT = "Hi"
LONG_COMPLETION_PROMPT = (
    "Count from one to ten thousand in words, one number after the other, and do not stop."
)
MAX_SHORT_TOKENS = 32
"""Prompts of up to this many tokens are one of the two above, whatever size was requested."""
MESSAGE_TOKENS = 4
"""Tokens that a message costs besides its text."""
STOP_STRINGS = ["a", "e", "i", "o"]
"""End a completion with its first word: hardly any word contains none of them."""
UNKNOWN_MODEL = "bltybench-no-such-model"
WRONG_KEY = SecretStr("sk-bltybench-no-such-key")
POLL_S = 0.004
"""Interval between two checks of responses that have not ended, in seconds."""
END_CHECK_S = 0.25
"""Maximum interval between two checks if only the end of a response counts, in seconds."""
UNPAID = "the server reports an unpaid bill"


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class ProbeStopped(Exception):  # noqa: N818 - not always an error
    """The probe cannot continue. The message is the reason."""


def why_stopped(context: RunContext) -> str:
    """Return why the run sends nothing more."""
    if context.budget_exhausted:
        return "the budget is exhausted"
    return "it was interrupted" if context.clock.stopping.is_set() else "the run's time is over"


class StepExecutor:
    """Runs experiments, one after the other."""

    def __init__(
        self, context: RunContext, earlier: Sequence[Attempt] = (), second_key: SecretStr | None = None
    ) -> None:
        """Create an executor. ``earlier`` are the run's other attempts, which show its refusal status."""
        self._context = context
        self._earlier = earlier
        self._second_key = second_key
        if second_key is not None:
            context.upstream.origin.secrets += (second_key.get_secret_value(),)
        self._idle: defaultdict[SecretStr | None, list[ChatClient]] = defaultdict(list)
        """Clients without a request in flight, by key."""
        self._requests: list[SentProbe] = []
        """Requests of the current experiment."""
        self._rng = random.Random(context.scenario.seed)
        self._stage = ""
        self._unpaid: str | None = None
        """The server's words, if it reports an unpaid bill."""
        self.sent = 0
        """Requests of all experiments."""
        self.tokens = 0
        """Tokens of all experiments. Unreported usage counts as the maximum."""
        self.attempts: list[Attempt] = []
        """Attempts of all experiments."""

    def play(self, name: str, experiment: Experiment, progress: Progress) -> list[ProbeResult]:
        """Run an experiment to its end and return its results. Raises ProbeStopped."""
        self._stage = STAGE_PREFIX + name
        self._requests = []
        run_in_thread(prose.pool)  # counting its tokens takes a second, once
        try:
            step = run_in_thread(lambda: next(experiment, None))
            while step is not None:
                self._execute(step, progress)
                step = send_in_thread(experiment, self._results())
            return self._results()
        except StopUser as end:
            raise ProbeStopped(why_stopped(self._context)) from end
        finally:
            _cancel(self._requests)

    def list_models(self) -> list[str]:
        """Return the ids of the listed models; an empty list if the response is not such a list."""
        self._stage = STAGE_PREFIX + "models"
        sent = self._launch(ProbeRequest(role="models", kind="models"))
        gevent.joinall([sent.greenlet])
        if sent.stopped:
            raise ProbeStopped(why_stopped(self._context))
        try:
            return [model.id for model in msgspec.json.decode(sent.client.body, type=_Models).data]
        except ValueError:
            return []

    def _execute(self, step: Step, progress: Progress) -> None:
        if isinstance(step, CancelStep):
            in_flight = self._in_flight()
            begun = [sent for sent in in_flight if sent.begun_ns() is not None]
            _cancel(begun[: step.count] if step.count else in_flight)
            return
        now_s = self._now_s()
        at_s = max(now_s + step.after_s, step.at_s)
        progress(step.purpose, at_s - now_s)
        if not self._context.clock.wait_until(round((at_s - self._start_s) * 1e9)):
            raise ProbeStopped(why_stopped(self._context))
        self._send(step)

    def _send(self, step: SendStep) -> None:
        queue = deque(step.requests)
        awaited = [] if step.requests else self._in_flight()
        timeout_s = self._now_s() + step.timeout_s
        while True:
            pending = [sent for sent in awaited if not sent.reached(step.until)]
            if any(sent.stopped for sent in awaited):
                raise StopUser
            if self._unpaid is not None:
                raise ProbeStopped(f"{UNPAID}: {self._unpaid}")
            if step.until_refused and self._any_refused(awaited):
                queue.clear()
            while queue and len(pending) < step.max_in_flight:
                sent = self._launch(queue.popleft())
                awaited.append(sent)
                pending.append(sent)
                timeout_s = self._now_s() + step.timeout_s
            if not pending or self._now_s() >= timeout_s:
                return
            if self._context.clock.over.is_set():
                raise ProbeStopped(why_stopped(self._context))
            if step.until == "ended":
                gevent.wait([sent.greenlet for sent in pending], timeout=END_CHECK_S, count=1)
            else:
                gevent.sleep(POLL_S)

    def _launch(self, request: ProbeRequest) -> SentProbe:
        key = self._key(request)
        idle = self._idle[key]
        sent = SentProbe(request, idle.pop() if idle else ChatClient(self._context, key))
        self._requests.append(sent)
        self.sent += 1
        sent.greenlet = gevent.spawn(self._run, sent)
        return sent

    def _run(self, sent: SentProbe) -> None:
        request, client = sent.request, sent.client
        client.forget()
        try:
            if request.kind == "models":
                client.list_models(request.role, self._stage)
            else:
                self._chat(sent)
        except GreenletExit:
            pass
        except StopUser:
            sent.stopped = True
        attempt = client.last
        if attempt is not None:
            sent.attempt = attempt
            self.attempts.append(attempt)
            if classify(attempt) is Decision.BILLING and self._key(request) is None:
                self._unpaid = attempt.error_message or describe(attempt)
            if attempt.outcome in {Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.TRANSPORT_ERROR}:
                self.tokens += request.max_total_tokens
            else:
                self.tokens += (attempt.prompt_tokens or 0) + (attempt.completion_tokens or 0)
        self._idle[self._key(request)].append(client)

    def _key(self, request: ProbeRequest) -> SecretStr | None:
        """Return the key to use instead of the target's own."""
        if request.second_key:
            return self._second_key
        return WRONG_KEY if request.kind == "wrong_key" else None

    def _chat(self, sent: SentProbe) -> None:
        request = sent.request
        content = LONG_COMPLETION_PROMPT if request.stream else SHORT_PROMPT
        composed = request.prompt_tokens > MAX_SHORT_TOKENS
        if composed:
            content = prose.text_of(request.prompt_tokens - MESSAGE_TOKENS, 1, self._rng)
        messages = [] if request.kind == "malformed" else [{"role": "user", "content": content}]
        # A composed prompt has exactly the requested size. Counting it again would delay the next request.
        exact = composed and request.kind == "chat"
        sent.prompt_tokens = request.prompt_tokens if exact else tokens.count_messages(messages)
        parameters: dict[str, Any] = {"stop": STOP_STRINGS} if request.one_word else {}
        sent.client.chat(
            messages,
            stream=request.stream,
            max_tokens=request.max_tokens,
            model=UNKNOWN_MODEL if request.kind == "unknown_model" else request.model,
            name=request.role,
            stage=self._stage,
            keep_text=False,
            prompt_tokens=sent.prompt_tokens,
            **parameters,
        )

    def _in_flight(self) -> list[SentProbe]:
        return [sent for sent in self._requests if sent.attempt is None and not sent.stopped]

    def _any_refused(self, requests: Sequence[SentProbe]) -> bool:
        statuses = self._refusal_statuses()
        return any(sent.attempt and classify(sent.attempt, statuses).refused for sent in requests)

    def _refusal_statuses(self) -> dict[int, int]:
        return refusal_statuses([*self._earlier, *self.attempts])

    @property
    def _start_s(self) -> float:
        return self._context.clock.start_wall_ns / 1e9

    def _now_s(self) -> float:
        return self._start_s + self._context.clock.now_s()

    def _results(self) -> list[ProbeResult]:
        statuses = self._refusal_statuses()
        return [
            result_of(sent.attempt, self._start_s, statuses) if sent.attempt else self._partial_result(sent)
            for sent in self._requests
        ]

    def _partial_result(self, sent: SentProbe) -> ProbeResult:
        """Return the result of a request that has not ended."""
        start_ns, exchange = self._context.clock.start_ns, sent.client.exchange

        def at(monotonic_ns: int | None) -> float | None:
            return None if monotonic_ns is None else self._start_s + (monotonic_ns - start_ns) / 1e9

        status = None if exchange is None else exchange.status
        accepted = status is not None and 200 <= status < 300
        return ProbeResult(
            role=sent.request.role,
            sent_s=at(None if exchange is None else exchange.sent_ns) or self._now_s(),
            decided_s=at(exchange.headers_ns) if exchange is not None and accepted else None,
            begun_s=at(sent.begun_ns()),
            decision=Decision.ACCEPTED if accepted else None,
            status=status,
            prompt_tokens=sent.prompt_tokens,
            max_tokens=sent.request.max_tokens,
        )


def run_in_thread(work: Callable[[], T]) -> T:
    """Run slow work outside the event loop."""
    done: T = gevent.get_hub().threadpool.apply(work)
    return done


def send_in_thread(generator: Generator[Yielded, Sent, Returned], value: Sent) -> Yielded | Returned:
    """Send a value to a generator. Return what it yields, or returns. Some take a while to compute it."""

    def advance() -> Yielded | Returned:
        try:
            return generator.send(value)
        except StopIteration as end:
            returned: Returned = end.value
            return returned

    return run_in_thread(advance)


def _cancel(requests: Sequence[SentProbe]) -> None:
    gevent.killall([sent.greenlet for sent in requests if sent.greenlet is not None])
