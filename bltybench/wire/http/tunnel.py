"""A tunnel through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6)."""

import re
from collections.abc import Sequence
from typing import Protocol

from bltybench.scenario.api.proxy import Proxy
from bltybench.text import sanitize
from bltybench.wire.exchange import MAX_HEADER_BYTES

READ_BYTES = 16 * 1024

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] +(\d{3})(?!\d)([^\r\n]*)")


class _Socket(Protocol):
    def sendall(self, data: bytes, /) -> object: ...

    def recv(self, size: int, /) -> bytes: ...


class TunnelError(Exception):
    """A proxy did not open the tunnel. The message is the reason."""


def open_tunnel(sock: _Socket, proxy: Proxy, host: str, port: int, secrets: Sequence[str]) -> None:
    """Have the proxy at the other end of ``sock`` connect it to a host. Raises TunnelError, OSError."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    sock.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii"))
    head = bytearray()
    while (end := _HEAD_END.search(head)) is None:
        if len(head) > MAX_HEADER_BYTES:
            raise TunnelError(f"it sent more than {MAX_HEADER_BYTES} bytes of headers")
        data = sock.recv(READ_BYTES)
        if not data:
            raise TunnelError("it closed the connection")
        head += data
    match = _STATUS_LINE.match(head)
    if match is None:
        raise TunnelError("its response is not HTTP")
    status = int(match[1])
    if not 200 <= status < 300:
        reason = sanitize(match[2].decode(errors="replace"), secrets, redact_keys=True)
        advice = ": check proxy_auth_env of the target" if status == 407 else ""
        raise TunnelError(f"it refuses to connect to {authority}: {status} {reason}".rstrip() + advice)
    if end.end() < len(head):
        raise TunnelError("it sent bytes before the tunnel was used")
