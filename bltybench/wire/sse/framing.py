"""Server-sent events: where one ends in a stream of bytes, and what its lines say.

Framing follows the WHATWG rules (lines end in CRLF, LF or CR; a blank line ends an event; a byte order
mark may open the stream) and never decodes text, so a character split across reads does no harm.
"""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its type (empty where the server named none) and its data lines joined."""

    name: bytes
    data: bytes


class Framer:
    """Cuts a stream where events end, whatever the reads' boundaries are."""

    __slots__ = ("_after_cr", "_buffer", "_started")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._after_cr = False
        self._started = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of an event that has not ended."""
        return len(self._buffer)

    @property
    def between_events(self) -> bool:
        """Whether what comes next begins an event."""
        return self._started and not self._buffer and not self._after_cr

    def sole(self, data: bytes) -> bytes | None:
        """Return the event that ``data`` is, without its blank line, if it is one of a single line.

        None: it is something else. Nothing was taken then, and ``feed`` is to have it.
        """
        end = len(data) - 2
        if not data.endswith(b"\n\n") or data.find(b"\n") != end or end == 0:
            return None
        if self._buffer or self._after_cr or b"\r" in data:
            return None
        if not self._started:
            if data[0] == BOM[0]:
                return None
            self._started = True
        return data[:end]

    def feed(self, data: bytes) -> bytes:
        """Return the events that ``data`` completes, each with its blank line. Line ends in them are LF."""
        if not self._started:
            data = self._skip_mark(data)
        if self._after_cr or b"\r" in data:
            data = self._normalise(data)
        buffer = self._buffer
        if not buffer and data.endswith(b"\n\n"):
            return data  # by far the most reads: whole events
        # Only what is new is searched: a line that never ends costs no more than its length.
        start = max(0, len(buffer) - 1)
        buffer += data
        end = buffer.rfind(b"\n\n", start)
        if end < 0:
            return b""
        whole = bytes(buffer[: end + 2])
        del buffer[: end + 2]
        return whole

    def rest(self) -> bytes:
        """Return the bytes of the event that the end of the stream cut off."""
        return bytes(self._buffer)

    def _skip_mark(self, data: bytes) -> bytes:
        data = bytes(self._buffer) + data
        self._buffer.clear()
        if len(data) < len(BOM) and BOM.startswith(data):
            self._buffer += data
            return b""
        self._started = True
        return data.removeprefix(BOM)

    def _normalise(self, data: bytes) -> bytes:
        """Make every line end a LF; a CRLF may be split across reads."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def parse_block(block: bytes) -> Event | None:
    """Return what a block says, or None where it holds no data (comments, keep-alives, ids)."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(b"", block[6:])
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(name, b"\n".join(data)) if data else None
