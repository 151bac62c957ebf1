"""``self.client`` of a user: chat calls that are timed, recorded, and retried as the scenario says."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from gevent import GreenletExit
from locust import log
from locust.exception import (
    InterruptTaskSet,
    RescheduleTask,
    RescheduleTaskImmediately,
    StopTest,
    StopUser,
)
from pydantic import SecretStr

from bltybench import __version__
from bltybench.load.recorder import CallContext, SentAttempt, record
from bltybench.load.reply import Reply, reply_of
from bltybench.load.retry import wait_before_retry_s
from bltybench.load.run.budget import NOTHING, Spend
from bltybench.load.run.context import Session
from bltybench.runs.attempt import Attempt
from bltybench.scenario.prompts import tokens
from bltybench.scenario.prompts.compose import Prepared
from bltybench.wire.exchange import Exchange
from bltybench.wire.result import ExchangeResult

logger = logging.getLogger("bltybench")

MODELS = "/models"
FOR_THE_USER = (StopUser, StopTest, RescheduleTask, RescheduleTaskImmediately, InterruptTaskSet)
"""What Locust lets a listener of its events say to the user whose call it was."""


class ChatClient:
    """Makes chat calls for one user. Not shared between greenlets."""

    def __init__(self, session: Session, user: int, key: SecretStr | None = None) -> None:
        """``key`` stands in for the target's."""
        self._session = session
        self.user = user
        """Its number, unique in the run."""
        self._connection = session.connection()
        self._rng = random.Random(f"{session.scenario.seed}/retry/{user}")
        headers = [
            ("Content-Type", "application/json"),
            ("User-Agent", f"bltybench/{__version__}"),
        ]
        key = key or session.key
        if key is not None:
            headers.append(("Authorization", f"Bearer {key.get_secret_value()}"))
        self._stream_headers = (*headers, ("Accept", "text/event-stream"))
        self._plain_headers = (*headers, ("Accept", "application/json"))
        self.exchange: Exchange | None = None
        """What is under way, or was last."""
        self.last: Attempt | None = None
        """What was stored last."""
        self.body = b""
        """The last list of models."""
        self._raised: Exception | None = None
        """What is the user's to obey at its next call."""

    def chat(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        stream: bool = False,
        max_tokens: int | None = None,
        model: str | None = None,
        name: str | None = None,
        keep_text: bool = True,
        due_ns: int | None = None,
        prompt_tokens: int | None = None,
        stage: str | None = None,
        turn: int | None = None,
        temperature: float | None = None,
        **parameters: Any,
    ) -> Reply:
        """Send a chat completion and return what became of it; the scenario's retry policy applies.

        ``name`` is the row it counts in (default: chat or stream). ``due_ns`` is when the call was wanted, on
        the run's axis (default: now). ``prompt_tokens`` is used where the server reports no usage. ``stage``
        and ``turn`` (of a conversation, from 1) go into the record. ``parameters`` go into the request body
        as they are. Never raises for what server or network do: look at ``ok``, ``outcome`` and ``error`` of
        the reply. Raises UserError where the budget cannot be kept: a cap on tokens or money and no
        ``max_tokens``, or a cap on money and a model without a price.
        """
        call, reserved = self._compose(
            messages,
            stream=stream,
            max_tokens=max_tokens,
            model=model,
            name=name,
            keep_text=keep_text,
            prompt_tokens=prompt_tokens,
            stage=stage,
            turn=turn,
            temperature=temperature,
            **parameters,
        )
        self._session.wait_until(0)  # the run begins for all users at the same moment
        return self._call(call, reserved, due_ns)

    def replay(
        self, prepared: Prepared, *, stream: bool, due_ns: int | None = None, stage: str | None = None
    ) -> None:
        """Send a call of the scenario as ``chat`` does, whose reply nobody looks at.

        Where nothing hangs on what became of it, it is read and recorded later, with others. What a listener
        of Locust's request event then has to say to the user (StopUser, for one) is raised by the next call.
        """
        session = self._session
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        call, reserved = self._compose(
            prepared.messages,
            stream=stream,
            max_tokens=prepared.max_tokens,
            name=prepared.call.name,
            keep_text=False,
            prompt_tokens=prepared.prompt_tokens,
            stage=stage,
            temperature=prepared.call.temperature,
        )
        session.wait_until(0)
        if session.outcomes_matter or session.later.full:
            self._call(call, reserved, due_ns)
            return
        self._take(reserved, scheduled=due_ns is not None)
        trial = self._attempt(call, 0, session.now_ns() if due_ns is None else due_ns, awaited=False)
        session.later.add(trial.exchange, partial(self._record_later, trial))

    def _record_later(self, trial: SentAttempt, reading: ExchangeResult) -> None:
        try:
            record(self._session, trial, reading, None)
        except FOR_THE_USER as raised:
            self._raised = raised
        except Exception:
            # As Locust does with what a task raises: it is said, and decides the exit code.
            logger.exception("An attempt could not be recorded")
            log.unhandled_greenlet_exception = True

    def _compose(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        stream: bool,
        max_tokens: int | None,
        model: str | None = None,
        name: str | None,
        keep_text: bool,
        prompt_tokens: int | None,
        stage: str | None,
        turn: int | None = None,
        temperature: float | None,
        **parameters: Any,
    ) -> tuple[CallContext, Spend]:
        """Return a call, and the most that an attempt of it can cost."""
        session = self._session
        body: dict[str, Any] = {"model": model or session.scenario.model, "messages": list(messages)}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if temperature is not None:
            body["temperature"] = temperature
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        purse = session.purse
        if prompt_tokens is None and purse.counts_tokens:
            prompt_tokens = tokens.count_messages(messages)
        reserved = purse.cost(body["model"], prompt_tokens, max_tokens)
        call = CallContext(
            call_id=session.next_call_id(),
            name=name or ("stream" if stream else "chat"),
            body=msgspec.json.encode(body | parameters),
            stream=stream,
            model=body["model"],
            max_tokens=max_tokens,
            prompt_tokens=prompt_tokens,
            keep_text=keep_text,
            stage=stage or session.stage_now(),
            turn=turn,
        )
        return call, reserved

    def list_models(self, *, name: str = "models", stage: str | None = None) -> Reply:
        """Ask for the list of models, as a call like any other; the answer is then in ``body``."""
        session = self._session
        call = CallContext(
            call_id=session.next_call_id(),
            name=name,
            body=b"",
            stream=False,
            model=session.scenario.model,
            max_tokens=None,
            prompt_tokens=None,
            keep_text=False,
            stage=stage or session.stage_now(),
            method="GET",
            endpoint=MODELS,
        )
        session.wait_until(0)
        return self._call(call, NOTHING, None)

    def _call(self, call: CallContext, reserved: Spend, scheduled_ns: int | None) -> Reply:
        session = self._session
        scheduled = scheduled_ns is not None
        first_due_ns = session.now_ns() if scheduled_ns is None else scheduled_ns
        due_ns, number = first_due_ns, 0
        while True:
            self._take(reserved, scheduled=scheduled)
            trial = self._attempt(call, number, due_ns)
            reading = session.reader.read_now(trial.exchange)
            session.purse.give_back(reserved - self._spent(call, reserved, trial, reading))
            wait_s = wait_before_retry_s(
                session.scenario.retry, number, reading.outcome, reading.quota.retry_after_s, self._rng
            )
            if session.over.is_set():
                wait_s = None
            attempt = self.last = record(session, trial, reading, wait_s)
            if wait_s is None:
                return reply_of(attempt, reading, number + 1, first_due_ns)
            due_ns, number = session.now_ns() + round(wait_s * 1e9), number + 1
            if not session.wait_until(due_ns):
                return reply_of(attempt, reading, number, first_due_ns)

    def _take(self, reserved: Spend, *, scheduled: bool) -> None:
        """Put aside what an attempt may cost. Raises StopUser where there is no more to be sent."""
        session = self._session
        # An arrival that was due in time is sent however late it is; without a schedule, none was due.
        ended = session.stopping if scheduled else session.over
        if ended.is_set() or not session.purse.take(reserved):
            # Nothing was sent, so there is nothing to record; the user has no more to do in this run.
            raise StopUser

    def _attempt(self, call: CallContext, number: int, due_ns: int, *, awaited: bool = True) -> SentAttempt:
        session = self._session
        exchange = Exchange(stream=call.stream, keep_text=call.keep_text, awaited=awaited)
        self.exchange = exchange
        session.open_calls += 1
        trial = SentAttempt(call, self.user, number, due_ns, session.in_flight, exchange)
        session.audit.sent((session.now_ns() - due_ns) // 1000)
        try:
            headers = self._stream_headers if call.stream else self._plain_headers
            self._connection.send(call.method, call.endpoint, headers, call.body, exchange)
            if call.endpoint == MODELS:
                self.body = b"".join(exchange.pieces)
            if awaited:
                session.reader.read(exchange)
        except GreenletExit:
            # The run was stopped with this attempt in the air: it happened, so it is recorded.
            self.last = record(session, trial, session.reader.read_now(exchange), None)
            raise
        else:
            return trial
        finally:
            session.open_calls -= 1

    def _spent(
        self, call: CallContext, reserved: Spend, trial: SentAttempt, reading: ExchangeResult
    ) -> Spend:
        """Return what an attempt cost, as far as the server said; what it did not say counts in full.

        An answer that was refused, or an error in place of one, costs nothing. One that broke off may.
        """
        if reading.prompt_tokens is not None or reading.completion_tokens is not None:
            return self._session.purse.cost(call.model, reading.prompt_tokens, reading.completion_tokens or 0)
        never_sent = trial.exchange.sent_ns is None
        refused = reading.status is not None and not 200 <= reading.status < 300
        return NOTHING if never_sent or refused else reserved

    def forget(self) -> None:
        """Forget what was sent last."""
        self.exchange = self.last = None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
