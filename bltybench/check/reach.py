"""Reachability: name, connection, and TLS, each tested separately."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from bltybench.check.finding import CheckFinding, Status
from bltybench.errors import UserError
from bltybench.scenario.target import Target
from bltybench.text import sanitize

GROUP = "reach"


def address(target: Target) -> tuple[str, int]:
    """Return host and port of ``target``."""
    parts = urlsplit(target.base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def tls_context(target: Target) -> ssl.SSLContext:
    """Return the TLS context for ``target``: its ca_file, or the system's certificates.

    Raise UserError if ca_file can't be read.
    """
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except OSError as error:  # includes ssl.SSLError
        raise UserError(
            f"can't use ca_file: {error.strerror or error}",
            where=target.ca_file,
            remedy="it must be a PEM file of certificates",
        ) from error
    if not target.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def reach(target: Target) -> list[CheckFinding]:
    """Resolve the name, connect, and complete the TLS handshake.

    Raise UserError at the first step that fails, because nothing further can be tested.
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
            f"no response within {target.timeouts.connect_s:g} s",
            "check the port, and whether a firewall drops the connection",
        ) from error
    except ConnectionRefusedError as error:
        raise _unreachable(
            target,
            "connection refused: nothing listens there",
            "check that the server is running and the port is right",
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise _unreachable(
            target,
            f"TLS: untrusted certificate: {sanitize(error.verify_message)}",
            "set ca_file to the authority's certificates, or check the host in base_url",
        ) from error
    except ssl.SSLError as error:
        raise _unreachable(
            target,
            f"TLS: {sanitize(error.reason or str(error))}",
            "check whether the server speaks HTTPS on this port",
        ) from error
    except OSError as error:
        raise _unreachable(
            target, sanitize(error.strerror or str(error)), "check this machine's network"
        ) from error
    return found


def _resolve(target: Target, host: str, port: int) -> CheckFinding:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise _unreachable(
            target,
            f"DNS: the name {host} does not resolve ({sanitize(reason)})",
            "check the spelling of base_url",
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
            expected="a trusted certificate that names the host",
            observed=f"{version}, certificate not checked (verify_tls = false)",
        )
    return _holds("TLS is good", "a trusted certificate that names the host", version)


def _holds(name: str, expected: str, observed: str) -> CheckFinding:
    return CheckFinding(group=GROUP, name=name, status=Status.HOLDS, expected=expected, observed=observed)


def _unreachable(target: Target, what: str, remedy: str) -> UserError:
    return UserError(what, where=target.base_url, remedy=remedy)
