from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from support_wire import HEADERS, PATIENT, TIMEOUTS, Server

from bltybench.runs.attempt import Outcome, Stamp
from bltybench.wire import Connection, Exchange, ExchangeResult, Fault, Origin, Reader
from bltybench.wire.http.socket_io import SocketIO

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    AUTHORITY.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    server = Server(str(pem))
    yield server
    server.stop()


def tls_exchange(reader: Reader, origin: Origin, path: str) -> tuple[Exchange, ExchangeResult]:
    connection = Connection(origin, reader)
    exchange = Exchange(stream=True)
    connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
    result = reader.read(exchange)
    if exchange.failure is None:
        again = Exchange(stream=True)
        connection.send("POST", "/stream", HEADERS, b"x" * 300_000, again)
        assert (reader.read(again).text, again.connect_ns) == ("ab", None)
    connection.close()
    return exchange, result


@pytest.mark.parametrize("path", ["stream", "split", "paced"])
def test_verified_tls_gives_a_result_and_kernel_timestamps(
    tls_server: Server, reader: Reader, tmp_path: Path, path: str
) -> None:
    ca_file = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(ca_file))
    origin = Origin(f"https://127.0.0.1:{tls_server.port}/v1", PATIENT, ca_file=str(ca_file))
    exchange, result = tls_exchange(reader, origin, path)
    assert result.outcome is Outcome.OK
    assert exchange.tls_ns is not None
    if sys.platform.startswith("linux"):
        assert exchange.stamp is Stamp.KERNEL


def test_session_tickets_before_the_request_do_not_spoil_timestamps(
    tls_server: Server, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Connection._begin

    def late(self: Connection, io: SocketIO, request: bytes, exchange: Exchange) -> None:
        time.sleep(0.02)  # the tickets follow the handshake and wait in the kernel until the response is read
        begin(self, io, request, exchange)

    monkeypatch.setattr(Connection, "_begin", late)
    origin = Origin(f"https://127.0.0.1:{tls_server.port}/v1", PATIENT, verify_tls=False)
    exchange, result = tls_exchange(reader, origin, "paced")
    assert result.outcome is Outcome.OK
    if sys.platform.startswith("linux"):
        assert exchange.stamp is Stamp.KERNEL


def test_tls_works_without_verification(tls_server: Server, reader: Reader) -> None:
    origin = Origin(f"https://127.0.0.1:{tls_server.port}/v1", PATIENT, verify_tls=False)
    assert tls_exchange(reader, origin, "stream")[1].outcome is Outcome.OK


@pytest.mark.parametrize("problem", ["authority", "name", "plain"])
def test_untrusted_or_missing_tls_fails_before_sending(
    tls_server: Server, server: Server, reader: Reader, tmp_path: Path, problem: str
) -> None:
    ca_file = tmp_path / "ca.pem"
    (trustme.CA() if problem == "authority" else AUTHORITY).cert_pem.write_to_path(str(ca_file))
    port = server.port if problem == "plain" else tls_server.port
    host = "localhost" if problem == "name" else "127.0.0.1"
    origin = Origin(
        f"https://{host}:{port}/v1", TIMEOUTS.model_copy(update={"connect_s": 1.0}), ca_file=str(ca_file)
    )
    exchange, result = tls_exchange(reader, origin, "stream")
    assert exchange.sent_ns is None
    if problem == "plain":
        assert result.outcome in {Outcome.TRANSPORT_ERROR, Outcome.TIMEOUT}
    else:
        assert (result.outcome, result.error_type) == (Outcome.TRANSPORT_ERROR, Fault.TLS_VERIFICATION)
        assert ("localhost" if problem == "name" else "issuer") in (result.error_message or "")
