"""From an exchange to its Attempt: stored, counted, and shown in Locust's table."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from bltybench.limits.observations.announcement import announced_window_s
from bltybench.limits.observations.classify import classify
from bltybench.load.run.budget import NOTHING, Spend
from bltybench.load.run.context import RunContext
from bltybench.load.run.stats_rows import add_refusal
from bltybench.load.run.upstream import Headers
from bltybench.runs.attempt import Attempt, Outcome, TokensSource
from bltybench.scenario.api.routes import Route
from bltybench.scenario.prompts import tokens
from bltybench.wire.answer_check import NOTHING_CHECKED, Expected, check_answer
from bltybench.wire.exchange import Exchange
from bltybench.wire.result import ExchangeResult

ENDPOINT = "/chat/completions"


class CallContext(msgspec.Struct, frozen=True):
    """One API call, the same in all its attempts on one route."""

    route: Route
    call_id: str
    name: str
    body: bytes
    stream: bool
    model: str
    """The target's name of the route's model."""
    max_tokens: int | None = None
    prompt_tokens: int | None = None
    """Our count, used if the server reports no usage."""
    keep_text: bool = False
    headers: Headers = ()
    """Recorded headers, which are sent, too."""
    expected: Expected | None = None
    """What the body demands of the answer; None for text in any form."""
    stage: str | None = None
    turn: int | None = None
    can_be_empty: bool = False
    """Whether a completion can end before its first character, because it ends at a stop string."""
    method: str = "POST"
    endpoint: str = ENDPOINT
    held_until_ns: int | None = None
    """Time until which it waited for the answer before it in its session, or for its pacing."""
    paced_ns: int | None = None
    """Time for which its pacing held it."""
    reserved: Spend = NOTHING
    """Maximum cost of one attempt."""


class AttemptError(Exception):
    """A failure as Locust shows it, without ids or times because Locust keeps every distinct message."""

    def __repr__(self) -> str:
        """Return the message alone, because Locust's tables show the repr of an exception."""
        return str(self)


class TokenCounts(NamedTuple):
    """Tokens of one attempt, and where the counts are from."""

    prompt: int | None
    completion: int | None
    source: TokensSource | None


class SentAttempt(msgspec.Struct, frozen=True):
    """One attempt of a call, from the client's side."""

    call: CallContext
    user: int
    number: int
    due_ns: int
    in_flight: int
    exchange: Exchange


def record(context: RunContext, sent: SentAttempt, result: ExchangeResult, waited_s: float | None) -> Attempt:
    """Store one attempt, and count it in the audit, the live counts, and Locust's table."""
    attempt = _attempt(context, sent, result, waited_s)
    name, sink = sent.call.name, context.sink
    sink.attempts.append(attempt)
    sink.audit.ended(attempt, result.events)
    if context.trial_worker is not None:
        context.trial_worker.note(attempt)
    ok = attempt.outcome is Outcome.OK
    refused = not ok and classify(attempt).refused
    ttft_ns = attempt.ttft_ns if ok else None
    ttft_ms = None if ttft_ns is None else ttft_ns / 1e6
    sink.tick.add(attempt, refused, ttft_ms)
    if waited_s is None and sink.first_calls is not None:
        sink.first_calls.add(attempt, refused=refused)
    latency_ms = (attempt.end_ns - (attempt.sent_ns if attempt.sent_ns is not None else attempt.due_ns)) / 1e6
    if refused:
        # An expected outcome and no failure, so it has its own row.
        add_refusal(context.environment.stats, name, latency_ms, sent.exchange.bytes_received)
    elif attempt.outcome is not Outcome.CANCELLED:
        context.environment.events.request.fire(
            request_type=sent.call.method,
            name=name,
            response_time=latency_ms,
            response_length=sent.exchange.bytes_received,
            exception=None if ok else AttemptError(describe(attempt)),
            context={},
        )
    if ttft_ms is not None:
        measured = attempt.first_token_ns != attempt.last_token_ns
        sink.token_rows.add(name, ttft_ms, (attempt.gaps_us or []) if measured else [])
    return attempt


def spent(context: RunContext, sent: SentAttempt, result: ExchangeResult) -> Spend:
    """Return an attempt's cost: its tokens, else 0 if unsent or with an error status, else the reserve.

    Tokens are estimated if the server doesn't report them, but not if the answer broke off: the server can
    have generated more than arrived.
    """
    prompt_tokens, completion_tokens, source = count_tokens(sent.call, result)
    budget = context.budget_of(sent.call.route)
    if source is TokensSource.USAGE or (completion_tokens and result.outcome is Outcome.OK):
        return budget.cost(sent.call.model, prompt_tokens, completion_tokens or 0)
    never_sent = sent.exchange.sent_ns is None
    refused = result.status is not None and not 200 <= result.status < 300
    refused = refused or result.outcome is Outcome.RATE_LIMITED
    return NOTHING if never_sent or refused else sent.call.reserved


