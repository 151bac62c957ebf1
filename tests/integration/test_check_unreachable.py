from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from support_cli import bltybench, free_port, remote_target, write_book

from bltybench.check.client import Client
from bltybench.scenario.api.endpoint import Timeouts
from bltybench.scenario.target import Target

SECRET = "sk-test-0123456789-not-to-be-seen"


def _check(folder: Path, base_url: str, more: str = "", *options: str) -> tuple[int, str, str]:
    write_book(folder, remote_target(base_url, more))
    done = bltybench("check", "--target", "mine", *options, cwd=folder, env={"MINE_KEY": SECRET})
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def _serve(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # The client reports a failed handshake, not the server.
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Echo(Quiet):
    """A server that echoes all request headers, including the key."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._echo()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._echo()

    def _echo(self) -> None:
        told = f"[bold]\x1b[2J{self.headers}"
        body = json.dumps({"error": {"message": told, "type": "[red]", "param": None, "code": None}}).encode()
        self.send_response(418)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def files() -> Iterator[int]:
    yield from _serve(Quiet)


@pytest.fixture
def echo() -> Iterator[int]:
    yield from _serve(Echo)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    yield from _serve(Echo, context)


def test_closed_port_gives_connection_refused(tmp_path: Path) -> None:
    code, out, err = _check(tmp_path, f"http://127.0.0.1:{free_port()}/v1", "", "--json")
    assert (code, out) == (2, "")
    assert "connection refused" in err


def test_unknown_host_gives_a_dns_error(tmp_path: Path) -> None:
    code, _, err = _check(tmp_path, "http://no-such-host.invalid/v1")
    assert code == 2
    assert "DNS: the name no-such-host.invalid does not resolve" in err


def test_silent_server_gives_a_timeout(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        more = "[targets.mine.timeouts]\nheaders_s = 0.3\n"
        code, _, err = _check(tmp_path, f"http://127.0.0.1:{port}/v1", more)
    assert code == 2
    assert "no response to GET /models: timed out" in err


def test_unknown_authority_gives_a_tls_error(tmp_path: Path, secure: int) -> None:
    code, _, err = _check(tmp_path, f"https://localhost:{secure}/v1")
    assert code == 2
    assert "TLS: untrusted certificate" in err
    assert "ca_file" in err


def test_certificate_for_another_host_gives_a_tls_error(
    tmp_path: Path, secure: int, authority: trustme.CA
) -> None:
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    code, _, err = _check(tmp_path, f"https://127.0.0.1:{secure}/v1", f'ca_file = "{pem}"')
    assert code == 2
    assert "TLS: untrusted certificate" in err


def test_ca_file_makes_its_authority_trusted(tmp_path: Path, secure: int, authority: trustme.CA) -> None:
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    code, out, _ = _check(tmp_path, f"https://localhost:{secure}/v1", f'ca_file = "{pem}"', "--json")
    assert code == 1
    by_name = {one["name"]: one for one in json.loads(out)["findings"]}
    assert by_name["TLS is good"]["status"] == "holds"


def test_plain_http_on_an_https_port_is_reported(tmp_path: Path, files: int) -> None:
    code, _, err = _check(tmp_path, f"https://127.0.0.1:{files}/v1")
    assert code == 2
    assert "TLS:" in err


@pytest.mark.parametrize("ca_file", ["none.pem", "scenarios.toml"])
def test_invalid_ca_file_is_named(tmp_path: Path, secure: int, ca_file: str) -> None:
    path = tmp_path / ca_file
    code, _, err = _check(tmp_path, f"https://localhost:{secure}/v1", f'ca_file = "{path}"')
    assert code == 2
    assert str(path) in err


def test_file_server_fails_the_check(tmp_path: Path, files: int) -> None:
    code, out, _ = _check(tmp_path, f"http://127.0.0.1:{files}/v1", "", "--json")
    assert code == 1
    by_name = {one["name"]: one["status"] for one in json.loads(out)["findings"]}
    assert by_name["models are listed"] == "broken"
    assert by_name["a completion is made"] == "broken"
    assert by_name["usage"] == "skipped"


def test_server_text_is_escaped_and_redacted(tmp_path: Path, echo: int) -> None:
    code, out, _ = _check(tmp_path, f"http://127.0.0.1:{echo}/v1")
    assert code == 1
    assert "[bold]" in out
    assert "\x1b" not in out
    assert "[redacted]" in out


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("start", "drip", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", "no headers within 0.3 s"),
        (CHUNKED, b"2\r\nxy\r\n", "not finished within 0.6 s"),
        (CHUNKED + b"2;", b"x", "not finished within 0.6 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"", "not finished within 0.6 s"),
    ],
)
def test_response_that_arrives_byte_by_byte_is_read_for_a_limited_time(
    tmp_path: Path, scheme: str, start: bytes, drip: bytes, message: str
) -> None:
    class Dripping(Quiet):
        def do_GET(self) -> None:
            with suppress(OSError):
                self.wfile.write(start)
                for _ in range(100):
                    self.wfile.write(drip)
                    time.sleep(0.03)

    context = None
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    for port in _serve(Dripping, context):
        timeouts = Timeouts(headers_s=0.3, total_s=0.6)
        base_url = f"{scheme}://127.0.0.1:{port}/v1"
        target = Target(base_url=base_url, timeouts=timeouts, verify_tls=False)
        client = Client(target, target.access("t"))
        began_s = time.monotonic()
        found = client.get("/models")
        client.close()
        assert time.monotonic() - began_s < 1.5
        assert "timed out" in (found.failure or "")
        assert not drip or message in (found.failure or "")
