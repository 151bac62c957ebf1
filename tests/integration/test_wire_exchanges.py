from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path

import gevent
import pytest
from support_wire import HEADERS, PATIENT, TIMEOUTS, Server, exchange_with

from bltybench.errors import UserError
from bltybench.runs.attempt import Outcome
from bltybench.wire import Connection, Exchange, Fault, Origin, Reader
from bltybench.wire.http import connection as connection_module
from bltybench.wire.scheduling import reader as reader_module
from bltybench.wire.scheduling.open_streams import FINISH_GRACE_S, PERIOD_S


@pytest.mark.parametrize("path", ["stream", "split", "trailers", "interim", "no-content-type"])
def test_streams_give_text_and_ordered_times(server: Server, reader: Reader, path: str) -> None:
    exchange, result = exchange_with(server, path, reader, timeouts=PATIENT)
    assert (result.outcome, result.status, result.text) == (Outcome.OK, 200, "ab")
    assert (result.events, len(result.gaps_us or ())) == (2, 1)
    times = [
        exchange.sent_ns,
        exchange.headers_ns,
        result.first_token_ns,
        result.last_token_ns,
        exchange.end_ns,
    ]
    assert all(at is not None for at in times)
    assert times == sorted(times, key=lambda at: at or 0)
    assert exchange.connect_ns is not None
    assert exchange.tls_ns is None


@pytest.mark.parametrize("path", ["stream", "split", "open-after-split-done"])
def test_streams_are_complete_if_every_read_is_parsed_immediately(
    server: Server, reader: Reader, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "FOLD_BYTES", 1)
    monkeypatch.setattr(reader_module, "MAX_QUEUED_FOLDS", 0)
    errors: list[object] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *error: errors.append(error))
    _, result = exchange_with(server, path, reader, timeouts=PATIENT)
    assert (result.outcome, result.text[:1], errors) == (Outcome.OK, "a", [])


@pytest.mark.parametrize("path", ["until-close", "cut-after-done"])
def test_a_closed_connection_ends_a_body_without_a_length(server: Server, reader: Reader, path: str) -> None:
    _, result = exchange_with(server, path, reader)
    assert (result.outcome, result.text) == (Outcome.OK, "a")


@pytest.mark.parametrize("path", ["open-after-done", "open-after-split-done", "talks-after-done"])
def test_a_stream_ends_at_done_even_if_the_server_keeps_the_connection_open(
    server: Server, reader: Reader, path: str
) -> None:
    # Some gateways keep the body of a finished stream open, or send keep-alives after [DONE].
    connection = server.connection(reader, PATIENT)
    for _ in range(2):
        exchange = Exchange(stream=True)
        connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
        result = reader.read(exchange)
        assert (result.outcome, result.text, result.events) == (Outcome.OK, "a", 1)
        assert "open_after_done" in (result.notes or "").split(",")
        assert exchange.connect_ns is not None  # a body that has not ended blocks its connection
        assert exchange.end_ns is not None
        assert result.last_token_ns is not None
        assert exchange.end_ns - result.last_token_ns < 100_000_000
    connection.close()


@pytest.mark.parametrize("path", ["open-after-finish", "pings-after-finish", "gzip-open"])
def test_a_stream_ends_soon_after_its_answer_is_complete_even_if_the_body_stays_open(
    server: Server, reader: Reader, path: str
) -> None:
    began_s = time.monotonic()
    exchange, result = exchange_with(server, path, reader, timeouts=PATIENT)
    assert time.monotonic() - began_s < FINISH_GRACE_S + 2 * PERIOD_S
    assert (result.outcome, result.text, result.events) == (Outcome.OK, "a", 1)
    assert "open_after_finish" in (result.notes or "").split(",")
    assert result.completion_tokens == (1 if path == "pings-after-finish" else None)
    assert exchange.end_ns is not None
    assert result.last_token_ns is not None
    assert exchange.end_ns - result.last_token_ns < 100_000_000  # the wait is not part of the latency


def test_usage_that_follows_the_finish_reason_late_is_read(server: Server, reader: Reader) -> None:
    _, result = exchange_with(server, "finish-then-usage", reader, timeouts=PATIENT)
    assert (result.outcome, result.completion_tokens, result.notes) == (Outcome.OK, 1, None)


def test_a_complete_answer_is_no_timeout_if_the_timeout_is_shorter_than_the_wait(
    server: Server, reader: Reader
) -> None:
    _, result = exchange_with(server, "open-after-finish", reader, timeouts=TIMEOUTS)
    assert (result.outcome, result.text) == (Outcome.OK, "a")


