"""A sandbox in its own process, for runs and tests. Imports neither Starlette nor uvicorn."""

from __future__ import annotations

import errno
import socket
import ssl
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bltybench.errors import UserError
from bltybench.scenario.target import SandboxSettings, Target

GREETING = b"bltybench sandbox"
"""Start of the page at ``/``, which identifies a sandbox."""

GREETING_HOST = "greeting.sandbox.invalid"
"""Server name that the request for this page sends in TLS, so that it gets no fault."""

START_S = 30.0
"""Maximum time to the first response, in seconds, including imports on a busy machine."""
STOP_S = 5.0
"""Maximum time to stop before the process is killed, in seconds."""
BACKLOG = 1024
"""Connections that can wait to be accepted."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Port 0 chooses a free one. Raise UserError if the address is unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is in use",
                where=f"{host}:{port}",
                remedy="choose another with --port, or 0 for a free one",
            ) from error
        raise UserError(f"can't listen: {error.strerror or error}", where=f"{host}:{port}") from error


class ServeRequest(msgspec.Struct):
    """Settings that the parent sends on stdin. Keys must not be in arguments, which are public."""

    settings: str
    """SandboxSettings as JSON."""
    fd: int
    """The inherited listening socket."""
    log_path: str | None
    ca_file: str | None


class SandboxProcess:
    """A running sandbox. It ends on ``stop``, at the end of the ``with`` block, or when its parent dies.

    The parent opens the listening socket and passes it on, so a port in use is known immediately, and port 0
    needs no report back.
    """

    def __init__(self, process: subprocess.Popen[bytes], base_url: str) -> None:
        self._process = process
        self.base_url = base_url
        self.pid = process.pid

    @classmethod
    def start(
        cls,
        settings: SandboxSettings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log_path: Path | None = None,
        ca_file: str | None = None,
    ) -> SandboxProcess:
        """Start a sandbox and return when it responds. With ``ca_file``, it serves TLS and writes its
        authority there. Raise UserError if the port is in use or starting fails."""
        listener = listen(host, port)
        try:
            port = listener.getsockname()[1]
            # A separate session: Ctrl-C in the terminal goes to the parent, which ends its streams first.
            process = subprocess.Popen(
                # -P: a module in the current folder must not replace one of Python's.
                [sys.executable, "-P", "-m", "bltybench.sandbox"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
            order = ServeRequest(
                settings=settings.model_dump_json(),
                fd=listener.fileno(),
                log_path=None if log_path is None else str(log_path.absolute()),
                ca_file=ca_file,
            )
        finally:
            listener.close()
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        name = f"[{host}]" if ":" in host else host
        sandbox = cls(process, f"{'https' if ca_file else 'http'}://{name}:{port}/v1")
        try:
            sandbox._wait_until_it_answers(order)
        except BaseException:
            sandbox.stop()
            raise
        return sandbox

    def _wait_until_it_answers(self, order: ServeRequest) -> None:
        pipe = self._process.stdin
        if pipe is None:
            raise AssertionError("stdin is a pipe")
        try:
            pipe.write(msgspec.json.encode(order) + b"\n")
            pipe.flush()
            _front_page(self.base_url, START_S)
        except (OSError, HTTPException) as error:
            raise self._failed() from error

    def _failed(self) -> UserError:
        try:
            code = self._process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            return UserError(f"the sandbox did not respond within {START_S:g} s", where=self.base_url)
        return UserError(
            f"the sandbox exited with code {code} before it responded",
            where=self.base_url,
            remedy="see its message above",
        )

    def stop(self) -> None:
        """Stop the sandbox and wait for it. Its log is then complete. Further calls do nothing."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> SandboxProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def address_of(base_url: str) -> tuple[str, int]:
    """Return the host and the port of a base URL."""
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _front_page(base_url: str, timeout_s: float) -> bytes:
    """Return the start of the page at ``/``."""
    host, port = address_of(base_url)
    with closing(HTTPConnection(host, port, timeout=timeout_s)) as connection:
        connection.connect()
        if urlsplit(base_url).scheme == "https":
            # Only to recognize it. The run itself verifies the certificate.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection.sock = context.wrap_socket(connection.sock, server_hostname=GREETING_HOST)
        connection.request("GET", "/")
        return connection.getresponse().read(len(GREETING))


def own_ca_file(target: Target) -> str | None:
    """Return the file to which the sandbox of ``target`` writes its authority; None if it serves no TLS."""
    return target.ca_file if urlsplit(target.base_url).scheme == "https" else None


def start_if_absent(target: Target) -> SandboxProcess | None:
    """Start the sandbox of ``target``. Return None if one already runs there, or if it is not a sandbox.

    Raise UserError if something else listens there.
    """
    if target.sandbox is None:
        return None
    host, port = address_of(target.base_url)
    try:
        greeting = _front_page(target.base_url, STOP_S)
    except ConnectionRefusedError:
        return SandboxProcess.start(target.sandbox, host=host, port=port, ca_file=own_ca_file(target))
    except (OSError, HTTPException):
        greeting = b""
    if greeting != GREETING:
        raise UserError(
            "something other than the sandbox listens here",
            where=f"{host}:{port}",
            remedy="stop it, or give the sandbox another port in base_url",
        )
    return None
