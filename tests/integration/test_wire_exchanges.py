from __future__ import annotations

import socket
import time
from pathlib import Path

import gevent
import pytest
from support_wire import HEADERS, PATIENT, TIMEOUTS, Server, exchange_with

from bltybench.errors import UserError
from bltybench.runs.attempt import Outcome
from bltybench.wire import Connection, Exchange, Fault, Origin, Reader


@pytest.mark.parametrize("path", ["stream", "split", "trailers", "interim"])
def test_streams(server: Server, reader: Reader, path: str) -> None:
    exchange, reading = exchange_with(server.port, path, reader, timeouts=PATIENT)
    assert (reading.outcome, reading.status, reading.text) == (Outcome.OK, 200, "ab")
    assert (reading.events, len(reading.gaps_us or ())) == (2, 1)
    times = [
        exchange.sent_ns,
        exchange.headers_ns,
        reading.first_token_ns,
        reading.last_token_ns,
        exchange.end_ns,
    ]
    assert all(at is not None for at in times)
    assert times == sorted(times, key=lambda at: at or 0)
    assert exchange.connect_ns is not None
    assert exchange.tls_ns is None


@pytest.mark.parametrize("path", ["until-close", "cut-after-done"])
def test_a_body_that_ends_with_the_connection(server: Server, reader: Reader, path: str) -> None:
    _, reading = exchange_with(server.port, path, reader)
    assert (reading.outcome, reading.text) == (Outcome.OK, "a")


@pytest.mark.parametrize("path", ["plain", "big"])
@pytest.mark.parametrize("stream", [False, True])
def test_plain_answers_also_where_a_stream_was_asked_for(
    server: Server, reader: Reader, path: str, stream: bool
) -> None:
    exchange, reading = exchange_with(server.port, path, reader, stream=stream)
    assert (reading.outcome, reading.text, reading.finish_reason) == (Outcome.OK, "Hi", "stop")
    assert (reading.prompt_tokens, reading.completion_tokens) == (3, 1)
    assert (reading.cached_tokens, reading.reasoning_tokens) == (2, 0)
    assert (reading.streamed, reading.first_token_ns, reading.gaps_us) == (False, None, None)
    assert exchange.bytes_received > 0


@pytest.mark.parametrize(
    ("path", "stream", "wanted"),
    [
        ("endless-headers", True, (Outcome.TRANSPORT_ERROR, Fault.TOO_MANY_HEADERS)),
        ("endless-header-line", True, (Outcome.TRANSPORT_ERROR, Fault.HEADERS_TOO_LARGE)),
        ("endless-interim", True, (Outcome.TRANSPORT_ERROR, Fault.HEADERS_TOO_LARGE)),
        ("endless-body", False, (Outcome.TRANSPORT_ERROR, Fault.BODY_TOO_LARGE)),
        ("endless-event", True, (Outcome.BROKEN_STREAM, Fault.EVENT_TOO_LARGE)),
        ("endless-events", True, (Outcome.BROKEN_STREAM, Fault.TOO_MANY_EVENTS)),
        ("close", True, (Outcome.TRANSPORT_ERROR, Fault.CLOSED_EARLY)),
        ("reset", True, (Outcome.TRANSPORT_ERROR, Fault.RESET)),
        ("broken-off", True, (Outcome.BROKEN_STREAM, Fault.CLOSED_EARLY)),
        ("reset-midway", True, (Outcome.BROKEN_STREAM, Fault.RESET)),
        ("no-done", True, (Outcome.BROKEN_STREAM, Fault.MISSING_DONE)),
        ("error-event", True, (Outcome.BROKEN_STREAM, None)),
        ("html", True, (Outcome.BROKEN_STREAM, Fault.NOT_EVENT_STREAM)),
        ("html", False, (Outcome.SERVER_ERROR, Fault.NOT_JSON)),
        ("gzip", True, (Outcome.BROKEN_STREAM, Fault.CONTENT_ENCODING)),
        ("redirect", True, (Outcome.CLIENT_ERROR, Fault.REDIRECT)),
        ("not-http", True, (Outcome.TRANSPORT_ERROR, Fault.BAD_HTTP)),
        ("upgrade", True, (Outcome.TRANSPORT_ERROR, Fault.BAD_HTTP)),
        ("429", True, (Outcome.RATE_LIMITED, "requests")),
        ("429-money", True, (Outcome.CLIENT_ERROR, None)),
        ("503", True, (Outcome.SERVER_ERROR, None)),
        ("503-limit", True, (Outcome.RATE_LIMITED, None)),
        ("403", True, (Outcome.CLIENT_ERROR, None)),
        ("500", False, (Outcome.SERVER_ERROR, None)),
    ],
)
def test_failures_are_typed(
    server: Server, reader: Reader, path: str, stream: bool, wanted: tuple[Outcome, str | None]
) -> None:
    exchange, reading = exchange_with(server.port, path, reader, stream=stream, timeouts=PATIENT)
    assert (reading.outcome, reading.error_type) == wanted
    assert exchange.end_ns is not None
    assert reading.error_message or path == "429-money"


