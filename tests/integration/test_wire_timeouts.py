"""Each timeout is honored in every state of an exchange: the durations here are the subject."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trustme
from support_wire import HEADERS, Server

from bltybench.runs.attempt import Outcome
from bltybench.scenario.api.endpoint import Timeouts
from bltybench.wire import Connection, Exchange, Fault, Origin, Reader

LIMIT_S = 0.4
"""The timeout under test. All others are long."""
TOLERANCE_S = 0.25
LONG_S = 30.0


@pytest.fixture(scope="module", params=["http", "https"])
def base_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    arguments = []
    if request.param == "https":
        pem = tmp_path_factory.mktemp("tls") / "server.pem"
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        arguments = [str(pem)]
    server = Server(*arguments)
    yield f"{request.param}://127.0.0.1:{server.port}/v1"
    server.stop()


def timeouts(key: str) -> Timeouts:
    keys = ("connect_s", "headers_s", "between_events_s", "total_s")
    return Timeouts(**{name: LIMIT_S if name == key else LONG_S for name in keys})


def connection_to(base_url: str, key: str, reader: Reader) -> Connection:
    return Connection(Origin(base_url, timeouts(key), verify_tls=False), reader)


def expect_timeout(connection: Connection, reader: Reader, path: str, kind: Fault, key: str) -> None:
    """Send a request and check the timeout: its type, the key its message names, and its time."""
    exchange = Exchange(stream="json" not in path)
    began_ns = time.monotonic_ns()
    connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
    result = reader.read(exchange)
    assert (result.outcome, result.error_type) == (Outcome.TIMEOUT, kind)
    assert f"raise timeouts.{key} of the target" in (result.error_message or "")
    since_ns = (result.last_token_ns or exchange.headers_ns) if kind is Fault.IDLE_TIMEOUT else began_ns
    assert exchange.end_ns is not None
    assert since_ns is not None
    assert LIMIT_S - 0.01 <= (exchange.end_ns - since_ns) / 1e9 <= LIMIT_S + TOLERANCE_S


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        ("silent", Fault.HEADERS_TIMEOUT, "headers_s"),
        ("stalls-within-headers", Fault.HEADERS_TIMEOUT, "headers_s"),
        ("stalls-after-headers", Fault.IDLE_TIMEOUT, "between_events_s"),
        ("stalls-within-json", Fault.IDLE_TIMEOUT, "between_events_s"),
        ("stalls", Fault.IDLE_TIMEOUT, "between_events_s"),
        ("paced-stalls", Fault.IDLE_TIMEOUT, "between_events_s"),
        ("silent", Fault.TOTAL_TIMEOUT, "total_s"),
        ("stalls", Fault.TOTAL_TIMEOUT, "total_s"),
        ("endless-stream", Fault.TOTAL_TIMEOUT, "total_s"),
    ],
)
def test_timeouts_are_honored_whatever_the_others_are(
    base_url: str, reader: Reader, case: tuple[str, Fault, str], reused: bool
) -> None:
    path, kind, key = case
    connection = connection_to(base_url, key, reader)
    if reused:
        first = Exchange(stream=True)
        connection.send("POST", "/stream", HEADERS, b"{}", first)
        assert reader.read(first).outcome is Outcome.OK
    expect_timeout(connection, reader, path, kind, key)
    connection.close()


@pytest.mark.parametrize(
    ("key", "kind"), [("connect_s", Fault.CONNECT_TIMEOUT), ("total_s", Fault.TOTAL_TIMEOUT)]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connecting_is_limited_by_its_own_timeout_and_the_total(
    reader: Reader, scheme: str, key: str, kind: Fault
) -> None:
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        if scheme == "http":  # the kernel ignores connections beyond the backlog
            for _ in range(3):
                waiting = opened.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
        connection = connection_to(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/v1", key, reader)
        expect_timeout(connection, reader, "silent", kind, key)
        connection.close()
