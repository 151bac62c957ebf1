"""Locust users: ``ChatUser`` for your own locustfiles, ``ScenarioUser`` to replay a scenario."""

from contextlib import suppress
from importlib import import_module
from typing import ClassVar, NoReturn

from gevent import Greenlet
from gevent.pool import Group
from locust import task
from locust.env import Environment
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from bltybench.errors import UserError
from bltybench.load.client import ChatClient
from bltybench.load.locust_plugin.plugin import PLUGIN
from bltybench.load.locust_plugin.user_classes import RecordedUser, uses_name
from bltybench.load.run.context import RunContext
from bltybench.scenario.arrivals.arrivals import Arrival
from bltybench.scenario.prompts.compose import Prepared


class ChatUser(RecordedUser):
    """A user whose ``self.client.chat(messages, stream=True, …)`` is timed, recorded, and reported.

    Write tasks as for any Locust user. Locust's options and ``wait_time`` decide how many users there are
    and how fast they call. A scenario, if one is named, sets target, model, users, duration, retry policy,
    and checks.
    """

    abstract = True

    def __init_subclass__(cls) -> None:
        """Import the openai package now if the class uses it, because that would stall the run."""
        super().__init_subclass__()
        if uses_name(cls, ChatClient.as_openai.__name__):
            with suppress(UserError):  # shown when it is used
                import_module("bltybench.load.openai_sdk")

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._run_context = PLUGIN.context
        self._client = ChatClient(self._run_context) if self._run_context else None

    @property
    def run_context(self) -> RunContext:
        """This process's part in the run. Raises StopUser if the run could not start."""
        if self._run_context is None:
            raise StopUser
        return self._run_context

    @property
    def client(self) -> ChatClient:
        """The user's client. Raises StopUser if the run could not start."""
        if self._client is None:
            raise StopUser
        return self._client

    def stop(self, force: bool = False) -> bool:
        """Stop the user. One that is already stopping is left alone, because Locust would raise."""
        if not force and self._state == LOCUST_STATE_STOPPING:
            return False
        return bool(super().stop(force))

    def start(self, group: Group) -> Greenlet:
        """Start the user, and close its connection when it has ended."""
        greenlet = super().start(group)
        if self._client is not None:
            # Not in on_stop: a subclass that overrides it need not call ours.
            client = self._client
            greenlet.link(lambda _: client.close())
        return greenlet


class ScenarioUser(ChatUser):
    """Replays the mix of the scenario at the times of its arrivals.

    In an open loop, an idle user claims the next arrival and sleeps until it is due. If all users are busy
    then, the request is sent late, and its delay is recorded.
    """

    abstract = True

    replays = True
    stream: ClassVar[bool | None] = None
    """Whether to stream every call; None leaves that to the mix."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._arrival: Arrival | None = None

    def start(self, group: Group) -> Greenlet:
        """Start the user. If it is stopped, the calls that wait for its own continue."""
        greenlet = super().start(group)
        greenlet.link(lambda _: self._end_call())
        return greenlet

    def wait_time(self) -> float:
        """Return the think time, or the seconds until the next call is due."""
        context = self.run_context
        self._end_call()
        think_s = context.source.think_s
        if think_s is not None:
            return think_s
        self._arrival = context.source.next_arrival()
        if self._arrival is None:
            self._idle_until_end()
        return max(0.0, self._arrival.at_s - context.clock.now_s())

    @task
    def play(self) -> None:
        """Send the call that is due, and the turns that follow if it starts a conversation."""
        context = self.run_context
        source, arrival = context.source, self._arrival
        if source.think_s is not None:
            if not source.wait_for_place(self.client.user):
                self._idle_until_end()
            # Before composing, which takes time: the next step may not include this user.
            stage, due_ns = source.stage_now(), None
        elif arrival is not None:
            stage, due_ns = arrival.stage, round(arrival.at_s * 1e9)
        else:
            # The first task of an open-loop user runs before it has claimed an arrival.
            return
        prepared = self._prepared(arrival)
        stream = prepared.call.stream if self.stream is None else self.stream
        if prepared.call.turns is not None:
            if prepared.after is not None and source.sessions.wait(prepared.after):
                due_ns = context.clock.now_ns()
            self._converse(prepared, stream, prepared.call.turns.think_s, due_ns)
            return
        try:
            self.client.replay(prepared, stream=stream, due_ns=due_ns, stage=stage)
        finally:
            if context.trial_worker is not None:
                context.trial_worker.call_ended()

    def _prepared(self, arrival: Arrival | None) -> Prepared:
        """Return the request to send. End the run if it is in an invalid line, of which the file has more.

        The first part of a large file is validated in advance, the rest here.
        """
        source = self.run_context.source
        try:
            if arrival is None:
                return source.next_prepared()
            return source.composer.prepare(arrival.index, arrival)
        except UserError as error:
            self.run_context.abort(error)

    def _converse(self, prepared: Prepared, stream: bool, think_s: float, due_ns: int | None) -> None:
        """Send one turn after another until one fails after its retries, or the run is over."""
        context = self.run_context
        # In a closed loop, each turn counts in the step in which it is sent.
        stage = self._arrival.stage if self._arrival else None
        for turn in range(1, prepared.turns + 1):
            reply = self.client.chat(
                prepared.messages,
                stream=stream,
                max_tokens=prepared.max_tokens,
                name=prepared.call.name,
                due_ns=due_ns,
                prompt_tokens=prepared.prompt_tokens,
                stage=stage,
                turn=turn,
                temperature=prepared.temperature,
                options=prepared.call,
                index=prepared.index,
            )
            if not reply.ok or turn == prepared.turns:
                return
            due_ns = context.clock.now_ns() + round(think_s * 1e9)
            if not context.clock.wait_until(due_ns):
                return
            prepared = context.source.composer.next_turn(prepared, turn + 1, reply.text or "")

    def _end_call(self) -> None:
        """Mark the claimed arrival as ended."""
        if self._arrival is not None and self._arrival.session is not None:
            self.run_context.source.sessions.end(self._arrival.index)

    def _idle_until_end(self) -> NoReturn:
        self.run_context.clock.stopping.wait()
        raise StopUser
