"""Running the sandbox in this process, until a signal or until its parent ends it."""

import contextlib
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bltybench.sandbox.app import create_app
from bltybench.sandbox.faults.delivery import TRANSPORT
from bltybench.sandbox.truth import TruthLog
from bltybench.scenario.target import SandboxSettings

SWITCH_INTERVAL_S = 0.0005
"""Longest time that the counting thread can block the streams, in seconds."""


class _Server(uvicorn.Server):
    _signals = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down gracefully. A second signal exits immediately.

        Uvicorn would raise the signal again and so change the exit code.
        """
        self._signals += 1
        self.force_exit = self._signals > 1
        self.should_exit = True


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1 that lets the application reach the connection, to break it on purpose."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


def serve(
    settings: SandboxSettings,
    listener: socket.socket,
    log_path: Path | None = None,
    *,
    ca_file: Path | None = None,
    on_start: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return.

    With ``ca_file``, serve TLS and write the certificate's authority to that file first. ``on_start`` is
    called before the first request with a function that stops the server from any thread.
    Raise UserError if the log or ``ca_file`` can't be written.
    """
    log = TruthLog(log_path)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    config = uvicorn.Config(
        create_app(settings, log),
        loop="uvloop",
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    if ca_file is not None:
        from bltybench.sandbox.faults.handshake import tls_context  # noqa: PLC0415 - cryptography is slow

        config.load()
        config.ssl = tls_context(settings, ca_file, log)
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True

    if on_start is not None:
        on_start(stop)
    # The log closes last: exchanges cut off at the end still add their rows.
    with contextlib.closing(log), contextlib.closing(listener):
        server.run(sockets=[listener])
