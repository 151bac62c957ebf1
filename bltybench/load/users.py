"""Users: ``ChatUser`` for locustfiles of your own, ``ScenarioUser`` to replay a scenario."""

from __future__ import annotations

from typing import ClassVar

from locust import User, task
from locust.env import Environment
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from bltybench.load.client import ChatClient
from bltybench.load.locust_plugin.plugin import current_session
from bltybench.load.reply import Reply
from bltybench.load.run.context import Session
from bltybench.scenario.arrivals.arrivals import Arrival
from bltybench.scenario.prompts.compose import Prepared


class ChatUser(User):
    """A user whose ``self.client.chat(messages, stream=True, …)`` is timed, recorded and reported.

    Write tasks as for any Locust user. Target, model, duration, users and retry policy come from the
    scenario.
    """

    abstract = True

    scenario: ClassVar[str | None] = None
    """The scenario of scenarios.toml that a locustfile stands for where ``--scenario`` names no other."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._session = current_session()
        self._client = ChatClient(self._session, self._session.next_user()) if self._session else None

    @property
    def session(self) -> Session:
        """This process's part in the run. A run that could not begin, which was said, ends its users."""
        if self._session is None:
            raise StopUser
        return self._session

    @property
    def client(self) -> ChatClient:
        """Makes the calls of this user."""
        if self._client is None:
            raise StopUser
        return self._client

    def stop(self, force: bool = False) -> bool:
        """Stop the user; one that has begun to end by itself is left to it, where Locust would raise."""
        if not force and self._state == LOCUST_STATE_STOPPING:
            return False
        return bool(super().stop(force))

    def on_stop(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()


class ScenarioUser(ChatUser):
    """Replays the mix of the scenario at the times that its arrivals say.

    In an open loop a user that is free claims the next arrival of the schedule and sleeps until it is due; if
    all users are busy then, the arrival is sent late, and how late is recorded.
    """

    abstract = True

    replays: ClassVar[bool] = True
    """It sends what the scenario says, so what it will spend is known beforehand."""
    stream: ClassVar[bool | None] = None
    """Make every call of the mix a stream (True) or plain (False); None leaves them as the mix says."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._arrival: Arrival | None = None

    def wait_time(self) -> float:
        """Return the seconds until the next call: the think time, or the time until it is due."""
        session = self.session
        think_s = session.think_s
        if think_s is not None:
            return think_s
        self._arrival = session.next_arrival()
        if self._arrival is None:
            # Nothing is left to send: sleep until the run ends.
            session.stopping.wait()
            raise StopUser
        return max(0.0, self._arrival.at_s - session.now_ns() / 1e9)

    @task
    def play(self) -> None:
        """Send the call that is due, and the turns that follow where it begins a conversation."""
        session = self.session
        stage: str | None = None
        placed: str | None = None
        if session.think_s is not None:
            if not session.wait_for_place(self.client.user):
                session.stopping.wait()
                raise StopUser
            placed = session.stage_now()  # composing takes a while, and the next step may not have this place
            prepared, due_ns = session.next_prepared(), None
        elif self._arrival is not None:
            prepared, due_ns = session.prepare(self._arrival), round(self._arrival.at_s * 1e9)
            stage = self._arrival.stage
        else:
            # The first task of an open-loop user comes before it has claimed an arrival.
            return
        if prepared.call.turns is None:
            try:
                streams = self._streams(prepared)
                self.client.replay(prepared, stream=streams, due_ns=due_ns, stage=stage or placed)
            finally:
                if session.part is not None:
                    session.part.call_ended()
        else:
            self._converse(prepared, prepared.call.turns.think_s, due_ns, stage)

    def _converse(self, prepared: Prepared, think_s: float, due_ns: int | None, stage: str | None) -> None:
        """Send one turn after another, until one fails in the end or the run is over."""
        session = self.session
        for turn in range(1, prepared.turns + 1):
            reply = self._say(prepared, due_ns, stage, turn)
            if not reply.ok or turn == prepared.turns:
                return
            due_ns = session.now_ns() + round(think_s * 1e9)
            if not session.wait_until(due_ns):
                return
            prepared = session.composer.next_turn(prepared, turn + 1, reply.text or "")

    def _say(self, prepared: Prepared, due_ns: int | None, stage: str | None, turn: int) -> Reply:
        return self.client.chat(
            prepared.messages,
            stream=self._streams(prepared),
            max_tokens=prepared.max_tokens,
            name=prepared.call.name,
            due_ns=due_ns,
            prompt_tokens=prepared.prompt_tokens,
            stage=stage,
            turn=turn,
            temperature=prepared.call.temperature,
        )

    def _streams(self, prepared: Prepared) -> bool:
        return prepared.call.stream if self.stream is None else self.stream
