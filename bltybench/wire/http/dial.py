"""Making a connection: resolve, connect to every address in turn, shake hands, all within ``connect_s``."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket

from bltybench.wire.exchange import Exchange, Failure, Fault
from bltybench.wire.http.origin import Origin
from bltybench.wire.http.socket_io import SocketIO
from bltybench.wire.http.tls import Tls


def dial(
    origin: Origin, exchange: Exchange, loop: Any, attach: Callable[[Any], SocketIO]
) -> SocketIO | Failure:
    """Return a connection to ``origin``, or why there is none. Blocks this greenlet only.

    ``attach`` makes a link of a connected socket, and is to close it where this fails later. How long the
    steps took is noted in ``exchange``.
    """
    limit = gevent.Timeout(origin.timeouts.connect_s)
    limit.start()
    began_ns = time.monotonic_ns()
    try:
        connected = gevent.socket.create_connection((origin.host, origin.port))
        exchange.connect_ns = time.monotonic_ns() - began_ns
        link = attach(connected)
        if origin.tls is not None:
            began_ns = time.monotonic_ns()
            link.tls = Tls(origin.tls, origin.host)
            link.tls.handshake(link.socket, loop)
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
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Failure(Fault.CONNECT, f"{step} to {origin.host}:{origin.port} failed: {why}")
    else:
        return link
    finally:
        limit.close()
