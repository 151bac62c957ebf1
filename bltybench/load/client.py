"""A user's ``self.client``: chat calls that are timed, recorded, and retried as the scenario says."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from gevent import GreenletExit
from locust import log
from locust.exception import InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopTest, StopUser
from pydantic import SecretStr

from bltybench import __version__
from bltybench.errors import UserError
from bltybench.load.forwarded_request import ForwardedRequest
from bltybench.load.held_call import hold
from bltybench.load.recorder import ENDPOINT, CallContext, SentAttempt, record, spent
from bltybench.load.reply import Reply, reply_of
from bltybench.load.retry import EndedAttempt, wait_before_retry_s
from bltybench.load.run.context import RunContext
from bltybench.policies.retries import Retries
from bltybench.runs.attempt import Attempt
from bltybench.scenario.api.request_options import (
    RequestOptions,
    choices,
    max_completion_tokens,
    request_body,
)
from bltybench.scenario.prompts import tokens
from bltybench.scenario.prompts.compose import Prepared
from bltybench.scenario.retry import Retry
from bltybench.wire.answer_check import expected_answer
from bltybench.wire.exchange import Exchange
from bltybench.wire.http.connection import Connection
from bltybench.wire.result import ExchangeResult

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger("bltybench")

MODELS = "/models"
NO_RETRIES = Retries(Retry())
USER_CONTROL = (StopUser, StopTest, RescheduleTask, RescheduleTaskImmediately, InterruptTaskSet)
"""Exceptions that a Locust event listener can raise to control the calling user."""


class ChatClient:
    """Chat calls of one user. Not shared between greenlets."""

    def __init__(self, context: RunContext, key: SecretStr | None = None) -> None:
        """Create a client. ``key`` replaces the target's key."""
        self._context = context
        self._clock = context.clock
        self._sink = context.sink
        self._budget = context.budget
        self.user = next(context.user_numbers)
        """The user's number, unique in the run."""
        self._connection = Connection(context.origin, context.reader)
        self._openai_clients: list[OpenAI] = []
        self._rng = random.Random(f"{context.scenario.seed}/retry/{self.user}")
        headers = [("Content-Type", "application/json"), ("User-Agent", f"bltybench/{__version__}")]
        access = context.access
        key = key or access.key
        self._stream_headers = access.headers([*headers, ("Accept", "text/event-stream")], key)
        self._plain_headers = access.headers([*headers, ("Accept", "application/json")], key)
        self.exchange: Exchange | None = None
        """The current exchange, or the last one."""
        self.last: Attempt | None = None
        """The last record stored."""
        self.body = b""
        """The last list of models."""
        self._raised: Exception | None = None
        """An exception for the user, to raise in its next call."""

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
        options: RequestOptions | None = None,
        **parameters: Any,
    ) -> Reply:
        """Send a chat completion, with retries as the scenario says, and return its result.

        ``name`` is its row in the tables (default: chat or stream). ``due_ns`` is when the call is due on
        the run's axis (default: now). ``prompt_tokens`` counts if the server reports no usage. ``stage`` and
        ``turn`` (of a conversation, from 1) are recorded. ``options``, such as a call of the mix,
        override the target's. ``parameters`` are added to the request body.

        Server and network errors don't raise: check the reply's ``ok``, ``outcome``, and ``error``. The run
        ends with an error if the budget caps tokens or money, and the call has no ``max_tokens`` or no price.
        """
        context = self._context
        body = request_body(
            context.target,
            options,
            model=model or context.scenario.model,
            messages=messages,
            stream=stream,
            max_tokens=max_tokens,
            temperature=temperature,
        )
        body |= parameters
        call = self.compose(body, name, prompt_tokens, stage, turn, options=options, keep_text=keep_text)
        self._clock.wait_to_call(self.exchange, due_ns)
        return self._call(call, due_ns)

    def replay(
        self, prepared: Prepared, *, stream: bool, due_ns: int | None = None, stage: str | None = None
    ) -> None:
        """Send a call of the scenario, without a reply.

        If its outcome doesn't affect what is sent next, it is parsed and recorded later, in a batch. If a
        listener of Locust's request event then raises an exception for the user, such as StopUser, the next
        call raises it.
        """
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        body = prepared.body or request_body(
            self._context.target,
            prepared.call,
            model=self._context.scenario.model,
            messages=prepared.messages,
            stream=stream,
            max_tokens=prepared.max_tokens,
            temperature=prepared.temperature,
        )
        name, turn = prepared.call.name, prepared.turn
        call = self.compose(body, name, prepared.prompt_tokens, stage, turn, options=prepared.call)
        clock, deferred = self._clock, self._sink.deferred
        clock.wait_to_call(self.exchange, due_ns)
        if prepared.after is not None and due_ns is not None:
            call = hold(self._context, call, self.user, due_ns, prepared.after)
        if self._context.outcomes_matter or deferred.full:
            self._call(call, due_ns)
            return
        self._reserve(call, scheduled=due_ns is not None)
        sent = self._attempt(call, 0, clock.now_ns() if due_ns is None else due_ns, awaited=False)
        deferred.add(sent.exchange, partial(self._record_deferred, sent))

    def as_openai(self, name: str | None = None, **options: Any) -> OpenAI:
        """Return an OpenAI client of the openai package whose requests are recorded as attempts.

        It sends them to the target, with the target's key. ``name`` is their row in the tables, as for
        ``chat``. ``options`` are those of ``openai.OpenAI``, such as ``max_retries``. Retries are the
        package's, not the scenario's. Timeouts are the target's.
        """
        # The package takes a second to import, and few locustfiles need it.
        try:
            from bltybench.load.openai_sdk import openai_client  # noqa: PLC0415
        except UserError as error:
            self._context.abort(error)
        made = openai_client(self, self._context, name, options)
        self._openai_clients.append(made)
        return made

    def forward(self, request: ForwardedRequest) -> None:
        """Send one attempt for another client. Raises StopUser if nothing more may be sent."""
        self._clock.wait_to_call(self.exchange)
        self._call(request.call, None, request)

    def list_models(self, name: str, stage: str) -> None:
        """Request the list of models. The response is then in ``body``."""
        call = CallContext(
            call_id=self._context.next_call_id(),
            name=name,
            body=b"",
            stream=False,
            model=self._context.scenario.model,
            stage=stage,
            method="GET",
            endpoint=MODELS,
        )
        self._clock.wait_until(0)
        self._call(call, None)

    def forget(self) -> None:
        """Forget the last exchange and record."""
        self.exchange = self.last = None

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        for made in self._openai_clients:
            made.close()

    def _record_deferred(self, sent: SentAttempt, result: ExchangeResult) -> None:
        try:
            record(self._context, sent, result, None)
        except USER_CONTROL as raised:
            self._raised = raised
        except Exception:
            # As Locust does for an exception in a task: log it, and let it decide the exit code.
            logger.exception("An attempt could not be recorded")
            log.unhandled_greenlet_exception = True

    def compose(
        self,
        body: dict[str, Any],
        name: str | None,
        prompt_tokens: int | None,
        stage: str | None = None,
        turn: int | None = None,
        *,
        options: RequestOptions | None = None,
        keep_text: bool = False,
    ) -> CallContext:
        """Return a new call with ``body``. Ends the run if the budget can't bound the call's cost."""
        context, budget = self._context, self._budget
        model, stream = body["model"], bool(body.get("stream"))
        max_tokens = max_completion_tokens(body, options, context.target)
        if prompt_tokens is None and budget.counts_tokens:
            prompt_tokens = tokens.count_messages(body["messages"])
        if prompt_tokens is not None:
            prompt_tokens += tokens.count_definitions(body)
        try:
            reserved = budget.cost(model, prompt_tokens, max_tokens and max_tokens * choices(body))
        except UserError as error:
            context.abort(error)
        return CallContext(
            call_id=context.next_call_id(),
            name=name or ("stream" if stream else "chat"),
            body=msgspec.json.encode(body),
            stream=stream,
            model=model,
            max_tokens=max_tokens,
            prompt_tokens=prompt_tokens,
            keep_text=keep_text,
            expected=expected_answer(body),
            stage=stage or context.source.stage_now(),
            turn=turn,
            can_be_empty=bool(body.get("stop")),
            reserved=reserved,
        )

    def _call(
        self, call: CallContext, scheduled_ns: int | None, request: ForwardedRequest | None = None
    ) -> Reply:
        """Send a call with its retries. A ``request`` of another client is one attempt, which it retries."""
        context, clock = self._context, self._clock
        first_due_ns = clock.now_ns() if scheduled_ns is None else scheduled_ns
        due_ns, number = first_due_ns, request.number if request else 0
        retries, wait_s = NO_RETRIES if request else context.retries, None
        retries.begin(clock.now_s())
        while True:
            self._reserve(call, scheduled=scheduled_ns is not None)
            sent = self._attempt(call, number, due_ns, request=request)
            result = context.reader.read_now(sent.exchange)
            self._budget.give_back(call.reserved - spent(self._budget, sent, result))
            ended = EndedAttempt(sent.exchange, result, number, wait_s)
            wait_s = wait_before_retry_s(retries, ended, clock.now_s(), self._rng)
            attempt = self.last = record(context, sent, result, wait_s)
            number += 1
            if wait_s is None or not clock.wait_until(due_ns := clock.now_ns() + round(wait_s * 1e9)):
                return reply_of(attempt, result, number, first_due_ns)

    def _reserve(self, call: CallContext, *, scheduled: bool) -> None:
        """Reserve the cost of an attempt. Raises StopUser if nothing more may be sent."""
        # An arrival that was due in time is sent, however late. Without a schedule, none was due.
        ended = self._clock.stopping if scheduled else self._clock.over
        if ended.is_set() or not self._budget.take(call.reserved):
            raise StopUser

    def _attempt(
        self,
        call: CallContext,
        number: int,
        due_ns: int,
        *,
        awaited: bool = True,
        request: ForwardedRequest | None = None,
    ) -> SentAttempt:
        sink, reader = self._sink, self._context.reader
        exchange = Exchange(
            stream=call.stream,
            keep_text=call.keep_text or call.expected is not None,
            awaited=awaited,
            completion=call.endpoint == ENDPOINT,
            can_be_empty=call.can_be_empty,
        )
        connection, headers = self._connection, self._stream_headers if call.stream else self._plain_headers
        if request is not None:
            connection, headers = request.connection, request.headers
            exchange.pieces, request.exchange = request.pieces, exchange
        self.exchange = exchange
        sink.open_attempts += 1
        sent = SentAttempt(call, self.user, number, due_ns, sink.in_flight, exchange)
        sink.audit.sent((self._clock.now_ns() - max(due_ns, call.held_until_ns or due_ns)) // 1000)
        try:
            target = self._context.target
            path = target.path_of_chat(call.model) if call.endpoint == ENDPOINT else call.endpoint
            connection.send(call.method, path, headers, call.body, exchange)
            if call.endpoint == MODELS:
                self.body = exchange.body
            if awaited:
                reader.read(exchange)
        except GreenletExit:
            # The run stopped while this attempt was in flight. Record it anyway.
            self.last = record(self._context, sent, reader.read_now(exchange), None)
            raise
        else:
            return sent
        finally:
            sink.open_attempts -= 1
