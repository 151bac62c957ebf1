"""TLS over memory buffers, so that reads of the real socket keep their kernel timestamps."""

import ssl
import warnings

import gevent.socket

from bltybench.errors import UserError

READ_BYTES = 64 * 1024


def tls_context(verify: bool, ca_file: str | None) -> ssl.SSLContext:
    """Return a client context that verifies certificates and host names if ``verify`` is set.

    Raise UserError for a ``ca_file`` that is missing or holds no certificates.
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
    """One TLS session, which turns bytes of the network into bytes of HTTP and back."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ended = False
        """Whether the server announced that it sends nothing more."""

    def handshake(self, sock: gevent.socket.socket) -> None:
        """Do the handshake. Block this greenlet only. Raise ssl.SSLError, OSError."""
        done = False
        while not done:
            try:
                self._session.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            finally:
                # After an error, this is the alert with the reason for it.
                sock.sendall(self._outgoing.read())
            if not done:
                if data := sock.recv(READ_BYTES):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()

    def encrypt(self, data: bytes) -> bytes:
        """Return the bytes to send for ``data``."""
        self._session.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return the bytes that ``data`` completes, possibly none. Raise ssl.SSLError."""
        incoming, session = self._incoming, self._session
        incoming.write(data)
        parts: list[bytes] = []
        try:
            while part := session.read(READ_BYTES):
                parts.append(part)
                if not incoming.pending and not session.pending():
                    break  # another read would raise SSLWantReadError, at about the cost of this one
            else:
                self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(parts)

    def pending(self) -> bytes:
        """Return the bytes that TLS itself has to send (replies to key updates)."""
        return self._outgoing.read() if self._outgoing.pending else b""
