"""Interpretation of an ended exchange: its outcome, the errors, and everything the response reported."""

from __future__ import annotations

import time
from functools import lru_cache
from operator import sub
from typing import Any
from urllib.parse import urlsplit

from bltybench.runs.attempt import Outcome
from bltybench.runs.error_words import names_of, says_overload, says_rate_limit, says_unpaid
from bltybench.wire import error_body
from bltybench.wire.error_body import ErrorDetails, name_or_none, redacted
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import TIMEOUTS, Fault
from bltybench.wire.ratelimit_headers import parse_quota
from bltybench.wire.result import ExchangeResult
from bltybench.wire.sse.chunk import decode_any, decode_chunk
from bltybench.wire.sse.stream import StreamFold

REQUEST_ID_HEADERS = {"x-request-id", "request-id", "apim-request-id"}
MAX_SHOWN_EVENT_BYTES = 500
"""Part of an event that is not JSON that goes into the error message."""
MAX_HOST_CHARS = 100
MAX_HEADER_CHARS = 80
"""Part of a header value that goes into the error message."""
FAILED_FINISH_REASONS = {
    "abort",
    "aborted",
    "canceled",
    "cancelled",
    "error",
    "failed",
    "insufficient_system_resource",
    "network_error",
}
"""Finish reasons of answers that the server gave up (DeepSeek, vLLM, SGLang, OpenRouter, Zhipu), in lower
case."""


def fold(exchange: Exchange) -> StreamFold:
    """Fold the bytes that a stream has kept so far, and return its state."""
    state = exchange.fold
    if state is None:
        state = exchange.fold = StreamFold(keep_text=exchange.keep_text)
    state.take_pieces(*exchange.take_pieces())
    state.settle()
    return state


def interpret(exchange: Exchange) -> ExchangeResult:
    """Return the result of an ended exchange. Every sequence of bytes has one."""
    result = ExchangeResult(outcome=Outcome.OK, status=exchange.status)
    if exchange.headers:
        _read_headers(exchange, result)
    error: ErrorDetails | None
    if exchange.status is None:
        error = ErrorDetails()
    elif exchange.header("content-encoding") not in {"", "identity"}:
        exchange.take_pieces()
        coding = redacted(exchange.header("content-encoding"), exchange.secrets, MAX_HEADER_CHARS)
        message = f"a compressed response, though none was requested: Content-Encoding is {coding}"
        error = ErrorDetails(Fault.CONTENT_ENCODING, None, message)
    elif exchange.is_event_stream:
        error = _read_stream(exchange, result)
    else:
        error = _read_plain(exchange, result, b"".join(exchange.take_pieces()[0]))
    result.outcome = _outcome(exchange, result, error)
    if exchange.notes:
        result.notes = ",".join(exchange.notes)
    failure = exchange.failure
    if failure is not None and (error is None or error == ErrorDetails()):
        error = ErrorDetails(failure.kind, None, redacted(failure.message, exchange.secrets))
    if error is not None and result.outcome is not Outcome.OK:
        result.error_type, result.error_code, result.error_message = error
    return result


def _read_headers(exchange: Exchange, result: ExchangeResult) -> None:
    received_ns = exchange.headers_ns or exchange.end_ns or time.monotonic_ns()
    received_wall_s = time.time() - (time.monotonic_ns() - received_ns) / 1e9
    result.quota = parse_quota(exchange.headers, received_wall_s)
    for name, value in exchange.headers:
        if name in REQUEST_ID_HEADERS:
            result.request_id = name_or_none(value, exchange.secrets)
            break


