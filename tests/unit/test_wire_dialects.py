"""Dialects of OpenAI-compatible servers, from the bytes of a response to its result (docs/dialects.md)."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from support_wire import ended_exchange

from bltybench.runs.attempt import Outcome
from bltybench.wire import Exchange, ExchangeResult, Failure, Fault
from bltybench.wire.http.response import BAD_BYTES, ResponseParser
from bltybench.wire.interpret import interpret

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = b"Content-Type: text/event-stream\r\n"


def event(delta: dict[str, Any], finish: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice], **more}).encode() + b"\n\n"


ROLE = event({"role": "assistant", "content": ""})
TEXT = event({"content": "a"}) + event({"content": "b"})
STOP = event({}, "stop")
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'


def stream(body: bytes, headers: bytes = EVENT_STREAM, failure: Failure | None = None) -> ExchangeResult:
    head = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (headers, len(body) + (failure is not None))
    return interpret(ended_exchange(head + body, stream=True, failure=failure))


@pytest.mark.parametrize(
    ("body", "notes"),
    [
        pytest.param(TEXT + STOP + DONE, None, id="openai"),
        pytest.param(ROLE + TEXT + STOP + USAGE, "missing_done", id="missing_done"),  # transformers serve
        pytest.param(TEXT + DONE, "no_finish_reason", id="no_finish_reason"),  # gateways
        pytest.param(TEXT + STOP.removesuffix(b"\n\n"), "missing_done", id="no_blank_line"),  # hand-written
        pytest.param(TEXT + STOP + DONE[:-2], None, id="done_without_blank_line"),  # hand-written servers
        pytest.param(TEXT + STOP + DONE + USAGE, "events_after_done", id="events_after_done"),  # proxies
        pytest.param(TEXT + STOP + DONE + event({"content": "c"}), "events_after_done", id="late_content"),
        pytest.param(TEXT + STOP + DONE + b": ping\n\n" + DONE, "events_after_done", id="done_twice"),
        pytest.param(
            TEXT + STOP + DONE + b'data: {"error":"late"}\n\n', "events_after_done", id="late_error"
        ),
        pytest.param(TEXT + event({}, {"type": "stop"}) + DONE, None, id="finish_object"),  # SGLang
    ],
)
def test_streams_that_ended_are_complete_and_their_deviations_are_noted(
    body: bytes, notes: str | None
) -> None:
    result = stream(body)
    assert (result.outcome, result.text, result.events, result.notes) == (Outcome.OK, "ab", 2, notes)
    assert result.finish_reason == (None if notes == "no_finish_reason" else "stop")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        pytest.param(TEXT, Fault.MISSING_DONE, id="cut_short"),  # a proxy that gives up
        pytest.param(b"", Fault.MISSING_DONE, id="empty_body"),
        pytest.param(DONE, Fault.NO_ANSWER, id="only_done"),  # gateways whose upstream failed
        pytest.param(ROLE + DONE, Fault.NO_ANSWER, id="role_and_done"),
        pytest.param(b": ping\n\n" * 3 + DONE, Fault.NO_ANSWER, id="comments_and_done"),  # OpenRouter
        pytest.param(DONE + TEXT + STOP, Fault.NO_ANSWER, id="all_after_done"),
        pytest.param(TEXT + event({}, "error") + DONE, Fault.FINISH_REASON, id="failed_error"),  # OpenRouter
        pytest.param(TEXT + event({}, "abort") + DONE, Fault.FINISH_REASON, id="failed_abort"),  # vLLM
        pytest.param(TEXT + event({}, "ABORT"), Fault.FINISH_REASON, id="failed_upper_case"),
        pytest.param(
            TEXT + event({}, "insufficient_system_resource") + DONE,  # DeepSeek
            Fault.FINISH_REASON,
            id="failed_resource",
        ),
        pytest.param(
            TEXT + event({}, {"type": "abort", "message": "x"}),  # SGLang
            Fault.FINISH_REASON,
            id="failed_object",
        ),
    ],
)
def test_streams_without_a_complete_answer_fail(body: bytes, fault: Fault) -> None:
    result = stream(body)
    outcome = Outcome.NO_ANSWER if fault is Fault.NO_ANSWER else Outcome.BROKEN_STREAM
    assert (result.outcome, result.error_type) == (outcome, fault)
    assert result.error_message


@pytest.mark.parametrize("kind", [Fault.RESET, Fault.BAD_HTTP, Fault.IDLE_TIMEOUT, Fault.CLOSED_EARLY])
def test_a_failure_after_done_damages_nothing_and_one_before_it_does(kind: Fault) -> None:
    failure = Failure(kind, "why")
    assert stream(TEXT + STOP + DONE, failure=failure).outcome is Outcome.OK
    result = stream(TEXT + STOP, failure=failure)
    assert (result.outcome is Outcome.TIMEOUT) == (kind is Fault.IDLE_TIMEOUT)
    assert (result.outcome is not Outcome.OK, result.error_type) == (True, kind)


def test_a_plain_answer_that_the_server_gave_up_is_an_error() -> None:
    body = b'{"choices":[{"message":{"content":"a"},"finish_reason":"insufficient_system_resource"}]}'
    result = interpret(ended_exchange(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)))
    assert (result.outcome, result.error_type) == (Outcome.SERVER_ERROR, Fault.FINISH_REASON)
    assert "insufficient_system_resource" in (result.error_message or "")


ANSWER = b'{"choices":[{"message":{"content":"ab"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize(
    ("headers", "notes"),
    [
        pytest.param(EVENT_STREAM, None, id="content_type"),
        pytest.param(b"Content-Type: Text/Event-Stream; charset=utf-8\r\n", None, id="with_charset"),
        pytest.param(b"", "no_content_type", id="no_content_type"),  # hand-written servers
        pytest.param(b"Content-Type: text/plain\r\n", "wrong_content_type", id="text"),  # Flask's default
        pytest.param(b"Content-Type: application/json\r\n", "wrong_content_type", id="json"),  # proxies
        pytest.param(b"Content-Type: application/octet-stream\r\n", "wrong_content_type", id="octets"),
    ],
)
@pytest.mark.parametrize(
    "start", [b"", b"\xef\xbb\xbf", b": ping\n\n", b"\n\n", b"event: message\n", b"id: 1\n"]
)
def test_an_event_stream_is_read_whatever_content_type_and_status_say(
    status: int, headers: bytes, notes: str | None, start: bytes
) -> None:
    body = start + TEXT + STOP + DONE
    head = b"HTTP/1.1 %d OK\r\n%sContent-Length: %d\r\n\r\n" % (status, headers, len(body))
    result = interpret(ended_exchange(head + body, stream=True))
    assert (result.outcome, result.streamed, result.text) == (Outcome.OK, True, "ab")
    assert (result.status, result.notes) == (status, notes)


def test_a_plain_answer_announced_as_an_event_stream_is_read() -> None:
    result = stream(ANSWER)
    assert (result.outcome, result.streamed, result.text) == (Outcome.OK, False, "ab")
    assert result.notes == "wrong_content_type"


@pytest.mark.parametrize(
    ("requested", "headers", "body", "words"),
    [
        (
            True,
            b"Content-Type: text/html\r\n",
            b"<p>hello",
            "not an event stream (Content-Type is text/html)",
        ),
        (True, b"", b"hello", "not an event stream (no Content-Type)"),
        (False, EVENT_STREAM, b"hello", "not JSON (Content-Type is text/event-stream)"),
        (True, EVENT_STREAM + b"Content-Encoding: br\r\n", b"\x1f\x8b", "Content-Encoding is br"),
        (True, EVENT_STREAM + b"Content-Encoding: gzip\r\n", b"\x1f\x8b", "Content-Encoding is gzip"),
    ],
)
def test_a_failure_caused_by_a_header_names_the_header(
    requested: bool, headers: bytes, body: bytes, words: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (headers, len(body))
    result = interpret(ended_exchange(head + body, stream=requested))
    assert result.outcome is not Outcome.OK
    assert words in (result.error_message or "")


@pytest.mark.parametrize("headers", [EVENT_STREAM, b"Content-Type: application/json\r\n", b""])
@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (TEXT + STOP + DONE, Outcome.OK),
        (TEXT, Outcome.BROKEN_STREAM),
        (ROLE + DONE, Outcome.NO_ANSWER),
        (b'data: {"error":{"message":"boom"}}\n\n', Outcome.BROKEN_STREAM),
    ],
)
def test_an_event_stream_is_read_although_a_plain_answer_was_requested(
    headers: bytes, body: bytes, outcome: Outcome
) -> None:
    # gateways that force streaming upstream
    head = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (headers, len(body))
    result = interpret(ended_exchange(head + body))
    assert (result.outcome, result.streamed) == (outcome, True)
    if outcome is Outcome.OK:
        assert (result.text, result.finish_reason) == ("ab", "stop")
        assert "unrequested_stream" in (result.notes or "").split(",")


def deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKERS = [
    pytest.param(b"gzip", gzip.compress, id="gzip"),
    pytest.param(b"X-GZip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]), id="two_members"),
    pytest.param(b"deflate", zlib.compress, id="zlib"),
    pytest.param(b"deflate", deflated, id="raw_deflate"),
]


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
@pytest.mark.parametrize("size", [1, 10_000])
def test_compressed_bodies_are_read_although_none_was_requested(
    coding: bytes, pack: Callable[[bytes], bytes], size: int
) -> None:
    refusal = b'{"error":{"message":"Rate limit","type":"requests"}}'
    for status, requested, body in (
        (200, False, ANSWER),
        (200, True, TEXT + STOP + DONE),
        (429, False, refusal),
    ):
        packed = pack(body)
        head = b"HTTP/1.1 %d X\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n"
        data = head % (status, coding, len(packed)) + packed
        exchange = Exchange(stream=requested)
        parser = ResponseParser(exchange)
        for at in range(0, len(data), size):
            parser.feed(data[at : at + size])
        exchange.arrivals.extend([1] * len(exchange.pieces))
        exchange.end_ns = 2
        result = interpret(exchange)
        if status == 429:
            assert (result.outcome, result.error_type) == (Outcome.RATE_LIMITED, "requests")
        else:
            assert (result.outcome, result.text, result.streamed) == (Outcome.OK, "ab", requested)
        assert "compressed" in (result.notes or "").split(",")


@pytest.mark.parametrize("requested", [False, True])
@pytest.mark.parametrize(
    ("packed", "fault", "words"),
    [
        (gzip.compress(b"data: x\n\n" * 4_000_000, mtime=0), Fault.BODY_TOO_LARGE, "after decompression"),
        (gzip.compress(ANSWER, mtime=0)[:-20], Fault.CONTENT_ENCODING, "incomplete"),
        (ANSWER, Fault.CONTENT_ENCODING, "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_compressed_bodies_that_cannot_be_read_are_typed_errors(
    requested: bool, packed: bytes, fault: Fault, words: str
) -> None:
    head = b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    result = interpret(ended_exchange(head + packed, stream=requested))
    assert (result.outcome is not Outcome.OK, result.error_type) == (True, fault)
    assert words in (result.error_message or "")
    assert "Content-Encoding is gzip" in (result.error_message or "")


def choice(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
    chosen = {"index": index, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [chosen]}).encode() + b"\n\n"


def test_all_choices_decide_whether_an_answer_is_complete() -> None:
    first, second = choice(0, {"content": "ab"}), choice(1, {"content": "cd"})
    assert stream(second + choice(1, {}, "stop") + DONE).outcome is Outcome.OK
    both = first + second + choice(0, {}, "stop")
    assert stream(both).error_type is Fault.MISSING_DONE
    ended = stream(both + choice(1, {}, "length"))
    assert (ended.outcome, ended.text, ended.finish_reason) == (Outcome.OK, "ab", "stop")
    failed = stream(both + choice(1, {}, "error") + DONE)
    assert (failed.outcome, failed.error_type) == (Outcome.BROKEN_STREAM, Fault.FINISH_REASON)
    assert failed.finish_reason == "error"


BAD_HEADERS = [
    pytest.param(b"X-Trace: a\x01b\r\n", id="control"),  # binary trace ids of proxies
    pytest.param(b"X-Trace: \x00\x7f\r\n", id="nul"),
    pytest.param(b"X-Message: \x1b[31mslow down\r\n", id="escape"),
    pytest.param(b"X-Message: two\nlines\r\n", id="line_feed"),  # messages copied into headers
    pytest.param(b"X-Message: two\rlines\r\n", id="carriage_return"),
    pytest.param(b"X-Message: folded\r\n\tline\r\n", id="folded"),  # RFC 2616 servers
    pytest.param(b"X Message: a\r\n", id="name"),
    pytest.param("é: a\r\n".encode(), id="name_not_ascii"),
    pytest.param(b"no colon\r\n", id="no_colon"),
]


@pytest.mark.parametrize("bad", BAD_HEADERS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_one_bad_header_does_not_hide_the_status_and_the_others(bad: bytes, size: int) -> None:
    body = b'{"error":{"message":"slow down","type":"requests"}}'
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 X\r\nRetry-After: 7\r\n%s" % bad
    data += b"x-request-id: r-1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    exchange = Exchange()
    parser = ResponseParser(exchange)
    for at in range(0, len(data), size):
        parser.feed(data[at : at + size])
    assert (parser.final, parser.complete, parser.keep_alive) == (True, True, False)
    exchange.arrivals.extend([1] * len(exchange.pieces))
    exchange.end_ns = 2
    result = interpret(exchange)
    assert (result.outcome, result.status, result.error_type) == (Outcome.RATE_LIMITED, 429, "requests")
    assert (result.quota.retry_after_s, result.request_id, result.notes) == (7, "r-1", "bad_header")


@pytest.mark.parametrize("bad", BAD_HEADERS)
def test_streams_with_a_bad_header_are_read(bad: bytes) -> None:
    result = stream(TEXT + STOP + DONE, EVENT_STREAM + bad)
    assert (result.outcome, result.text, result.notes) == (Outcome.OK, "ab", "bad_header")


def test_a_chunked_body_with_a_content_length_is_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
    result = interpret(ended_exchange(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(ANSWER), ANSWER)))
    assert (result.outcome, result.text, result.notes) == (Outcome.OK, "ab", "bad_header")


def test_the_status_is_kept_if_the_length_of_the_body_is_unknowable() -> None:
    result = interpret(ended_exchange(b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: many\r\n\r\n{}"))
    assert (result.outcome, result.status, result.quota.retry_after_s) == (Outcome.RATE_LIMITED, 429, 7)


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.0\r\n", b"HTTP/1.1 4290 X\r\nA: \x01\r\n\r\n", b"\x00" * 99]
)
def test_bytes_that_are_not_http_have_no_status(data: bytes) -> None:
    exchange = Exchange()
    with pytest.raises(BAD_BYTES):
        ResponseParser(exchange).feed(data)
    assert exchange.status is None