@pytest.mark.parametrize(
    ("path", "error_type"),
    [
        ("silent", Fault.HEADERS_TIMEOUT),
        ("stalls", Fault.IDLE_TIMEOUT),
        ("endless-stream", Fault.TOTAL_TIMEOUT),
        ("one-byte-now-and-then", Fault.TOTAL_TIMEOUT),
    ],
)
def test_timeouts_are_named(server: Server, reader: Reader, path: str, error_type: Fault) -> None:
    exchange, reading = exchange_with(server.port, path, reader)
    assert (reading.outcome, reading.error_type) == (Outcome.TIMEOUT, error_type)
    assert (reading.events > 0) == (path in {"stalls", "endless-stream"})
    assert exchange.failure is not None


def test_refusals_say_why_and_keep_no_keys(server: Server, reader: Reader) -> None:
    _, reading = exchange_with(server.port, "429", reader)
    assert (reading.error_code, reading.request_id) == ("rl", "r-1")
    assert reading.error_message == "Rate limit, key [redacted]"
    assert reading.quota.retry_after_s == 7


def test_a_redirect_names_the_host_only(server: Server, reader: Reader) -> None:
    _, reading = exchange_with(server.port, "redirect", reader)
    assert reading.error_message == "redirects are not followed; this one leads to elsewhere.example"


@pytest.mark.parametrize(
    ("path", "kept"), [("plain", True), ("closes-idle", False), ("closes-later", False), ("surplus", False)]
)
def test_connections_are_reused_only_where_they_can_be(
    server: Server, reader: Reader, path: str, kept: bool
) -> None:
    connection = Connection(Origin(f"http://127.0.0.1:{server.port}/v1", PATIENT), reader)
    opened = []
    for _ in range(2):
        exchange = Exchange()
        connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
        assert reader.read(exchange).outcome is Outcome.OK
        opened.append(exchange.connect_ns is not None)
        gevent.sleep(0.15)
    connection.close()
    assert opened == [True, not kept]


def test_a_connection_closed_while_nothing_ran_is_noticed_before_sending(
    server: Server, reader: Reader
) -> None:
    connection = Connection(Origin(f"http://127.0.0.1:{server.port}/v1", PATIENT), reader)
    for _ in range(2):
        exchange = Exchange()
        connection.send("POST", "/closes-later", HEADERS, b"{}", exchange)
        assert reader.read(exchange).outcome is Outcome.OK
        time.sleep(0.15)  # not gevent's: the event loop does not see the end of the connection
    connection.close()


def test_a_large_request_and_an_answer_before_it_is_read(server: Server, reader: Reader) -> None:
    connection = Connection(Origin(f"http://127.0.0.1:{server.port}/v1", PATIENT), reader)
    body = b"x" * 8_000_000
    exchange = Exchange()
    connection.send("POST", "/plain", HEADERS, body, exchange)
    assert reader.read(exchange).outcome is Outcome.OK
    assert exchange.bytes_sent > len(body)
    early = Exchange()
    connection.send("POST", "/early", HEADERS, body, early)
    reading = reader.read(early)
    connection.close()
    assert reading.outcome in {Outcome.CLIENT_ERROR, Outcome.TRANSPORT_ERROR}


def test_a_killed_greenlet_leaves_a_cancelled_exchange(server: Server, reader: Reader) -> None:
    connection = Connection(Origin(f"http://127.0.0.1:{server.port}/v1", PATIENT), reader)
    exchange = Exchange(stream=True)
    greenlet = gevent.spawn(connection.send, "POST", "/stalls", HEADERS, b"{}", exchange)
    while exchange.headers_ns is None:
        gevent.sleep(0.01)
    greenlet.kill()
    assert isinstance(greenlet.value, gevent.GreenletExit)
    reading = reader.read(exchange)
    assert (reading.outcome, reading.status, reading.events) == (Outcome.CANCELLED, 200, 1)
    again = Exchange()
    connection.send("POST", "/plain", HEADERS, b"{}", again)
    assert reader.read(again).outcome is Outcome.OK
    connection.close()


def test_nobody_listens_and_nobody_is_called_so(reader: Reader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    exchange, reading = exchange_with(port, "plain", reader)
    assert (reading.outcome, reading.error_type, exchange.sent_ns) == (
        Outcome.TRANSPORT_ERROR,
        Fault.CONNECT,
        None,
    )
    assert "refused" in (reading.error_message or "")
    connection = Connection(Origin("http://nobody.invalid/v1", TIMEOUTS), reader)
    unnamed = Exchange()
    connection.send("GET", "/models", [], b"", unnamed)
    assert reader.read(unnamed).error_type in {Fault.NAME, Fault.CONNECT_TIMEOUT}


def test_headers_cannot_be_smuggled(server: Server, reader: Reader) -> None:
    connection = Connection(Origin(f"http://127.0.0.1:{server.port}/v1", TIMEOUTS), reader)
    for path, value in (("/plain", "a\r\nX: b"), ("/plain", "a\nb"), ("/a b\r\n", "c")):
        with pytest.raises(ValueError, match="line break"):
            connection.send("POST", path, [("X", value)], b"", Exchange())


@pytest.mark.parametrize(
    "url", ["", "ftp://x/v1", "http://127.0.0.1:99999/v1", "http://a..b/v1", "http://[/v1"]
)
def test_a_base_url_that_is_none_is_the_users_to_mend(url: str) -> None:
    with pytest.raises(UserError, match="base URL"):
        Origin(url, PATIENT)


def test_a_missing_ca_file_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="certificates"):
        Origin("https://127.0.0.1/v1", PATIENT, ca_file=str(tmp_path / "none.pem"))
