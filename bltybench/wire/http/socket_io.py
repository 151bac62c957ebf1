"""An open connection: the bare socket, what watches it in the event loop, TLS, and bytes not yet sent."""

from __future__ import annotations

import _socket
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from bltybench.wire import stamps
from bltybench.wire.http.tls import Tls
from bltybench.wire.scheduling.batched_reads import BatchedReads

READ_BYTES = 64 * 1024
READABLE, WRITABLE = 1, 2


class SocketIO:
    """Takes over the file descriptor of a connected socket.

    gevent's own socket is left behind: its methods would switch greenlets. ``on_readable`` is called by
    the event loop whenever there is something to read, ``on_unsendable`` with a reason when sending fails.
    """

    def __init__(
        self,
        connected: Any,
        loop: Any,
        on_readable: Callable[[], None],
        on_unsendable: Callable[[str], None],
        rounds: BatchedReads,
    ) -> None:
        self.socket = _socket.socket(
            connected.family, connected.type, connected.proto, fileno=connected.detach()
        )
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stamps.enable(self.socket)
        self.recvmsg = self.socket.recvmsg
        self.tls: Tls | None = None
        self.paused = True
        self.in_rounds = False
        self._rounds = rounds
        self._loop = loop
        self._on_readable = on_readable
        self._on_unsendable = on_unsendable
        self._reading = loop.io(self.socket.fileno(), READABLE)
        self._writing: Any = None
        self._outgoing = memoryview(b"")

    @property
    def unsent(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._outgoing)

    def resume(self) -> None:
        """Have ``on_readable`` called as soon as there is something to read."""
        if self.paused or self.in_rounds:
            self._leave_rounds()
            self.paused = False
            self._reading.start(self._on_readable)

    def pause(self) -> None:
        """Leave what arrives in the kernel for now."""
        self.paused = True
        self._leave_rounds()
        self._reading.stop()

    def read_in_rounds(self) -> None:
        """Have ``on_readable`` called together with those of other slow streams, until the next resume."""
        if not self.paused and not self.in_rounds:
            self._reading.stop()
            self.in_rounds = True
            self._rounds.add(self.socket.fileno(), self._on_readable)

    def _leave_rounds(self) -> None:
        if self.in_rounds:
            self.in_rounds = False
            self._rounds.remove(self.socket.fileno())

    def write(self, data: bytes) -> None:
        """Send ``data`` as fast as the socket takes it, without blocking."""
        self._outgoing = memoryview(bytes(self._outgoing) + data) if self._outgoing else memoryview(data)
        self._pump()

    def decrypt(self, data: bytes) -> bytes:
        """Return what TLS makes of received bytes, and send what it answers. Raises ssl.SSLError."""
        if self.tls is None:
            return data
        plain = self.tls.decrypt(data)
        if reply := self.tls.pending():
            self.write(reply)
        return plain

    def is_stale(self) -> bool:
        """Whether an idle connection was closed, or holds bytes that nobody asked for."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
            if self.tls is None:
                return True
            # TLS sends things of its own (session tickets) between answers.
            data = self.socket.recv(READ_BYTES)
            return not data or bool(self.decrypt(data)) or self.tls.ended
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, ssl.SSLError):
            return True

    def close(self) -> None:
        """Stop watching and close the socket. Watchers go first: the number of a closed file is reused."""
        self._stop_writing()
        self.pause()
        self._reading.close()
        self._outgoing = memoryview(b"")
        self.socket.close()

    def _pump(self) -> None:
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self.socket.send(self._outgoing) :]
        except (BlockingIOError, InterruptedError):
            if self._writing is None:
                self._writing = self._loop.io(self.socket.fileno(), WRITABLE)
                self._writing.start(self._pump)
        except OSError as error:
            self._outgoing = memoryview(b"")
            self._stop_writing()
            self._on_unsendable(os.strerror(error.errno or 0))
        else:
            self._stop_writing()

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.stop()
            self._writing.close()
            self._writing = None
