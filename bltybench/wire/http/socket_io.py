"""An open connection: its socket, the event-loop watchers, TLS, and unsent bytes."""

import _socket
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent.socket

from bltybench.wire import stamps
from bltybench.wire.http.tls import Tls
from bltybench.wire.scheduling.reader import Reader

READ_BYTES = 64 * 1024
READABLE, WRITABLE = 1, 2


def read_failure(error: OSError) -> str:
    """Return why a read failed."""
    reset = error.errno == errno.ECONNRESET
    return "connection reset by the server" if reset else os.strerror(error.errno or 0)


class SocketIO:
    """Takes over the file descriptor of a connected socket.

    gevent's own socket is not used: its methods would switch greenlets. The event loop calls ``on_readable``
    whenever there is something to read; ``on_unsendable`` is called with a reason if sending fails.
    """

    def __init__(
        self,
        connected: gevent.socket.socket,
        tls: Tls | None,
        reader: Reader,
        on_readable: Callable[[], None],
        on_unsendable: Callable[[str], None],
    ) -> None:
        self.socket = _socket.socket(
            connected.family, connected.type, connected.proto, fileno=connected.detach()
        )
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stamps.enable(self.socket)
        self.recvmsg = self.socket.recvmsg
        self.tls = tls
        self.paused = True
        self.batched = False
        self._batched_reads, self._early_reads = reader.batched_reads, reader.early_reads
        self._loop = gevent.get_hub().loop
        self._on_readable = on_readable
        self._on_unsendable = on_unsendable
        self._reading = self._loop.io(self.socket.fileno(), READABLE)
        self._writing: Any = None
        self._outgoing = memoryview(b"")

    @property
    def unsent(self) -> bool:
        """Whether the socket has not taken all bytes yet."""
        return bool(self._outgoing)

    def resume(self) -> None:
        """Call ``on_readable`` as soon as there is something to read."""
        if self.paused or self.batched:
            self._unbatch()
            self.paused = False
            self._reading.start(self._on_readable)
            self._early_reads.add(self.socket.fileno(), self._on_readable)

    def pause(self) -> None:
        """Leave arriving bytes in the kernel for now."""
        self.paused = True
        self._unbatch()
        self._stop_reading()

    def batch(self) -> None:
        """Call ``on_readable`` together with those of other slow streams, until the next ``resume``."""
        if not self.paused and not self.batched:
            self._stop_reading()
            self.batched = True
            self._batched_reads.add(self.socket.fileno(), self._on_readable)

    def _stop_reading(self) -> None:
        self._reading.stop()
        self._early_reads.remove(self.socket.fileno())

    def _unbatch(self) -> None:
        if self.batched:
            self.batched = False
            self._batched_reads.remove(self.socket.fileno())

    def write(self, data: bytes) -> None:
        """Send ``data`` as fast as the socket takes it, without blocking."""
        self._outgoing = memoryview(bytes(self._outgoing) + data) if self._outgoing else memoryview(data)
        self._send_outgoing()

    def decrypt(self, data: bytes) -> bytes:
        """Return the decrypted bytes, and send TLS's own replies. Raises ssl.SSLError."""
        if self.tls is None:
            return data
        plain = self.tls.decrypt(data)
        if reply := self.tls.pending():
            self.write(reply)
        return plain

    def is_stale(self) -> bool:
        """Whether an idle connection was closed, or holds bytes that were not requested."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
            if self.tls is None:
                return True
            # TLS sends records of its own (session tickets) between responses.
            data = self.socket.recv(READ_BYTES)
            return not data or bool(self.decrypt(data)) or self.tls.ended
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, ssl.SSLError):
            return True

    def close(self) -> None:
        """Stop the watchers, then close the socket. The system reuses the number of a closed file."""
        self._stop_writing()
        self.pause()
        self._reading.close()
        self._outgoing = memoryview(b"")
        self.socket.close()

    def _send_outgoing(self) -> None:
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self.socket.send(self._outgoing) :]
        except (BlockingIOError, InterruptedError):
            if self._writing is None:
                self._writing = self._loop.io(self.socket.fileno(), WRITABLE)
                self._writing.start(self._send_outgoing)
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
