"""Repair of response headers that the parser rejects, so that one bad header does not hide the others."""

import re
from typing import NamedTuple

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] +(\d{3})(?!\d)")
_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]+")


class RepairedHead(NamedTuple):
    """The head of a response in valid HTTP, and what followed it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    rest: bytes

    @property
    def data(self) -> bytes:
        """The whole response in valid HTTP."""
        lines = [b"HTTP/1.1 %d" % self.status, *(b"%s: %s" % header for header in self.headers)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.rest


def repair_head(data: bytes) -> RepairedHead | None:
    """Return the repaired head of the final response, or None if it is not complete yet.

    Control characters in values become spaces, folded lines are joined, and lines without a valid name are
    dropped. ``Transfer-Encoding`` overrides ``Content-Length`` (RFC 9112, 6.3). Raises ValueError if ``data``
    is not HTTP.
    """
    while True:
        status_line = _STATUS_LINE.match(data)
        if status_line is None:
            raise ValueError("not an HTTP response")
        end = _END.search(data)
        if end is None:
            return None
        head, data = data[: end.start()], data[end.end() :]
        if (status := int(status_line[1])) >= 200:
            return RepairedHead(status, _headers(head), data)


def _headers(head: bytes) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    for line in _LINE_END.split(head)[1:]:
        if line[:1] in {b" ", b"\t"} and headers:
            name, value = headers.pop()
            headers.append((name, value + b" " + _clean(line)))
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        if colon and _NAME.fullmatch(name):
            headers.append((name, _clean(value)))
    names = {name.lower() for name, _ in headers}
    unframed = b"content-length" if b"transfer-encoding" in names else None
    return list(dict.fromkeys(header for header in headers if header[0].lower() != unframed))


def _clean(value: bytes) -> bytes:
    return _CONTROL.sub(b" ", value).strip()