def _read_stream(exchange: Exchange, result: ExchangeResult) -> ErrorDetails | None:
    """Fill in ``result`` from an event stream. Return the error in it, if any."""
    state = fold(exchange)
    overrun = state.overrun()
    state.close(exchange.end_ns if exchange.failure is None else None)
    result.streamed = True
    result.coalesced_events = state.coalesced
    times = state.times.tolist()
    if times:
        first_ns, last_ns = times[0], times[-1]
        result.events = len(times)
        result.first_token_ns = first_ns
        result.first_output_ns = state.first_output_ns
        result.last_token_ns = last_ns
        if first_ns == last_ns:
            result.gaps_us = [0] * (len(times) - 1)
        else:
            # Differences of truncated offsets: rounding errors of the gaps don't add up.
            offsets_us = [(at - first_ns) // 1000 for at in times]
            result.gaps_us = list(map(sub, offsets_us[1:], offsets_us))
    _read_state(state, exchange, result)
    secrets = exchange.secrets
    if state.error is not None:
        return error_body.from_value(state.error, secrets)
    if overrun is not None:
        return ErrorDetails(overrun.kind, None, overrun.message)
    if state.bad_event is not None:
        shown = redacted(state.bad_event[:MAX_SHOWN_EVENT_BYTES].decode("utf-8", "replace"), secrets)
        return ErrorDetails(Fault.BAD_EVENT, None, redacted(f"an event that is not JSON: {shown}"))
    if exchange.failure is not None and not state.done:
        return ErrorDetails()
    _add_notes(exchange, state)
    return _incomplete(state, result.finish_reason)


def _incomplete(state: StreamFold, finish_reason: str | None) -> ErrorDetails | None:
    """Return why an undamaged stream is not a complete answer, if it is not."""
    if finish_reason is not None:
        return _failed_finish(finish_reason)
    if not state.done:
        return ErrorDetails(Fault.MISSING_DONE, None, "the stream ended without a finish_reason or [DONE]")
    if not state.times:
        return ErrorDetails(Fault.EMPTY_STREAM, None, "[DONE] without content or a finish_reason before it")
    return None


def _read_state(state: StreamFold, exchange: Exchange, result: ExchangeResult) -> None:
    secrets = exchange.secrets
    result.finish_reason = _cached_name(state.finish_reason, secrets)
    result.response_id = name_or_none(state.response_id, secrets)
    result.model = _cached_name(state.model, secrets)
    _read_usage(state.usage, result)
    if exchange.keep_text:
        result.text, result.reasoning, result.tool_calls = state.text, state.reasoning, state.tool_calls


def _failed_finish(finish_reason: str | None) -> ErrorDetails | None:
    """Return the error if the finish reason says that the server gave up the answer."""
    if finish_reason is None or finish_reason.lower() not in FAILED_FINISH_REASONS:
        return None
    return ErrorDetails(Fault.FINISH_REASON, None, f"the server ended the answer with {finish_reason!r}")


def _add_notes(exchange: Exchange, state: StreamFold) -> None:
    """Note how a stream deviates from OpenAI's."""
    notes = exchange.notes
    if not state.done:
        notes.append("missing_done")
    if state.finish_reason is None:
        notes.append("no_finish_reason")
    if state.events_after_done:
        notes.append("events_after_done")
    if "text/event-stream" not in (content_type := exchange.header("content-type")):
        notes.append("wrong_content_type" if content_type else "no_content_type")


@lru_cache(maxsize=256, typed=True)
def _cached_name(name: str | int | None, secrets: tuple[str, ...]) -> str | None:
    """Return ``name_or_none`` of a name that has few distinct values."""
    return name_or_none(name, secrets)


def _read_plain(exchange: Exchange, result: ExchangeResult, body: bytes) -> ErrorDetails | None:
    """Fill in ``result`` from a response that is not a stream. Return the error in it, if any."""
    status, secrets = exchange.status or 0, exchange.secrets
    if 300 <= status < 400:
        return ErrorDetails(Fault.REDIRECT, None, _redirect_message(exchange))
    if not 200 <= status < 300:
        return error_body.from_body(body, secrets)
    if exchange.failure is not None:
        return ErrorDetails()
    try:
        chunk = decode_chunk(body)
    except ValueError:
        return _not_a_completion(exchange, body)
    if chunk.error is not None:
        return error_body.from_value(chunk.error, secrets)
    if exchange.stream and "text/event-stream" in exchange.header("content-type"):
        exchange.notes.append("wrong_content_type")
    # A plain completion is treated as a stream of one chunk.
    state = StreamFold(keep_text=exchange.keep_text)
    state.add(chunk)
    state.settle()
    _read_state(state, exchange, result)
    return _failed_finish(result.finish_reason)


def _not_a_completion(exchange: Exchange, body: bytes) -> ErrorDetails | None:
    """Return the error of a 2xx body without a completion. Other JSON is fine if no stream was requested."""
    try:
        value = decode_any(body)
    except ValueError:
        message = error_body.from_body(body, exchange.secrets).message
        kind = Fault.NOT_EVENT_STREAM if exchange.stream else Fault.NOT_JSON
        expected = "an event stream" if exchange.stream else "JSON"
        content_type = redacted(exchange.header("content-type"), exchange.secrets, MAX_HEADER_CHARS)
        named = f"Content-Type is {content_type}" if content_type else "no Content-Type"
        return ErrorDetails(kind, None, redacted(f"not {expected} ({named}): {message or 'an empty body'}"))
    if isinstance(value, dict) and value.get("error"):
        return error_body.from_value(value["error"], exchange.secrets, value)
    if exchange.stream:
        return ErrorDetails(Fault.NOT_EVENT_STREAM, None, "not an event stream: JSON without a completion")
    return None


def _read_usage(usage: Any, result: ExchangeResult) -> None:
    if not isinstance(usage, dict):
        return
    result.prompt_tokens = _count(usage, "prompt_tokens")
    result.completion_tokens = _count(usage, "completion_tokens")
    result.cached_tokens = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    if result.cached_tokens is None:
        result.cached_tokens = _count(usage, "prompt_cache_hit_tokens")
    result.reasoning_tokens = _count(usage.get("completion_tokens_details"), "reasoning_tokens")


def _count(table: Any, key: str) -> int | None:
    value = table.get(key) if isinstance(table, dict) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53:
        return value
    return None


def _redirect_message(exchange: Exchange) -> str:
    location = next((value for name, value in exchange.headers if name == "location"), "")
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    where = redacted(host or "another path of the same host", exchange.secrets, MAX_HOST_CHARS)
    return f"redirects are not followed; this one leads to {where}"


def _outcome(exchange: Exchange, result: ExchangeResult, error: ErrorDetails | None) -> Outcome:
    """Return the outcome of the attempt.

    A cancellation or timeout by this side comes first. Then the status decides, unless it is 2xx: a 429 is a
    refusal, unless the body reports missing funds (client error: waiting does not help) or an overload
    (server error). A 403 or 503 is a refusal only if the body mentions a rate limit or the headers report
    that nothing remains; ``Retry-After`` on a 503 can also mean maintenance. A damaged 2xx response is a
    broken stream if a stream was requested, a transport error if bytes are missing, and otherwise a server
    error. A failure after ``[DONE]`` damages nothing.
    """
    done = exchange.fold is not None and exchange.fold.done
    failure, status = None if done else exchange.failure, exchange.status
    if failure is not None:
        if failure.kind is Fault.CANCELLED:
            return Outcome.CANCELLED
        if failure.kind in TIMEOUTS:
            return Outcome.TIMEOUT
    if status is None:
        return Outcome.TRANSPORT_ERROR
    if not 200 <= status < 300:
        return _refusal_or_error(status, result, error or ErrorDetails())
    if error is not None and exchange.stream:
        return Outcome.BROKEN_STREAM
    damaged = Outcome.SERVER_ERROR if failure is None else Outcome.TRANSPORT_ERROR
    return Outcome.OK if error is None else damaged


def _refusal_or_error(status: int, result: ExchangeResult, error: ErrorDetails) -> Outcome:
    """Return the outcome of an error response, by the same rules as ``limits.observations.classify``."""
    names = names_of(error.type, error.code)
    if status < 500 and says_unpaid(names):
        return Outcome.CLIENT_ERROR
    if (status >= 500 or status == 429) and says_overload(names, error.message):
        return Outcome.SERVER_ERROR
    remaining = {result.quota.remaining_requests, result.quota.remaining_tokens}
    says_refused = 0 in remaining or says_rate_limit(names, error.message)
    if status == 429 or (status in {403, 503} and says_refused):
        return Outcome.RATE_LIMITED
    return Outcome.SERVER_ERROR if status >= 500 else Outcome.CLIENT_ERROR
