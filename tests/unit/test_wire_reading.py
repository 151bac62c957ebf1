from __future__ import annotations

from contextlib import suppress

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.runs.attempt import Outcome
from bltybench.text import MAX_MESSAGE_CHARS
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.http.response import BAD_BYTES, ResponseParser
from bltybench.wire.interpret import interpret
from bltybench.wire.scheduling import reader as reader_module
from bltybench.wire.scheduling.reader import MAX_INLINE_BYTES, Reader

EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"tok"},"finish_reason":null}]}\n\n'


def ended(answer: bytes, *, stream: bool = False, failure: Failure | None = None) -> Exchange:
    """An exchange as a connection leaves it after an answer that came in one read."""
    exchange = Exchange(stream=stream)
    exchange.sent_ns = 1
    parser = ResponseParser(exchange)
    with suppress(*BAD_BYTES):
        parser.feed(answer)
        parser.end()
    if parser.final:
        exchange.headers_ns = 2
    exchange.arrivals.extend([3] * len(exchange.pieces))
    exchange.bytes_received = len(answer)
    exchange.end_ns = 4
    exchange.failure = failure
    if not parser.complete and failure is None:
        exchange.failure = Failure(Fault.CLOSED_EARLY, "closed")
    return exchange


def answer(status: int, body: bytes = b"", headers: bytes = b"") -> bytes:
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
def test_outcomes(status: int, body: bytes, headers: bytes, outcome: Outcome) -> None:
    assert interpret(ended(answer(status, body, headers))).outcome is outcome


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (Fault.CANCELLED, Outcome.CANCELLED),
        (Fault.TOTAL_TIMEOUT, Outcome.TIMEOUT),
        (Fault.IDLE_TIMEOUT, Outcome.TIMEOUT),
        (Fault.RESET, Outcome.TRANSPORT_ERROR),
    ],
)
def test_what_this_side_did_goes_first(kind: Fault, outcome: Outcome) -> None:
    exchange = ended(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", failure=Failure(kind, "why"))
    reading = interpret(exchange)
    assert (reading.outcome, reading.error_type, reading.error_message) == (outcome, kind, "why")


def test_the_status_of_a_cut_off_refusal_still_holds() -> None:
    exchange = ended(b"HTTP/1.1 429 X\r\nContent-Length: 9\r\n\r\n{", failure=Failure(Fault.RESET, "why"))
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
def test_any_answer_gives_a_reading(head: bytes, body: bytes, stream: bool) -> None:
    reading = interpret(ended(head + body, stream=stream))
    assert reading.outcome in Outcome
    if reading.outcome is Outcome.OK:
        assert (reading.error_type, reading.error_message) == (None, None)
    assert len(reading.error_message or "") <= MAX_MESSAGE_CHARS
    assert (reading.first_token_ns is None) == (reading.gaps_us is None)


def streamed(events: int) -> Exchange:
    body = EVENT * events + b"data: [DONE]\n\n"
    return ended(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body, stream=True)


def test_large_answers_wait_in_the_queue_and_small_ones_do_not() -> None:
    reader = Reader()
    sizes = [1000, 2000, 1500, 500]
    readers = [gevent.spawn(reader.read, streamed(size)) for size in sizes]
    gevent.sleep(0)
    assert reader.backlog > 0
    small = reader.read(streamed(3))
    assert small.events == 3
    gevent.joinall(readers, raise_error=True)
    assert [greenlet.value.events for greenlet in readers] == sizes
    assert reader.backlog == 0


def test_a_reader_that_is_killed_leaves_the_queue_working() -> None:
    reader = Reader()
    killed = gevent.spawn(reader.read, streamed(1000))
    kept = gevent.spawn(reader.read, streamed(1000))
    gevent.sleep(0)
    killed.kill()
    assert kept.get(timeout=10).events == 1000


def test_the_queue_is_served_though_the_loop_never_rests() -> None:
    reader = Reader()

    def never_rest() -> None:
        while True:
            gevent.sleep(0)

    restless = [gevent.spawn(never_rest) for _ in range(3)]
    reading = gevent.spawn(reader.read, streamed(MAX_INLINE_BYTES))
    assert reading.get(timeout=10).events == MAX_INLINE_BYTES
    gevent.killall(restless)


def test_what_streams_have_kept_is_folded_at_once_where_too_much_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "MAX_QUEUED_FOLDS", 2)
    reader = Reader()
    kept = [streamed(200) for _ in range(4)]
    folded: list[Exchange] = []
    for exchange in kept:
        reader.fold(exchange, lambda exchange, _: folded.append(exchange))
    assert folded == kept[2:]
    assert reader.backlog == 2
    while reader.backlog:
        gevent.sleep(0)
    assert folded == [*kept[2:], *kept[:2]]
    assert not any(exchange.kept_bytes for exchange in kept)
    assert {reader.read_now(exchange).events for exchange in kept} == {200}


def test_an_exchange_that_goes_on_cannot_be_read() -> None:
    with pytest.raises(RuntimeError, match="not ended"):
        Reader().read(Exchange())
