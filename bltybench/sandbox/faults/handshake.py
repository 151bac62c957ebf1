"""TLS of the sandbox: certificates of its own authority, and handshakes that fail on purpose."""

import os
import ssl
import time
from itertools import count
from pathlib import Path

import trustme

from bltybench.errors import UserError
from bltybench.sandbox.faults.draw import draw
from bltybench.sandbox.process import GREETING_HOST
from bltybench.sandbox.truth import TruthLog, TruthRow
from bltybench.scenario.target import SandboxSettings

NAMES = ("127.0.0.1", "localhost", "::1")
"""Hosts that the certificates are for."""


def tls_context(settings: SandboxSettings, ca_file: Path, log: TruthLog) -> ssl.SSLContext:
    """Return the server's context, after writing its authority's certificate to ``ca_file``.

    Each connection can get a fault, which is a row of ``log``. Raise UserError if the file can't be written.
    """
    authority = trustme.CA()
    _write_whole(ca_file, authority.cert_pem.bytes())
    trusted, untrusted = _context(authority), _context(trustme.CA())
    rates, ordinals = settings.faults.of_connections(), count()

    def on_client_hello(
        session: ssl.SSLSocket | ssl.SSLObject, server_name: str | None, _: ssl.SSLContext
    ) -> int | None:
        if server_name == GREETING_HOST:
            return None
        fault = draw(rates, settings.seed, "connection", next(ordinals))
        if fault is None:
            return None
        now_ns = time.monotonic_ns()
        log.add(TruthRow(request_id="", path="", received_ns=now_ns, end_ns=now_ns, fault=fault))
        if fault == "tls_handshake":
            return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
        session.context = untrusted
        return None

    trusted.sni_callback = on_client_hello
    return trusted


def _context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(*NAMES).configure_cert(context)
    return context


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that readers see whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"can't write the sandbox's certificate authority: {error.strerror}",
            where=str(path),
            remedy="choose another ca_file",
        ) from error
