"""What an exchange came to: outcome, tokens, times of tokens, text, and what the quota headers said."""

from __future__ import annotations

import time
from functools import lru_cache
from operator import sub
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bltybench.runs.attempt import Outcome
from bltybench.wire import error_body
from bltybench.wire.error_body import Problem
from bltybench.wire.exchange import TIMEOUTS, Exchange, Failure, Fault
from bltybench.wire.ratelimit_headers import Quota, parse_quota
from bltybench.wire.sse.chunk import Chunk, decode_any, decode_chunk
from bltybench.wire.sse.stream import StreamFold

OUT_OF_MONEY = ("insufficient_quota", "billing", "quota_exhausted", "insufficient_balance")
OVERLOAD = ("overload",)
RATE_WORDS = (
    "rate limit",
    "rate_limit",
    "rate-limit",
    "ratelimit",
    "too many requests",
    "too_many_requests",
    "throttl",
)


class Reading(msgspec.Struct, kw_only=True, gc=False):
    """One answer, read. Times are ``time.monotonic_ns``; None is what the server did not say."""

    outcome: Outcome
    status: int | None = None
    error_type: str | None = None
    """The server's, or one of ``Fault`` where the error was found on this side."""
    error_code: str | None = None
    error_message: str | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    response_id: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    streamed: bool = False
    """Whether the answer came as server-sent events. A server may ignore that a stream was asked for."""
    events: int = 0
    """Events with content, reasoning or a tool call."""
    first_token_ns: int | None = None
    first_output_ns: int | None = None
    last_token_ns: int | None = None
    gaps_us: list[int] | None = None
    coalesced_events: int | None = None
    """Content events that shared their read with bytes of a later event."""
    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = msgspec.field(default_factory=list)
    quota: Quota = msgspec.field(default_factory=Quota)


def fold(exchange: Exchange) -> Failure | None:
    """Fold what a stream has kept so far, and return the bound that it went over, if any."""
    state = _state(exchange)
    state.take_pieces(*exchange.take_pieces())
    state.settle()
    return state.overrun()


def _state(exchange: Exchange) -> StreamFold:
    if exchange.fold is None:
        exchange.fold = StreamFold(keep_text=exchange.keep_text)
    return exchange.fold


def conclude(exchange: Exchange) -> Reading:
    """Return what an ended exchange came to. Any bytes give a Reading."""
    reading = Reading(outcome=Outcome.OK, status=exchange.status)
    if exchange.headers:
        _read_headers(exchange, reading)
    found: Problem | None
    if exchange.status is None:
        found = Problem()
        body = b""
    elif exchange.header("content-encoding") not in {"", "identity"}:
        exchange.take_pieces()
        found = Problem(Fault.CONTENT_ENCODING, None, "a compressed answer that was not asked for")
    elif exchange.is_event_stream:
        found = _conclude_stream(exchange, reading)
    else:
        body = b"".join(exchange.take_pieces()[0])
        found = _conclude_plain(exchange, reading, body)
    reading.outcome = _outcome(exchange, reading, found)
    failure = exchange.failure
    if failure is not None and (found is None or found == Problem()):
        found = Problem(failure.kind, None, error_body.clean(failure.message, exchange.secrets))
    if found is not None and reading.outcome is not Outcome.OK:
        reading.error_type, reading.error_code, reading.error_message = found
    return reading


def _read_headers(exchange: Exchange, reading: Reading) -> None:
    answered_ns = exchange.headers_ns or exchange.end_ns or time.monotonic_ns()
    answered_wall_s = time.time() - (time.monotonic_ns() - answered_ns) / 1e9
    reading.quota = parse_quota(exchange.headers, answered_wall_s)
    for name, value in exchange.headers:
        if name in {"x-request-id", "request-id", "apim-request-id"}:
            reading.request_id = error_body.name_or_none(value, exchange.secrets)
            break