def _attempt(
    context: RunContext, sent: SentAttempt, result: ExchangeResult, waited_s: float | None
) -> Attempt:
    call, exchange, quota = sent.call, sent.exchange, result.quota
    prompt_tokens, completion_tokens, source = count_tokens(call, result)
    checked = NOTHING_CHECKED if call.expected is None else check_answer(call.expected, result)
    if exchange.end_ns is None:
        raise RuntimeError("an attempt is recorded after its exchange has ended")
    # Converted to the run's axis inline, because a function call for each time would be slower.
    start_ns = context.clock.start_ns
    sent_ns, headers_ns = exchange.sent_ns, exchange.headers_ns
    first_token_ns, first_output_ns = result.first_token_ns, result.first_output_ns
    last_token_ns = result.last_token_ns
    return Attempt(
        worker=context.worker,
        user=sent.user,
        scenario=context.scenario_name,
        target=call.route.target,
        key=call.route.key,
        stage=call.stage,
        name=call.name,
        turn=call.turn,
        call_id=call.call_id,
        attempt=sent.number,
        request_id=result.request_id,
        response_id=result.response_id,
        due_ns=sent.due_ns,
        held_until_ns=call.held_until_ns,
        paced_ns=call.paced_ns,
        sent_ns=None if sent_ns is None else sent_ns - start_ns,
        headers_ns=None if headers_ns is None else headers_ns - start_ns,
        first_token_ns=None if first_token_ns is None else first_token_ns - start_ns,
        first_output_ns=None if first_output_ns is None else first_output_ns - start_ns,
        last_token_ns=None if last_token_ns is None else last_token_ns - start_ns,
        end_ns=exchange.end_ns - start_ns,
        connect_ns=exchange.connect_ns,
        tls_ns=exchange.tls_ns,
        gaps_us=result.gaps_us,
        outcome=result.outcome,
        status=result.status,
        error_type=result.error_type,
        error_code=result.error_code,
        error_message=result.error_message,
        finish_reason=result.finish_reason,
        notes=",".join(filter(None, (result.notes, checked.note))) if checked.note else result.notes,
        tool_calls=checked.tool_calls,
        json_valid=checked.json_valid,
        schema_valid=checked.schema_valid,
        endpoint=call.endpoint,
        model=result.model or call.model,
        requested_model=call.model,
        stream=call.stream,
        wanted_prompt_tokens=call.prompt_tokens,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cached_tokens=result.cached_tokens,
        reasoning_tokens=result.reasoning_tokens,
        tokens_source=source,
        max_tokens=call.max_tokens,
        bytes_sent=exchange.bytes_sent,
        bytes_received=exchange.bytes_received,
        limit_requests=quota.limit_requests,
        remaining_requests=quota.remaining_requests,
        reset_requests_s=quota.reset_requests_s,
        window_requests_s=announced_window_s(exchange.headers, quota.limit_requests),
        limit_tokens=quota.limit_tokens,
        remaining_tokens=quota.remaining_tokens,
        reset_tokens_s=quota.reset_tokens_s,
        retry_after_s=quota.retry_after_s,
        header_dialect=quota.dialect,
        waited_s=waited_s,
        stamp=exchange.stamp,
        observer_lag_us=exchange.observer_lag_us,
        coalesced_events=result.coalesced_events,
        first_token_coalesced=result.first_token_coalesced,
        in_flight=sent.in_flight,
    )


def count_tokens(call: CallContext, result: ExchangeResult) -> TokenCounts:
    """Return the server's token counts, or estimates if it generated something and did not count it.

    A stream that broke off before its usage is estimated, too. The estimate is kept in ``result``.
    """
    prompt_tokens, completion_tokens = result.prompt_tokens, result.completion_tokens
    known = prompt_tokens is not None or completion_tokens is not None
    if completion_tokens or not (result.uncounted_text or (result.outcome is Outcome.OK and not known)):
        return TokenCounts(prompt_tokens, completion_tokens, TokensSource.USAGE if known else None)
    if call.endpoint != ENDPOINT or result.outcome is Outcome.RATE_LIMITED:
        return TokenCounts(None, None, None)
    if result.estimated_tokens is None and result.uncounted_text:
        result.estimated_tokens = tokens.estimate(result.uncounted_text)
    prompt_tokens = call.prompt_tokens if prompt_tokens is None else prompt_tokens
    return TokenCounts(prompt_tokens, result.estimated_tokens, TokensSource.TOKENIZER)


def describe(attempt: Attempt) -> str:
    """Return the kind of a failure: its outcome, status, and error code or type."""
    parts = (attempt.outcome, attempt.status, attempt.error_code or attempt.error_type)
    return " ".join(str(part) for part in parts if part)
