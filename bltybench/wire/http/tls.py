"""TLS over memory, so that the bytes of the real socket can be read with their kernel stamps."""

from __future__ import annotations

import ssl
import warnings
from typing import TYPE_CHECKING, Any

import gevent

from bltybench.errors import UserError

if TYPE_CHECKING:
    import _socket

READ_BYTES = 64 * 1024


def tls_context(verify: bool, ca_file: str | None) -> ssl.SSLContext:
    """Return a client context: certificates and host names verified unless told otherwise.

    Raises UserError for a ``ca_file`` that is missing or holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"cannot read certificates: {error.strerror or error}",
            where=ca_file,
            remedy="ca_file must name a PEM file of CA certificates",
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    return context


class Tls:
    """One TLS session: bytes of the network in, bytes of HTTP out, and the other way round."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ended = False
        """The server has said that nothing more will come."""

    def handshake(self, sock: _socket.socket, loop: Any) -> None:
        """Shake hands over a non-blocking socket; blocks this greenlet. Raises ssl.SSLError, OSError."""
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(sock, loop)
                data = _receive(sock, loop)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                self._flush(sock, loop)  # the alert tells the server why
                raise
            else:
                self._flush(sock, loop)
                return

    def _flush(self, sock: _socket.socket, loop: Any) -> None:
        data = memoryview(self._outgoing.read())
        while data:
            try:
                data = data[sock.send(data) :]
            except BlockingIOError:
                _wait(loop, sock.fileno(), 2)

    def encrypt(self, data: bytes) -> bytes:
        """Return what to send for ``data``."""
        self._session.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return the bytes that ``data`` completes, perhaps none. Raises ssl.SSLError."""
        incoming, session = self._incoming, self._session
        incoming.write(data)
        parts: list[bytes] = []
        try:
            while part := session.read(READ_BYTES):
                parts.append(part)
                if not incoming.pending and not session.pending():
                    break  # one more read would say so too, by an exception, at a cost much like this one's
            else:
                self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(parts)

    def pending(self) -> bytes:
        """Return what TLS itself has to send (answers to key updates)."""
        return self._outgoing.read() if self._outgoing.pending else b""


def _receive(sock: _socket.socket, loop: Any) -> bytes:
    while True:
        try:
            return sock.recv(READ_BYTES)
        except BlockingIOError:
            _wait(loop, sock.fileno(), 1)


def _wait(loop: Any, fd: int, events: int) -> None:
    watcher = loop.io(fd, events)
    try:
        gevent.get_hub().wait(watcher)
    finally:
        watcher.close()
