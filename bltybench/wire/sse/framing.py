"""Framing of server-sent events: where an event ends in a stream of bytes, and the fields of its lines.

Framing follows the WHATWG rules (lines end in CRLF, LF, or CR; a blank line ends an event; a byte order mark
can open the stream). It never decodes text, so a read can end within a character.
"""

from collections.abc import Sequence
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its type (empty if the server sent none) and its data lines, joined."""

    name: bytes
    data: bytes


def data_of(wholes: Sequence[bytes]) -> list[bytes] | None:
    """Return what follows ``data:`` in whole events, if each begins with it. Several can follow each other.

    Also return None if one does not end with a blank line, or has line ends other than LF.
    """
    data = [whole[5:-2] for whole in wholes]
    joined = b"".join([b"\n\n", *wholes, b"data:"])
    # One comparison of all takes half as long as two of each.
    return data if b"\n\ndata:".join([b"", *data, b""]) == joined and b"\r" not in joined else None


class Framer:
    """Splits a stream into events, independent of where its reads end."""

    def __init__(self) -> None:
        self.unfinished = bytearray()
        """Bytes of an event that has not ended."""
        self._after_cr = False
        self._started = False

    @property
    def between_events(self) -> bool:
        """Whether the next byte begins an event."""
        return self._started and not self.unfinished and not self._after_cr

    def whole_data(self, pieces: Sequence[bytes]) -> list[bytes] | None:
        """Return the data of pieces that are whole events as they stand, as most servers send them."""
        if pieces[0].startswith(b"data:"):
            self._started = True  # without a byte order mark
        return data_of(pieces) if self.between_events else None

    def feed(self, data: bytes) -> bytes:
        """Return the events that ``data`` completes, each with its blank line. All line ends become LF."""
        if not self._started:
            data = self._skip_mark(data)
        if self._after_cr or b"\r" in data:
            data = self._normalize(data)
        buffer = self.unfinished
        if not buffer and data.endswith(b"\n\n"):
            return data  # most reads: whole events
        # Search new bytes only, so that a line without an end costs no more than its length.
        start = max(0, len(buffer) - 1)
        buffer += data
        end = buffer.rfind(b"\n\n", start)
        if end < 0:
            return b""
        whole = bytes(buffer[: end + 2])
        del buffer[: end + 2]
        return whole

    def _skip_mark(self, data: bytes) -> bytes:
        data = bytes(self.unfinished) + data
        self.unfinished.clear()
        if len(data) < len(BOM) and BOM.startswith(data):
            self.unfinished += data
            return b""
        self._started = True
        return data.removeprefix(BOM)

    def _normalize(self, data: bytes) -> bytes:
        """Turn every line end into LF. A read can end within a CRLF."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def parse_block(block: bytes) -> Event | None:
    """Return the event of a block, or None if it holds no data (comments, keep-alives, ids)."""
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
