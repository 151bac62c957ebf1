"""Opening a connection: resolve, try each address, and do the TLS handshake, all within ``connect_s``."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket

from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.http.origin import Origin
from bltybench.wire.http.socket_io import SocketIO
from bltybench.wire.http.tls import Tls


def dial(
    origin: Origin, exchange: Exchange, loop: Any, attach: Callable[[Any], SocketIO]
) -> SocketIO | Failure:
    """Return a connection to ``origin``, or why there is none. Blocks this greenlet only.

    ``attach`` turns a connected socket into a SocketIO, which its owner closes if a later step fails. The
    durations of the steps go into ``exchange``.
    """
    limit = gevent.Timeout(origin.timeouts.connect_s)
    limit.start()
    began_ns = time.monotonic_ns()
    try:
        connected = gevent.socket.create_connection((origin.host, origin.port))
        exchange.connect_ns = time.monotonic_ns() - began_ns
        io = attach(connected)
        if origin.tls is not None:
            began_ns = time.monotonic_ns()
            io.tls = Tls(origin.tls, origin.host)
            io.tls.handshake(io.socket, loop)
            exchange.tls_ns = time.monotonic_ns() - began_ns
    except gevent.Timeout as timeout:
        if timeout is not limit:
            raise
        return Failure(Fault.CONNECT_TIMEOUT, f"no connection within {origin.timeouts.connect_s:g} s")
    except socket.gaierror as error:
        return Failure(Fault.NAME, f"cannot resolve {origin.host}: {error.strerror}")
    except ssl.SSLCertVerificationError as error:
        return Failure(Fault.TLS_VERIFICATION, f"certificate not accepted: {error.verify_message}")
    except ssl.SSLError as error:
        return Failure(Fault.TLS, f"TLS handshake failed: {error.reason or error.strerror}")
    except (OSError, UnicodeError) as error:
        step = "connect" if exchange.connect_ns is None else "TLS handshake"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Failure(Fault.CONNECT, f"{step} to {origin.host}:{origin.port} failed: {reason}")
    else:
        return io
    finally:
        limit.close()
