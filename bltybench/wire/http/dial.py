"""Opening a connection: resolve, try each address, and do the TLS handshake, all within the timeouts.

A proxy is connected to instead of the API. It forwards requests over HTTP, and a tunnel over HTTPS.
"""

import errno
import socket
import ssl
import time
from contextlib import ExitStack

import gevent
import gevent.socket

from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.http.origin import Origin
from bltybench.wire.http.timeouts import connect_timeout
from bltybench.wire.http.tls import Tls
from bltybench.wire.http.tunnel import TunnelError, open_tunnel

LOCAL_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""Errors of this machine, not of the network: no free descriptors, ports, or memory."""


def dial(  # noqa: PLR0911 - one for each failure
    origin: Origin, exchange: Exchange
) -> tuple[gevent.socket.socket, Tls | None] | Failure:
    """Return a connected socket and its TLS session, or why there is none. Record times in ``exchange``."""
    timeouts, proxy = origin.timeouts, origin.proxy
    host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
    where = f"{host} port {port}" if proxy is None else f"the proxy {host} port {port}"
    limit = gevent.Timeout(min(timeouts.connect_s, timeouts.total_s))
    with limit, ExitStack() as unless_connected:
        began_ns = time.monotonic_ns()
        try:
            sock = gevent.socket.create_connection((host, port))
            unless_connected.callback(sock.close)
            if proxy is not None and origin.tls is not None:
                open_tunnel(sock, proxy, origin.host, origin.port, origin.secrets)
            exchange.connect_ns = time.monotonic_ns() - began_ns
            tls = None
            if origin.tls is not None:
                began_ns = time.monotonic_ns()
                tls = Tls(origin.tls, origin.host)
                tls.handshake(sock)
                exchange.tls_ns = time.monotonic_ns() - began_ns
        except gevent.Timeout as timeout:
            if timeout is not limit:
                raise
            return connect_timeout(timeouts)
        except socket.gaierror as error:
            return Failure(Fault.NAME, f"cannot resolve {host}: {error.strerror}")
        except TunnelError as error:
            return Failure(Fault.PROXY, f"no tunnel through {where}: {error}")
        except ssl.SSLCertVerificationError as error:
            return Failure(Fault.TLS_VERIFICATION, f"certificate not accepted: {error.verify_message}")
        except ssl.SSLError as error:
            return Failure(Fault.TLS, f"TLS handshake failed: {error.reason or error.strerror}")
        except ConnectionRefusedError:
            return Failure(Fault.CONNECTION_REFUSED, f"connection refused: nothing listens at {where}")
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
                return Failure(Fault.LOCAL, f"this machine can't open a connection: {error.strerror}")
            step = "connect" if exchange.connect_ns is None else "TLS handshake"
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Failure(Fault.CONNECT, f"{step} to {where} failed: {reason}")
        unless_connected.pop_all()
        return sock, tls