def _conclude_stream(exchange: Exchange, reading: Reading) -> Problem | None:
    """Fill in what the stream said; return what was wrong with it."""
    overrun = fold(exchange)
    state = _state(exchange)
    state.close()
    reading.streamed = True
    reading.coalesced_events = state.coalesced
    times = state.times.tolist()
    if times:
        first_ns, last_ns = times[0], times[-1]
        reading.events = len(times)
        reading.first_token_ns = first_ns
        reading.first_output_ns = state.first_output_ns
        reading.last_token_ns = last_ns
        if first_ns == last_ns:
            reading.gaps_us = [0] * (len(times) - 1)
        else:
            # From offsets cut to microseconds: the sum of the gaps is off by one at most, not by one each.
            offsets_us = [(at - first_ns) // 1000 for at in times]
            reading.gaps_us = list(map(sub, offsets_us[1:], offsets_us))
    secrets = exchange.secrets
    reading.finish_reason = _known_name(state.finish_reason, secrets)
    reading.response_id = error_body.name_or_none(state.response_id, secrets)
    reading.model = _known_name(state.model, secrets)
    _read_usage(state.usage, reading)
    if exchange.keep_text:
        reading.text, reading.reasoning, reading.tool_calls = state.text, state.reasoning, state.tool_calls
    if state.error is not None:
        return error_body.from_value(state.error, secrets)
    if overrun is not None:
        return Problem(overrun.kind, None, overrun.message)
    if state.bad_event is not None:
        shown = error_body.clean(state.bad_event[:500].decode("utf-8", "replace"), secrets)
        return Problem(Fault.BAD_EVENT, None, error_body.clean(f"an event that is not JSON: {shown}"))
    failure = exchange.failure
    if failure is not None and not (state.done and failure.kind in {Fault.CLOSED_EARLY, Fault.RESET}):
        return Problem()
    if not state.done:
        return Problem(Fault.MISSING_DONE, None, "the stream ended without [DONE]")
    return None


@lru_cache(maxsize=256)
def _known_name(name: str | None, secrets: tuple[str, ...]) -> str | None:
    """``name_or_none`` for names of which there are only a few."""
    return error_body.name_or_none(name, secrets)


def _conclude_plain(exchange: Exchange, reading: Reading, body: bytes) -> Problem | None:
    """Fill in what a plain answer said; return what was wrong with it."""
    status, secrets = exchange.status or 0, exchange.secrets
    if 300 <= status < 400:
        return Problem(Fault.REDIRECT, None, _redirect(exchange))
    if not 200 <= status < 300:
        return error_body.from_body(body, secrets)
    if exchange.failure is not None:
        return Problem()
    try:
        answer = decode_chunk(body)
    except ValueError:
        return _not_a_chat_answer(exchange, body)
    if answer.error is not None:
        return error_body.from_value(answer.error, secrets)
    _read_answer(answer, exchange, reading)
    return None


def _not_a_chat_answer(exchange: Exchange, body: bytes) -> Problem | None:
    """A 200 that is not a chat answer: fine if it is other JSON and no stream was asked for."""
    try:
        value = decode_any(body)
    except ValueError:
        said = error_body.from_body(body, exchange.secrets).message
        kind = Fault.NOT_EVENT_STREAM if exchange.stream else Fault.NOT_JSON
        wanted = "an event stream" if exchange.stream else "JSON"
        return Problem(kind, None, error_body.clean(f"not {wanted}: {said or 'an empty body'}"))
    if isinstance(value, dict) and value.get("error"):
        return error_body.from_value(value["error"], exchange.secrets, value)
    if exchange.stream:
        return Problem(Fault.NOT_EVENT_STREAM, None, "not an event stream: JSON that is no chat answer")
    return None


def _read_answer(answer: Chunk, exchange: Exchange, reading: Reading) -> None:
    secrets = exchange.secrets
    reading.response_id = error_body.name_or_none(answer.id, secrets)
    reading.model = error_body.name_or_none(answer.model, secrets)
    _read_usage(answer.usage, reading)
    # A plain answer is a stream of one chunk, so it is taken apart by the same code.
    state = StreamFold(keep_text=exchange.keep_text)
    state.add(answer)
    state.settle()
    reading.finish_reason = error_body.name_or_none(state.finish_reason, secrets)
    reading.text, reading.reasoning, reading.tool_calls = state.text, state.reasoning, state.tool_calls


def _read_usage(usage: Any, reading: Reading) -> None:
    if not isinstance(usage, dict):
        return
    reading.prompt_tokens = _count(usage, "prompt_tokens")
    reading.completion_tokens = _count(usage, "completion_tokens")
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    reading.cached_tokens = _count(prompt, "cached_tokens")
    if reading.cached_tokens is None:
        reading.cached_tokens = _count(usage, "prompt_cache_hit_tokens")
    reading.reasoning_tokens = _count(completion, "reasoning_tokens")


def _count(table: Any, key: str) -> int | None:
    value = table.get(key) if isinstance(table, dict) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53:
        return value
    return None


def _redirect(exchange: Exchange) -> str:
    location = next((value for name, value in exchange.headers if name == "location"), "")
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    to = error_body.clean(host or "another path of the same host", exchange.secrets, 100)
    return f"redirects are not followed; this one leads to {to}"


def _outcome(exchange: Exchange, reading: Reading, found: Problem | None) -> Outcome:
    """Return what became of the attempt.

    Given up by this side: cancelled, then timeout. Else the status decides where there is one that is
    not 2xx: 429 is a refusal, unless the body says that money has run out (client error: waiting does
    not help) or the server is overloaded (server error); 503 and 403 are refusals where the body speaks
    of a rate limit or the headers say that nothing remains, and only then: ``Retry-After`` on a 503 alone
    is as often maintenance. A 2xx that is spoilt is a broken stream if events were asked for, a transport
    error if its bytes did not all come, and else a server error; a connection cut after ``[DONE]`` has
    spoilt nothing.
    """
    failure, status = exchange.failure, exchange.status
    if failure is not None:
        if failure.kind is Fault.CANCELLED:
            return Outcome.CANCELLED
        if failure.kind in TIMEOUTS:
            return Outcome.TIMEOUT
    if status is None:
        return Outcome.TRANSPORT_ERROR
    if not 200 <= status < 300:
        return _refused_or_wrong(status, reading, found or Problem())
    return Outcome.OK if found is None else _spoilt(exchange)


def _spoilt(exchange: Exchange) -> Outcome:
    if exchange.stream:
        return Outcome.BROKEN_STREAM
    return Outcome.SERVER_ERROR if exchange.failure is None else Outcome.TRANSPORT_ERROR


def _refused_or_wrong(status: int, reading: Reading, found: Problem) -> Outcome:
    names = f"{found.type or ''} {found.code or ''}".lower()
    if status == 429:
        if any(word in names for word in OUT_OF_MONEY):
            return Outcome.CLIENT_ERROR
        return Outcome.SERVER_ERROR if any(word in names for word in OVERLOAD) else Outcome.RATE_LIMITED
    if status in {403, 503}:
        said = f"{names} {found.message or ''}".lower()
        quota = reading.quota
        if any(word in said for word in RATE_WORDS) or 0 in {
            quota.remaining_requests,
            quota.remaining_tokens,
        }:
            return Outcome.RATE_LIMITED
    return Outcome.SERVER_ERROR if status >= 500 else Outcome.CLIENT_ERROR