def test_a_connection_is_reused_if_the_body_ends_soon_after_done(server: Server, reader: Reader) -> None:
    connection = server.connection(reader, PATIENT)
    opened = []
    for _ in range(2):
        exchange = Exchange(stream=True)
        connection.send("POST", "/ends-after-done", HEADERS, b"{}", exchange)
        assert reader.read(exchange).notes == "no_finish_reason"
        opened.append(exchange.connect_ns is not None)
        gevent.sleep(0.05)
    connection.close()
    assert opened == [True, False]


@pytest.mark.parametrize("path", ["plain", "big"])
@pytest.mark.parametrize("stream", [False, True])
def test_plain_completions_are_accepted_even_if_a_stream_was_requested(
    server: Server, reader: Reader, path: str, stream: bool
) -> None:
    exchange, result = exchange_with(server, path, reader, stream=stream)
    assert (result.outcome, result.text, result.finish_reason) == (Outcome.OK, "Hi", "stop")
    assert (result.prompt_tokens, result.completion_tokens) == (3, 1)
    assert (result.cached_tokens, result.reasoning_tokens) == (2, 0)
    assert (result.streamed, result.first_token_ns, result.gaps_us) == (False, None, None)
    assert exchange.bytes_received > 0


@pytest.mark.parametrize(
    ("path", "stream", "expected"),
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
        ("429-bad-header", True, (Outcome.RATE_LIMITED, "requests")),
        ("429-money", True, (Outcome.CLIENT_ERROR, None)),
        ("503", True, (Outcome.SERVER_ERROR, None)),
        ("503-limit", True, (Outcome.RATE_LIMITED, None)),
        ("403", True, (Outcome.CLIENT_ERROR, None)),
        ("500", False, (Outcome.SERVER_ERROR, None)),
    ],
)
def test_damaged_and_refused_responses_have_typed_errors(
    server: Server, reader: Reader, path: str, stream: bool, expected: tuple[Outcome, str | None]
) -> None:
    exchange, result = exchange_with(server, path, reader, stream=stream, timeouts=PATIENT)
    assert (result.outcome, result.error_type) == expected
    assert exchange.end_ns is not None
    assert result.error_message or path == "429-money"


@pytest.mark.parametrize(
    ("path", "error_type"),
    [
        ("silent", Fault.HEADERS_TIMEOUT),
        ("stalls", Fault.IDLE_TIMEOUT),
        ("endless-stream", Fault.TOTAL_TIMEOUT),
        ("one-byte-now-and-then", Fault.TOTAL_TIMEOUT),
    ],
)
def test_each_timeout_has_its_own_type(server: Server, reader: Reader, path: str, error_type: Fault) -> None:
    exchange, result = exchange_with(server, path, reader)
    assert (result.outcome, result.error_type) == (Outcome.TIMEOUT, error_type)
    assert (result.events > 0) == (path in {"stalls", "endless-stream"})
    assert exchange.failure is not None


def test_refusals_keep_their_reason_without_keys(server: Server, reader: Reader) -> None:
    _, result = exchange_with(server, "429", reader)
    assert (result.error_code, result.request_id) == ("rl", "r-1")
    assert result.error_message == "Rate limit, key [redacted]"
    assert result.quota.retry_after_s == 7


def test_a_redirect_reports_the_host_only(server: Server, reader: Reader) -> None:
    _, result = exchange_with(server, "redirect", reader)
    assert result.error_message == "redirects are not followed; this one leads to elsewhere.example"


@pytest.mark.parametrize(
    ("path", "kept"), [("plain", True), ("closes-idle", False), ("closes-later", False), ("surplus", False)]
)
def test_a_connection_is_reused_only_if_it_is_still_usable(
    server: Server, reader: Reader, path: str, kept: bool
) -> None:
    connection = server.connection(reader)
    opened = []
    for _ in range(2):
        exchange = Exchange()
        connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
        assert reader.read(exchange).outcome is Outcome.OK
        opened.append(exchange.connect_ns is not None)
        gevent.sleep(0.15)
    connection.close()
    assert opened == [True, not kept]


def test_a_connection_closed_while_the_loop_was_blocked_is_noticed_before_sending(
    server: Server, reader: Reader
) -> None:
    connection = server.connection(reader)
    for _ in range(2):
        exchange = Exchange()
        connection.send("POST", "/closes-later", HEADERS, b"{}", exchange)
        assert reader.read(exchange).outcome is Outcome.OK
        time.sleep(0.15)  # not gevent.sleep: the event loop does not see the end
    connection.close()


