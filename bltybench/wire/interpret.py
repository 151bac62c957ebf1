"""Interpretation of an ended exchange: its outcome, the errors, and everything the response reported."""

import time
from functools import lru_cache
from http import HTTPStatus
from operator import sub
from typing import Any
from urllib.parse import urlsplit

from bltybench.runs.attempt import Outcome
from bltybench.runs.error_words import names_of, reason_of, says_rate_limit
from bltybench.wire import error_body
from bltybench.wire.content_encoding import BodyDecoder
from bltybench.wire.error_body import ErrorDetails, name_or_none, redacted
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.outcome import outcome_of
from bltybench.wire.ratelimit_headers import parse_quota
from bltybench.wire.result import ExchangeResult
from bltybench.wire.retry_hints import take_hints
from bltybench.wire.sse.answer import Answer
from bltybench.wire.sse.chunk import Chunk, decode_any, decode_chunk, decode_or_none, json_text
from bltybench.wire.sse.delta import is_failure
from bltybench.wire.sse.error_shapes import LIMIT_TYPE_KEYS, error_in
from bltybench.wire.sse.stream import StreamFold

REQUEST_ID_HEADERS = {"x-request-id", "request-id", "apim-request-id"}
MAX_SHOWN_EVENT_BYTES = 500
"""Part of an event that is not JSON that goes into the error message."""
MAX_HOST_CHARS = 100
MAX_HEADER_CHARS = 80
"""Part of a header value that goes into the error message."""


def fold(exchange: Exchange) -> StreamFold:
    """Fold the bytes that a stream has kept so far, and return its state."""
    state = exchange.fold
    if state is None:
        state = exchange.fold = StreamFold()
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
    elif exchange.encoding and exchange.decoder is None:
        exchange.take_pieces()
        coding = redacted(exchange.encoding, exchange.secrets, MAX_HEADER_CHARS)
        message = f"a compressed response, though none was requested: Content-Encoding is {coding}"
        error = ErrorDetails(Fault.CONTENT_ENCODING, None, message)
    elif exchange.is_event_stream:
        error = _read_stream(exchange, result)
    else:
        error = _read_plain(exchange, result, b"".join(exchange.take_pieces()[0]))
    if exchange.decoder is not None:
        exchange.notes.append("compressed")
        error = _decoding_error(exchange.decoder, error, exchange)
    if error is not None and exchange.status is not None and exchange.status >= HTTPStatus.BAD_REQUEST:
        error = error.with_limit_type(_limit_type(exchange))
    result.outcome = outcome_of(exchange, result, error)
    if exchange.notes:
        result.notes = ",".join(exchange.notes)
    failure = exchange.failure
    if failure is not None and (error is None or error == ErrorDetails()):
        error = ErrorDetails(failure.kind, None, redacted(failure.message, exchange.secrets))
    if error is not None and result.outcome is not Outcome.OK:
        result.error_type, result.error_code, result.error_message = error
    return result


def _decoding_error(
    decoder: BodyDecoder, error: ErrorDetails | None, exchange: Exchange
) -> ErrorDetails | None:
    """Return the error of a compressed response. If its body could not be read, that is the error."""
    failure = decoder.failure
    if failure is None and error is not None and isinstance(error.type, Fault) and not decoder.complete:
        failure = Failure(Fault.CONTENT_ENCODING, "the compressed body is incomplete")
    if failure is None:
        return error
    coding = redacted(exchange.encoding, exchange.secrets, MAX_HEADER_CHARS)
    kind, message = failure
    return ErrorDetails(kind, None, f"{message} (Content-Encoding is {coding})")


def _received_wall_s(exchange: Exchange) -> float:
    """Return when the response was received, in Unix time. It can be interpreted later."""
    received_ns = exchange.headers_ns or exchange.end_ns or time.monotonic_ns()
    return time.time() - (time.monotonic_ns() - received_ns) / 1e9


def _read_headers(exchange: Exchange, result: ExchangeResult) -> None:
    result.quota = parse_quota(exchange.headers, _received_wall_s(exchange))
    for name, value in exchange.headers:
        if name in REQUEST_ID_HEADERS:
            result.request_id = name_or_none(value, exchange.secrets)
            break


def _limit_type(exchange: Exchange) -> str | None:
    """Return the limit that refused, if a header names it (LiteLLM)."""
    values = (value for name, value in exchange.headers if name in LIMIT_TYPE_KEYS)
    return next((limit for value in values if (limit := name_or_none(value, exchange.secrets))), None)


def _read_stream(exchange: Exchange, result: ExchangeResult) -> ErrorDetails | None:
    """Fill in ``result`` from an event stream. Return the error in it, if any."""
    state = fold(exchange)
    overrun = state.overrun()
    state.close(exchange.end_ns if exchange.failure is None else None)
    result.streamed = True
    result.coalesced_events = state.coalesced
    result.first_token_coalesced = state.first_token_coalesced
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
    _read_answer(state, exchange, result)
    secrets = exchange.secrets
    if state.error is not None:
        return _reported(state.error, exchange, result)
    if overrun is not None:
        return ErrorDetails(overrun.kind, None, overrun.message)
    if state.bad_event is not None:
        shown = redacted(state.bad_event[:MAX_SHOWN_EVENT_BYTES].decode("utf-8", "replace"), secrets)
        return ErrorDetails(Fault.BAD_EVENT, None, redacted(f"an event that is not JSON: {shown}"))
    if exchange.failure is not None and not state.done:
        return ErrorDetails()
    _add_notes(exchange, state)
    return _incomplete(state, result, exchange)


