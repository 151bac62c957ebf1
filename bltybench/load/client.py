"""A user's ``self.client``: chat calls that are timed, recorded, and retried as the scenario says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gevent import GreenletExit
from gevent.event import Event
from locust import log
from locust.exception import InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopTest, StopUser
from pydantic import SecretStr

from bltybench.errors import UserError
from bltybench.load.compose_call import Draft
from bltybench.load.forwarded_request import ForwardedRequest
from bltybench.load.held_call import hold, pace
from bltybench.load.recorder import ENDPOINT, CallContext, SentAttempt, record, spent
from bltybench.load.reply import Reply, reply_of
from bltybench.load.retry import EndedAttempt, falls_back, soonest, wait_before_retry_s
from bltybench.load.run.context import RunContext
from bltybench.policies.retries import Retries
from bltybench.runs.attempt import Attempt
from bltybench.scenario.api.request_options import RequestOptions
from bltybench.scenario.api.routes import Choices, Route
from bltybench.scenario.prompts.compose import Prepared
from bltybench.scenario.retry import Retry
from bltybench.scenario.workload import Call
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
        self._key = key
        self.user = next(context.user_numbers)
        """The user's number, unique in the run."""
        self._connections = {
            name: Connection(upstream.origin, context.reader) for name, upstream in context.upstreams.items()
        }
        self._calls = 0
        """Calls whose routes were drawn by the user's number."""
        self._openai_clients: list[OpenAI] = []
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
        index: int | None = None,
        **parameters: Any,
    ) -> Reply:
        """Send a chat completion, with retries as the scenario says, and return its result.

        ``name`` is its row in the tables (default: chat or stream). ``due_ns`` is when the call is due on
        the run's axis (default: now). ``prompt_tokens`` counts if the server reports no usage. ``stage`` and
        ``turn`` (of a conversation, from 1) are recorded. ``options``, such as a call of the mix,
        override the target's. Calls with the same ``index`` use the same target, key, and model of the
        scenario's lists. ``parameters`` are added to the request body.

        Server and network errors don't raise: check the reply's ``ok``, ``outcome``, and ``error``. The run
        ends with an error if the budget caps tokens or money, and the call has no ``max_tokens`` or no price.
        """
        draft = Draft(
            call_id=self._context.next_call_id(),
            messages=messages,
            stream=stream,
            max_tokens=max_tokens,
            temperature=temperature,
            name=name,
            prompt_tokens=prompt_tokens,
            stage=stage,
            turn=turn,
            options=options,
            keep_text=keep_text,
            parameters=parameters,
        )
        routes = self._routes(options if isinstance(options, Call) else None, index, model)
        call = draft.on(self._context, routes[0])
        self._clock.wait_to_call(self.exchange, due_ns)
        return self._call(call, due_ns, routes=routes, draft=draft)

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
        draft = Draft(
            call_id=self._context.next_call_id(),
            messages=prepared.messages,
            stream=stream,
            max_tokens=prepared.max_tokens,
            temperature=prepared.temperature,
            name=prepared.call.name,
            prompt_tokens=prepared.prompt_tokens,
            stage=stage,
            turn=prepared.turn,
            options=prepared.call,
            recorded=prepared.body,
            headers=prepared.headers,
        )
        own_model = None if prepared.body is None else prepared.body.get("model")
        routes = self._routes(prepared.call, prepared.index, own_model)
        call = draft.on(self._context, routes[0])
        clock, deferred = self._clock, self._sink.deferred
        clock.wait_to_call(self.exchange, due_ns)
        if prepared.after is not None and due_ns is not None:
            call = hold(self._context, call, self.user, due_ns, prepared.after)
        if self._context.outcomes_matter or deferred.full:
            self._call(call, due_ns, routes=routes, draft=draft)
            return
        self._reserve(call, self._context.ended(scheduled=due_ns is not None))
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
        made = openai_client(self, self._context, self._routes()[0], name, options)
        self._openai_clients.append(made)
        return made

    def forward(self, request: ForwardedRequest) -> None:
        """Send one attempt for another client. Raises StopUser if nothing more may be sent."""
        self._clock.wait_to_call(self.exchange)
        self._call(request.call, None, request=request)

    def list_models(self, name: str, stage: str) -> None:
        """Request the list of models. The response is then in ``body``."""
        route = self._routes()[0]
        call = CallContext(
            route=route,
            call_id=self._context.next_call_id(),
            name=name,
            body=b"",
            stream=False,
            model=route.model,
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
        for connection in self._connections.values():
            connection.close()
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

    def _routes(
        self, call: Call | None = None, index: int | None = None, model: str | None = None
    ) -> list[Route]:
        """Return the route of a call, and those to fall back to. ``model`` is that of its body, if any.

        Without ``index``, the routes of a user are drawn one after the other.
        """
        choices = self._context.scenario.choices(call)
        if model is not None:
            choices = Choices(choices.targets, {model: 1.0})
        if index is None:
            self._calls += 1
        label = f"{self.user}/{self._calls}" if index is None else str(index)
        return self._context.router.routes(choices, label)

    def _call(
        self,
        call: CallContext,
        scheduled_ns: int | None,
        *,
        routes: Sequence[Route] = (),
        draft: Draft | None = None,
        request: ForwardedRequest | None = None,
    ) -> Reply:
        """Send a call on one route after another, with retries once all have failed.

        A ``request`` of another client is one attempt, which that client retries.
        """
        context, clock, policy = self._context, self._clock, self._context.policy
        first_due_ns = clock.now_ns() if scheduled_ns is None else scheduled_ns
        due_ns, number = first_due_ns, request.number if request else 0
        ended, over = context.ended(scheduled=scheduled_ns is not None), context.ended(scheduled=False)
        retries = NO_RETRIES if request else policy.retries
        retries.begin(clock.now_s())
        waited_s, rounds, failed = None, number, list[EndedAttempt]()
        while True:
            paced, passed = pace(context, call, self.user, number=number, due_ns=due_ns, ended=ended)
            self._reserve(paced, ended)
            sent = self._attempt(paced, number, due_ns, request=request)
            result = context.reader.read_now(sent.exchange)
            if passed is not None:
                passed.answered(result, clock.axis_s(sent.exchange.headers_ns))
            context.budget_of(call.route).give_back(call.reserved - spent(context, sent, result))
            failed.append(EndedAttempt(sent.exchange, result, rounds, waited_s))
            wait_s: float | None = 0.0
            if not falls_back(result) or len(failed) >= len(routes):
                wait_s = waited_s = wait_before_retry_s(retries, soonest(failed), clock.now_s(), policy.rng)
                rounds, failed = rounds + 1, []
            attempt = self.last = record(context, sent, result, wait_s)
            number += 1
            if wait_s is None or not clock.wait_until(due_ns := clock.now_ns() + round(wait_s * 1e9), over):
                return reply_of(attempt, result, number, first_due_ns)
            if draft is not None and len(routes) > 1:
                call = draft.on(context, routes[len(failed)])

    def _reserve(self, call: CallContext, ended: Event) -> None:
        """Reserve the cost of an attempt. Raises an exception for the user if nothing more may be sent."""
        if ended.is_set() or not self._context.budget_of(call.route).take(call.reserved):
            raise self._context.give_up()

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
        upstream = self._context.upstreams[call.route.target]
        connection = self._connections[upstream.name]
        headers = upstream.headers(self._key, call.route.key, call.headers, stream=call.stream)
        if request is not None:
            connection, headers = request.connection, request.headers
            exchange.pieces, request.exchange = request.pieces, exchange
        self.exchange = exchange
        sink.open_attempts += 1
        sent = SentAttempt(call, self.user, number, due_ns, sink.in_flight, exchange)
        sink.audit.sent((self._clock.now_ns() - max(due_ns, call.held_until_ns or due_ns)) // 1000)
        try:
            path = upstream.target.path_of_chat(call.model) if call.endpoint == ENDPOINT else call.endpoint
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
