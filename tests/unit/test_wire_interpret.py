from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_wire import ended_exchange

from bltybench.runs.attempt import Outcome
from bltybench.text import MAX_MESSAGE_CHARS
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret

EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"tok"},"finish_reason":null}]}\n\n'


def response(status: int, body: bytes = b"", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


def error(message: str = "", kind: str = "", code: str = "") -> bytes:
    return f'{{"error":{{"message":"{message}","type":"{kind}","code":"{code}"}}}}'.encode()


@pytest.mark.parametrize(
    ("status", "body", "headers", "outcome"),
    [
        (429, b"", b"", Outcome.RATE_LIMITED),
        (429, error("slow", "requests", "rate_limit_exceeded"), b"", Outcome.RATE_LIMITED),
        (429, error("pay", "insufficient_quota", "insufficient_quota"), b"", Outcome.CLIENT_ERROR),
        (429, error("pay", "", "billing_hard_limit_reached"), b"", Outcome.CLIENT_ERROR),
        (429, error("busy", "engine_overloaded_error"), b"", Outcome.SERVER_ERROR),
        (429, error("The engine is currently overloaded"), b"", Outcome.SERVER_ERROR),
        (503, error("overloaded"), b"X-RateLimit-Remaining: 0\r\n", Outcome.SERVER_ERROR),
        (503, b"", b"Retry-After: 3\r\n", Outcome.SERVER_ERROR),
        (503, error("Rate limit reached"), b"", Outcome.RATE_LIMITED),
        (503, b"<title>503 Too Many Requests</title>", b"", Outcome.RATE_LIMITED),
        (503, b"", b"X-RateLimit-Remaining: 0\r\n", Outcome.RATE_LIMITED),
        (403, b"", b"X-RateLimit-Remaining: 0\r\n", Outcome.RATE_LIMITED),
        (403, error("not yours"), b"X-RateLimit-Remaining: 3\r\n", Outcome.CLIENT_ERROR),
        (401, error("key"), b"X-RateLimit-Remaining: 0\r\n", Outcome.CLIENT_ERROR),
        (400, error("rate limit is not a word here"), b"", Outcome.CLIENT_ERROR),
        (529, error("overloaded"), b"", Outcome.SERVER_ERROR),
        (500, b"", b"", Outcome.SERVER_ERROR),
        (302, b"", b"Location: //[bad\r\n", Outcome.CLIENT_ERROR),
        (204, b"", b"", Outcome.SERVER_ERROR),
        (200, b'{"object":"list","data":[]}', b"", Outcome.OK),
        (200, b"[]", b"", Outcome.OK),
        (200, error("inside"), b"", Outcome.SERVER_ERROR),
        (200, b'{"choices":[{}]}', b"Content-Encoding: br\r\n", Outcome.SERVER_ERROR),
        (200, b'{"choices":[{}]}', b"Content-Encoding: identity\r\n", Outcome.OK),
    ],
)
def test_status_body_and_headers_decide_the_outcome(
    status: int, body: bytes, headers: bytes, outcome: Outcome
) -> None:
    assert interpret(ended_exchange(response(status, body, headers))).outcome is outcome


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (Fault.CANCELLED, Outcome.CANCELLED),
        (Fault.TOTAL_TIMEOUT, Outcome.TIMEOUT),
        (Fault.IDLE_TIMEOUT, Outcome.TIMEOUT),
        (Fault.RESET, Outcome.TRANSPORT_ERROR),
    ],
)
def test_a_cancellation_or_timeout_decides_before_the_status(kind: Fault, outcome: Outcome) -> None:
    exchange = ended_exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", failure=Failure(kind, "why"))
    result = interpret(exchange)
    assert (result.outcome, result.error_type, result.error_message) == (outcome, kind, "why")


def test_a_truncated_refusal_is_still_a_refusal() -> None:
    exchange = ended_exchange(
        b"HTTP/1.1 429 X\r\nContent-Length: 9\r\n\r\n{", failure=Failure(Fault.RESET, "why")
    )
    assert interpret(exchange).outcome is Outcome.RATE_LIMITED


HEADS = st.sampled_from(
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-RateLimit-Reset: 1e9\r\n\r\n",
        b"HTTP/1.1 429 No\r\nRetry-After: Foo, 99\r\nLocation: \xff\r\n\r\n",
        b"HTTP/1.1 307 Go\r\nLocation: http://[\r\n\r\n",
    ]
)
BODIES = st.lists(
    st.binary(max_size=60)
    | st.sampled_from([EVENT, b"data: [DONE]\n\n", b"5\r\ndata:\r\n", b'{"error":', b"\x1b[2J"]),
    max_size=6,
).map(b"".join)


@given(HEADS, BODIES, st.booleans())
def test_any_response_has_a_consistent_result(head: bytes, body: bytes, stream: bool) -> None:
    result = interpret(ended_exchange(head + body, stream=stream))
    assert result.outcome in Outcome
    if result.outcome is Outcome.OK:
        assert (result.error_type, result.error_message) == (None, None)
    assert len(result.error_message or "") <= MAX_MESSAGE_CHARS
    assert (result.first_token_ns is None) == (result.gaps_us is None)