@pytest.mark.parametrize("path", ["once", "once-reset"])
def test_a_request_that_crosses_the_close_of_its_connection_is_sent_again(
    server: Server, reader: Reader, path: str
) -> None:
    # llama.cpp closes the connection after each stream, and the close can arrive after the next request.
    connection = server.connection(reader)
    for again in (False, True, True):
        exchange = Exchange()
        before_ns = time.monotonic_ns()
        connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
        result = reader.read(exchange)
        assert (result.outcome, result.text) == (Outcome.OK, "Hi")
        assert result.notes == ("sent_again" if again else None)
        assert exchange.connect_ns is not None
        assert exchange.sent_ns is not None
        assert exchange.headers_ns is not None
        # The time before the second sending is not the server's.
        assert before_ns + exchange.connect_ns < exchange.sent_ns < exchange.headers_ns
    connection.close()


@pytest.mark.parametrize(("path", "first"), [("once-late", "once-late"), ("close", "plain")])
def test_a_request_that_the_server_can_have_processed_is_not_sent_again(
    server: Server, reader: Reader, path: str, first: str
) -> None:
    connection = server.connection(reader)
    connection.send("POST", f"/{first}", HEADERS, b"{}", Exchange())
    exchange = Exchange()
    connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
    result = reader.read(exchange)
    connection.close()
    assert (result.outcome, result.error_type) == (Outcome.TRANSPORT_ERROR, Fault.CLOSED_EARLY)
    # On the new connection, "close" ends the request again.
    assert result.notes == ("sent_again" if path == "close" else None)


def test_a_large_request_is_sent_and_can_be_refused_before_it_is_read(server: Server, reader: Reader) -> None:
    connection = server.connection(reader)
    body = b"x" * 8_000_000
    exchange = Exchange()
    connection.send("POST", "/plain", HEADERS, body, exchange)
    assert reader.read(exchange).outcome is Outcome.OK
    assert exchange.bytes_sent > len(body)
    early = Exchange()
    connection.send("POST", "/early", HEADERS, body, early)
    result = reader.read(early)
    connection.close()
    assert result.outcome in {Outcome.CLIENT_ERROR, Outcome.TRANSPORT_ERROR}


def test_killing_the_sender_cancels_its_exchange(server: Server, reader: Reader) -> None:
    connection = server.connection(reader)
    exchange = Exchange(stream=True)
    greenlet = gevent.spawn(connection.send, "POST", "/stalls", HEADERS, b"{}", exchange)
    while exchange.headers_ns is None:
        gevent.sleep(0.01)
    greenlet.kill()
    assert isinstance(greenlet.value, gevent.GreenletExit)
    result = reader.read(exchange)
    assert (result.outcome, result.status, result.events) == (Outcome.CANCELLED, 200, 1)
    again = Exchange()
    connection.send("POST", "/plain", HEADERS, b"{}", again)
    assert reader.read(again).outcome is Outcome.OK
    connection.close()


def test_closed_port_and_unknown_host_give_typed_errors(reader: Reader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for host, faults in (
        (f"127.0.0.1:{port}", {Fault.CONNECTION_REFUSED}),
        ("nobody.invalid", {Fault.NAME, Fault.CONNECT_TIMEOUT}),
    ):
        connection = Connection(Origin(f"http://{host}/v1", TIMEOUTS), reader)
        exchange = Exchange()
        connection.send("GET", "/models", [], b"", exchange)
        result = reader.read(exchange)
        assert (result.outcome is Outcome.TRANSPORT_ERROR) == (result.error_type != Fault.CONNECT_TIMEOUT)
        assert result.error_type in faults
        assert exchange.sent_ns is None
        assert "refused" in (result.error_message or "") or host == "nobody.invalid"


def test_lack_of_descriptors_is_a_failure_of_this_machine(server: Server, reader: Reader) -> None:
    connection = server.connection(reader, TIMEOUTS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        exchange = Exchange()
        connection.send("POST", "/plain", HEADERS, b"{}", exchange)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    result = reader.read(exchange)
    assert (result.outcome, result.error_type) == (Outcome.TRANSPORT_ERROR, Fault.LOCAL)
    assert result.error_message == "this machine can't open a connection: Too many open files"
    connection.close()


def test_line_breaks_in_headers_or_path_are_rejected(server: Server, reader: Reader) -> None:
    connection = server.connection(reader, TIMEOUTS)
    for path, value in (("/plain", "a\r\nX: b"), ("/plain", "a\nb"), ("/a b\r\n", "c")):
        with pytest.raises(ValueError, match="line break"):
            connection.send("POST", path, [("X", value)], b"", Exchange())


@pytest.mark.parametrize(
    "url", ["", "ftp://x/v1", "http://127.0.0.1:99999/v1", "http://a..b/v1", "http://[/v1"]
)
def test_an_invalid_base_url_is_a_user_error(url: str) -> None:
    with pytest.raises(UserError, match="base URL"):
        Origin(url, PATIENT)


def test_a_missing_ca_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="certificates"):
        Origin("https://127.0.0.1/v1", PATIENT, ca_file=str(tmp_path / "none.pem"))
