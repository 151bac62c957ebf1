"""Sandboxes forked from a process that has imported everything, which takes a tenth of a start's CPU time.

``test_sandbox_process`` tests the start that users have.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

import psutil

from bltybench.sandbox.process import SandboxProcess, ServeRequest, listen
from bltybench.scenario.target import SandboxSettings

LISTENER_FD = 200
"""Number that a forked sandbox gives its listening socket."""
ORDERED = Lock()
"""Held from an order to its reply: tests start several sandboxes at the same time, in threads."""


class ForkedProcess:
    """A forked sandbox, as ``SandboxProcess`` uses a process."""

    def __init__(self, pid: int, stdin: BinaryIO) -> None:
        self.pid, self.stdin = pid, stdin
        self._process = psutil.Process(pid)

    def terminate(self) -> None:
        """Ask it to stop, if it still runs."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end. Its exit code is unknown, because it is no child of this process."""
        try:
            return self._process.wait(timeout)
        except psutil.TimeoutExpired:
            raise subprocess.TimeoutExpired("sandbox", timeout or 0.0) from None

    def _send(self, number: signal.Signals) -> None:
        try:
            self._process.send_signal(number)
        except psutil.NoSuchProcess:
            return


def start_forked(settings: SandboxSettings, log_path: Path | None = None) -> SandboxProcess:
    """Start a sandbox on a free port and return when it responds."""
    read, write = os.pipe()
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with ORDERED:
            forks = _forks()
            socket.send_fds(forks, [b"\n"], [listener.fileno(), read])
            reply = forks.recv(4)
        os.close(read)
        assert len(reply) == 4, "the process that forks sandboxes has ended"
        pid = int.from_bytes(reply, "big")
    process: Any = ForkedProcess(pid, cast(BinaryIO, os.fdopen(write, "wb")))
    sandbox = SandboxProcess(process, f"http://127.0.0.1:{port}/v1")
    order = ServeRequest(
        settings=settings.model_dump_json(),
        fd=LISTENER_FD,
        log_path=None if log_path is None else str(log_path.absolute()),
        ca_file=None,
    )
    try:
        sandbox._wait_until_it_answers(order)
    except BaseException:
        sandbox.stop()
        raise
    return sandbox


@cache
def _forks() -> socket.socket:
    """Return the connection to the process that forks. It ends when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        forks = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])

    def end() -> None:
        ours.close()
        forks.wait()

    atexit.register(end)
    return ours


def main() -> None:
    """Fork a sandbox for each pair of a listening socket and a pipe that arrives on the socket argv[1]."""
    from bltybench.sandbox.__main__ import main as serve
    from bltybench.scenario.prompts import tokens

    tokens.load()
    # Nobody waits for the forked processes here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        while True:
            _, fds, _, _ = socket.recv_fds(parent, 1, 2)
            if not fds:
                return
            pid = os.fork()
            if not pid:
                break
            for fd in fds:
                os.close(fd)
            parent.send(pid.to_bytes(4, "big"))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(fds[0], LISTENER_FD)
    os.dup2(fds[1], 0)
    sys.exit(serve())


if __name__ == "__main__":
    main()
