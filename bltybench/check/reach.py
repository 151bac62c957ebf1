"""Reachability: name, connection, and TLS, each tested separately."""

import socket
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from bltybench.check.finding import CheckFinding, Status
from bltybench.errors import UserError
from bltybench.scenario.api.access import Access
from bltybench.scenario.api.proxy import Proxy
from bltybench.scenario.target import Target
from bltybench.text import sanitize


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


def reach(target: Target, access: Access) -> list[CheckFinding]:
    """Resolve the name, connect, and complete the TLS handshake, through the proxy if there is one.

    Raise UserError at the first step that fails, because nothing further can be tested.
    """
    parts = urlsplit(target.base_url)
    name, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    proxy = access.proxy
    host, dialed_port = (name, port) if proxy is None else (proxy.host, proxy.port)
    where = target.base_url if proxy is None else f"the proxy {proxy.address}"
    try:
        entries = socket.getaddrinfo(host, dialed_port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        what = f"DNS: the name {host} does not resolve ({sanitize(reason)})"
        key = "base_url" if proxy is None else "proxy"
        raise UserError(what, where=where, remedy=f"check the spelling of {key}") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    findings = [_finding("name resolves", f"{host} has an address", ", ".join(addresses[:3]))]
    try:
        with socket.create_connection((host, dialed_port), timeout=target.timeouts.connect_s) as plain:
            peer_host, peer_port = plain.getpeername()[:2]
            peer = f"{peer_host} port {peer_port}"
            findings.append(_finding("TCP connects", "a connection is accepted", peer))
            if target.base_url.startswith("https:"):
                if proxy is not None:
                    _open_tunnel(plain, proxy, name, port, access.secrets)
                with tls_context(target).wrap_socket(plain, server_hostname=name) as secure:
                    findings.append(_tls_finding(secure, verified=target.verify_tls))
    except OSError as error:
        what, remedy = _diagnosis(error, target.timeouts.connect_s)
        raise UserError(what, where=where, remedy=remedy) from error
    return findings


def speaks_tls(target: Target) -> bool:
    """Return whether the port of an http:// address completes a TLS handshake. A proxy is not used."""
    parts = urlsplit(target.base_url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(
                (parts.hostname or "", parts.port or 80), timeout=target.timeouts.connect_s
            ) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except OSError:
        return False


def _open_tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int, secrets: Sequence[str]) -> None:
    # The package imports gevent, which only a check through a proxy needs.
    from bltybench.wire.http.tunnel import TunnelError, open_tunnel  # noqa: PLC0415

    try:
        open_tunnel(sock, proxy, host, port, secrets)
    except TunnelError as error:
        raise UserError(
            f"no tunnel to {host}: {error}",
            where=f"the proxy {proxy.address}",
            remedy="check proxy and proxy_auth_env of the target",
        ) from None


def _diagnosis(error: OSError, connect_s: float) -> tuple[str, str]:
    """Return why the connection failed, and the fix."""
    match error:
        case TimeoutError():
            remedy = "check the port, and whether a firewall drops the connection"
            return f"no response within {connect_s:g} s", remedy
        case ConnectionRefusedError():
            remedy = "check that the server is running and the port is right"
            return "connection refused: nothing listens there", remedy
        case ssl.SSLCertVerificationError():
            remedy = "set ca_file to the authority's certificates, or check the host in base_url"
            return f"TLS: untrusted certificate: {sanitize(error.verify_message)}", remedy
        case ssl.SSLError():
            remedy = "check whether the server speaks HTTPS on this port"
            return f"TLS: {sanitize(error.reason or str(error))}", remedy
        case _:
            return sanitize(error.strerror or str(error)), "check this machine's network"


def _tls_finding(secure: ssl.SSLSocket, *, verified: bool) -> CheckFinding:
    name, expected = "TLS is good", "a trusted certificate that names the host"
    version = secure.version() or "TLS"
    if verified:
        return _finding(name, expected, version)
    observed = f"{version}, certificate not checked (verify_tls = false)"
    return _finding(name, expected, observed, Status.UNCLEAR)


def _finding(name: str, expected: str, observed: str, status: Status = Status.HOLDS) -> CheckFinding:
    return CheckFinding(group="reach", name=name, status=status, expected=expected, observed=observed)
