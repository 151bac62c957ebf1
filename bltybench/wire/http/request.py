"""The bytes of a request."""

from collections.abc import Sequence

from bltybench.wire.http.origin import Origin


class RequestWriter:
    """Composes the requests of a connection. They differ in their bodies only, so the head is cached."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._head = b""
        self._head_key: tuple[str, str, tuple[tuple[str, str], ...]] | None = None

    def compose(self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
        """Return a request. Raises ValueError for a path or headers that cannot be sent."""
        key = (method, path, tuple(headers))
        if key != self._head_key:
            self._head, self._head_key = self._make_head(*key), key
        if body or method != "GET":
            return b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(body), body)
        return self._head + b"\r\n"

    def _make_head(self, method: str, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        origin = self._origin
        query = origin.query.replace("?", "&", 1) if "?" in path else origin.query
        target = f"{origin.prefix}{path}{query}"
        forwarded = origin.proxy if origin.tls is None else None
        if forwarded is not None:
            target = f"http://{origin.authority}{target}"
        lines = [f"{method} {target} HTTP/1.1", f"Host: {origin.authority}"]
        if forwarded is not None and forwarded.authorization is not None:
            lines.append(f"Proxy-Authorization: {forwarded.authorization}")
        # Compressed events arrive in batches, which would hide when each token arrived.
        lines.append("Accept-Encoding: identity")
        lines.extend([f"{name}: {value}" for name, value in headers])
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise ValueError("a header or the path holds a line break")
        return f"{head}\r\n".encode("latin-1")
