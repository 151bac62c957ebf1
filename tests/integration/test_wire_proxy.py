"""Exchanges through an HTTP proxy: tunnels, absolute-form requests, credentials, and refusals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr
from support_locust import free_port
from support_proxy import running_proxy
from support_wire import HEADERS, PATIENT, TIMEOUTS, Server

from bltybench.check.client import Client
from bltybench.check.reach import reach
from bltybench.errors import UserError
from bltybench.runs.attempt import Outcome, Stamp
from bltybench.scenario.api.proxy import Proxy
from bltybench.scenario.target import Target
from bltybench.wire import Connection, Exchange, ExchangeResult, Fault, Origin, Reader

AUTHORITY = trustme.CA()
CREDENTIALS = SecretStr("user:s3cret-pass")


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    AUTHORITY.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    server = Server(str(pem))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with running_proxy(CREDENTIALS.get_secret_value()) as port:
        yield Proxy("127.0.0.1", port, CREDENTIALS)


def exchanges(reader: Reader, origin: Origin, *paths: str) -> list[tuple[Exchange, ExchangeResult]]:
    """Return one exchange after the other on the same connection."""
    connection, made = Connection(origin, reader), []
    for path in paths:
        exchange = Exchange(stream=True)
        connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
        made.append((exchange, reader.read(exchange)))
    connection.close()
    return made


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxied_streams_are_ok_with_kernel_timestamps_and_reuse_the_connection(
    server: Server, tls_server: Server, proxy: Proxy, reader: Reader, scheme: str
) -> None:
    port = tls_server.port if scheme == "https" else server.port
    origin = Origin(f"{scheme}://127.0.0.1:{port}/v1", PATIENT, verify_tls=False, proxy=proxy)
    first, second = exchanges(reader, origin, "paced", "stream")
    assert [result.outcome for _, result in (first, second)] == [Outcome.OK, Outcome.OK]
    assert second[1].text == "ab"
    assert first[0].connect_ns is not None
    assert (first[0].tls_ns is None) == (scheme == "http")
    assert second[0].connect_ns is None
    if sys.platform.startswith("linux"):
        assert first[0].stamp is Stamp.KERNEL


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (
            "forbidden.example",
            "it refuses to connect to forbidden.example:443: 403 Forbidden by rule [redacted]",
        ),
        ("early.example", "it sent bytes before the tunnel was used"),
        ("nonsense.example", "its response is not HTTP"),
        ("close.example", "it closed the connection"),
        ("endless.example", "of headers"),
    ],
)
def test_refused_tunnel_is_a_typed_error_that_names_the_proxy(
    proxy: Proxy, reader: Reader, host: str, reason: str
) -> None:
    origin = Origin(f"https://{host}/v1", TIMEOUTS, proxy=proxy, secrets=proxy.secrets)
    ((exchange, result),) = exchanges(reader, origin, "stream")
    assert (result.outcome, result.error_type) == (Outcome.TRANSPORT_ERROR, Fault.PROXY)
    assert (result.error_message or "").startswith(
        f"no tunnel through the proxy 127.0.0.1 port {proxy.port}: "
    )
    assert reason in (result.error_message or "")
    assert exchange.sent_ns is None


def test_wrong_credentials_name_their_key(proxy: Proxy, tls_server: Server, reader: Reader) -> None:
    wrong = Proxy(proxy.host, proxy.port, SecretStr("user:other-pass"))
    origin = Origin(f"https://127.0.0.1:{tls_server.port}/v1", PATIENT, verify_tls=False, proxy=wrong)
    ((_, result),) = exchanges(reader, origin, "stream")
    assert (result.error_message or "").endswith(
        "407 Proxy Authentication Required: check proxy_auth_env of the target"
    )


def test_refused_credentials_of_a_plain_request_are_a_407(
    proxy: Proxy, server: Server, reader: Reader
) -> None:
    without = Proxy(proxy.host, proxy.port)
    origin = Origin(f"http://127.0.0.1:{server.port}/v1", PATIENT, proxy=without)
    ((_, result),) = exchanges(reader, origin, "stream")
    assert (result.outcome, result.status) == (Outcome.CLIENT_ERROR, 407)


def test_check_reaches_an_api_through_a_tunnel(
    proxy: Proxy, tls_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca_file = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(ca_file))
    monkeypatch.setenv("UNIT_PROXY", CREDENTIALS.get_secret_value())
    target = Target(
        base_url=f"https://127.0.0.1:{tls_server.port}/v1",
        ca_file=str(ca_file),
        proxy=f"http://{proxy.address}",
        proxy_auth_env="UNIT_PROXY",
    )
    access = target.access("t")
    names = [finding.name for finding in reach(target, access)]
    assert names == ["name resolves", "TCP connects", "TLS is good"]
    client = Client(target, access)
    assert client.post("/plain", {}).status == 200
    client.close()
    monkeypatch.setenv("UNIT_PROXY", "user:other-pass")
    with pytest.raises(UserError, match="407 Proxy Authentication Required") as caught:
        reach(target, target.access("t"))
    assert caught.value.where == f"the proxy {proxy.address}"


def test_dead_proxy_is_a_refused_connection_of_the_proxy(reader: Reader) -> None:
    port = free_port()
    origin = Origin("https://api.example.com/v1", TIMEOUTS, proxy=Proxy("127.0.0.1", port))
    ((_, result),) = exchanges(reader, origin, "stream")
    assert result.error_type == Fault.CONNECTION_REFUSED
    assert f"nothing listens at the proxy 127.0.0.1 port {port}" in (result.error_message or "")