def _incomplete(state: StreamFold, result: ExchangeResult, exchange: Exchange) -> ErrorDetails | None:
    """Return why an undamaged stream is not a complete answer, if it is not."""
    finish_reason, no_answer = result.finish_reason, None
    if state.no_answer is not None or not state.times:
        no_answer = _no_answer(state.no_answer, exchange)
        if no_answer.type is not Fault.NO_ANSWER:
            return no_answer
    if not state.done and not state.finished:
        return ErrorDetails(Fault.MISSING_DONE, None, "the stream ended without a finish_reason or [DONE]")
    failed = _failed_finish(finish_reason)
    return failed or (None if state.times or _has_hidden_tokens(result, exchange) else no_answer)


def _has_hidden_tokens(result: ExchangeResult, exchange: Exchange) -> bool:
    """Return whether the server ended and counted an answer that has no text, and note that.

    It can be hidden reasoning, or part of a character: llama.cpp drops one that ``max_tokens`` splits. An
    answer that begins with a stop string has no text either.
    """
    stopped = exchange.can_be_empty and result.finish_reason == "stop"
    hidden = stopped or (result.finish_reason is not None and bool(result.completion_tokens))
    if hidden:
        exchange.notes.append("no_text")
    return hidden


def _read_answer(answer: Answer, exchange: Exchange, result: ExchangeResult) -> None:
    secrets = exchange.secrets
    result.finish_reason = _cached_name(answer.finish_reason, secrets)
    result.response_id = name_or_none(answer.response_id, secrets)
    result.model = _cached_name(answer.model, secrets)
    _read_usage(answer.usage, result)
    if not result.completion_tokens:
        result.uncounted_text = answer.generated_text
    if exchange.keep_text:
        result.text, result.reasoning, result.tool_calls = answer.text, answer.reasoning, answer.tool_calls
        result.declined = answer.declined


def _failed_finish(finish_reason: str | None) -> ErrorDetails | None:
    """Return the error if the finish reason says that the server gave up the answer."""
    if not is_failure(finish_reason):
        return None
    return ErrorDetails(Fault.FINISH_REASON, None, f"the server ended the answer with {finish_reason!r}")


def _add_notes(exchange: Exchange, state: StreamFold) -> None:
    """Note how a stream deviates from OpenAI's."""
    notes = exchange.notes
    if not exchange.stream:
        notes.append("unrequested_stream")
    if not state.done:
        notes.append("missing_done")
    if not state.finished:
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
        details = error_body.from_body(body, secrets)
        take_hints(decode_or_none(body), details.message, result.quota, _received_wall_s(exchange))
        return details
    if exchange.failure is not None:
        return ErrorDetails()
    try:
        value = decode_any(body)
    except ValueError:
        return _not_json(exchange, body)
    return _read_completion(exchange, result, body, value)


def _read_completion(
    exchange: Exchange, result: ExchangeResult, body: bytes, value: Any
) -> ErrorDetails | None:
    """Fill in ``result`` from a 2xx response in JSON. Return the error in it, if any."""
    try:
        chunk = decode_chunk(body)
    except ValueError:
        chunk = Chunk()
    answer = Answer()
    answered = answer.add(chunk)[0]
    _read_answer(answer, exchange, result)
    if (reported := error_in(value)) is not None:
        return _reported(reported, exchange, result)
    if exchange.stream and "text/event-stream" in exchange.header("content-type"):
        exchange.notes.append("wrong_content_type")
    if (failed := _failed_finish(result.finish_reason)) is not None:
        return failed
    if answered or not exchange.completion or _has_hidden_tokens(result, exchange):
        return None
    return _no_answer(value, exchange)


def _not_json(exchange: Exchange, body: bytes) -> ErrorDetails:
    """Return the error of a 2xx body that is neither JSON nor an event stream."""
    message = error_body.from_body(body, exchange.secrets).message or "an empty body"
    kind, expected = Fault.NOT_JSON, "JSON"
    if exchange.stream:
        kind, expected = Fault.NOT_EVENT_STREAM, "an event stream"
    content_type = redacted(exchange.header("content-type"), exchange.secrets, MAX_HEADER_CHARS)
    named = f"Content-Type is {content_type}" if content_type else "no Content-Type"
    return ErrorDetails(kind, None, redacted(f"not {expected} ({named}): {message}"))


def _reported(value: Any, exchange: Exchange, result: ExchangeResult) -> ErrorDetails:
    """Return an error that a 2xx response reports, after taking the waits that it announces."""
    details = error_body.from_value(value, exchange.secrets)
    take_hints(value, details.message, result.quota, _received_wall_s(exchange))
    return details


def _no_answer(value: Any, exchange: Exchange) -> ErrorDetails:
    """Return the error of a 2xx response without an answer. The server's words can make it a refusal."""
    if not value:
        return ErrorDetails(Fault.NO_ANSWER, None, "a response without an answer")
    details = error_body.from_value(value, exchange.secrets)
    names = names_of(details.type, details.code)
    if reason_of(200, names, details.message) is not None or says_rate_limit(names, details.message):
        return details
    words = details.message or json_text(value)
    return ErrorDetails(Fault.NO_ANSWER, details.code, redacted(words, exchange.secrets))


def _read_usage(usage: Any, result: ExchangeResult) -> None:
    if not isinstance(usage, dict):
        return
    result.prompt_tokens = _count(usage, "prompt_tokens")
    result.completion_tokens = _count(usage, "completion_tokens")
    if result.prompt_tokens is None and result.completion_tokens is None:
        result.prompt_tokens = _count(usage, "input_tokens")
        result.completion_tokens = _count(usage, "output_tokens")
    if not result.prompt_tokens and not result.completion_tokens:
        result.prompt_tokens = result.completion_tokens = None  # all zeros: not counted
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
