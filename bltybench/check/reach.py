"""Can the API be reached at all? Name, connection and TLS are each tried on their own."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from bltybench.check.finding import CheckFinding, Status
from bltybench.check.text import clean
from bltybench.errors import UserError
from bltybench.scenario.target import Target

GROUP = "reach"


def address(target: Target) -> tuple[str, int]:
    """Return host and port of ``target``."""
    parts = urlsplit(target.base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def tls_context(target: Target) -> ssl.SSLContext:
    """Return how certificates of ``target`` are checked: by its ca_file, else as the system does.

    Raises UserError where ca_file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except OSError as error:  # ssl.SSLError is one of them
        raise UserError(
            f"ca_file cannot be used: {error.strerror or error}",
            where=target.ca_file,
            remedy="it must be a PEM file of certificates",
        ) from error
    if not target.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def reach(target: Target) -> list[CheckFinding]:
    """Resolve the name, connect, and shake hands.

    Raises UserError at the first of them that fails: nothing further can be asked then.
    """
    host, port = address(target)
    found = [_resolve(target, host, port)]
    try:
        with socket.create_connection((host, port), timeout=target.timeouts.connect_s) as plain:
            found.append(_holds("TCP connects", "a connection is accepted", _peer(plain)))
            if target.base_url.startswith("https:"):
                with tls_context(target).wrap_socket(plain, server_hostname=host) as secure:
                    found.append(_tls(target, secure))
    except TimeoutError as error:
        raise _unreachable(
            target,
            f"no answer within {target.timeouts.connect_s:g} s",
            "is the port right, and does a firewall drop it?",
        ) from error
    except ConnectionRefusedError as error:
        raise _unreachable(
            target, "connection refused: nothing listens there", "is the server running, and the port right?"
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise _unreachable(
            target,
            f"TLS: the certificate is not trusted: {clean(error.verify_message)}",
            "give the authority's certificates as ca_file, or see whether base_url names the right host",
        ) from error
    except ssl.SSLError as error:
        raise _unreachable(
            target,
            f"TLS: {clean(error.reason or str(error))}",
            "does the server speak https on this port?",
        ) from error
    except OSError as error:
        raise _unreachable(
            target, clean(error.strerror or str(error)), "see the network on this machine"
        ) from error
    return found


def _resolve(target: Target, host: str, port: int) -> CheckFinding:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise _unreachable(
            target, f"DNS: the name {host} does not resolve ({clean(reason)})", "is base_url spelt right?"
        ) from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    return _holds("name resolves", f"{host} has an address", ", ".join(addresses[:3]))


def _peer(connection: socket.socket) -> str:
    host, port = connection.getpeername()[:2]
    return f"{host} port {port}"


def _tls(target: Target, secure: ssl.SSLSocket) -> CheckFinding:
    version = secure.version() or "TLS"
    if not target.verify_tls:
        return CheckFinding(
            group=GROUP,
            name="TLS is good",
            status=Status.UNCLEAR,
            expected="a certificate that is trusted and names the host",
            observed=f"{version}, certificate not checked (verify_tls = false)",
        )
    return _holds("TLS is good", "a certificate that is trusted and names the host", version)


def _holds(name: str, expected: str, observed: str) -> CheckFinding:
    return CheckFinding(group=GROUP, name=name, status=Status.HOLDS, expected=expected, observed=observed)


def _unreachable(target: Target, what: str, remedy: str) -> UserError:
    return UserError(what, where=target.base_url, remedy=remedy)
