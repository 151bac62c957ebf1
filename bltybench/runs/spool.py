"""The spool: JSON lines that one process appends during a run.

Encoding a record takes a few microseconds, and a flush is one write to the page cache, so the event loop
never blocks. Building a columnar batch inside the loop would stall it for milliseconds. After a kill, all
flushed records are complete except possibly the last line, which readers drop.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

FLUSH_BYTES = 64 * 1024


class Spool:
    """An append-only file of records, used by one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, record: msgspec.Struct) -> None:
        """Add a record. The next flush writes it to disk."""
        self._encoder.encode_into(record, self._buffer, -1)
        self._buffer += b"\n"
        self.count += 1
        if len(self._buffer) >= FLUSH_BYTES:
            # The record is kept, and the next flush reports the error.
            with suppress(OSError):
                self.flush()

    def flush(self) -> None:
        """Write all pending records. Raise OSError if the write fails; the records are then kept."""
        try:
            while self._buffer:
                del self._buffer[: os.write(self._fd, self._buffer)]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def close(self) -> None:
        """Flush and close. Further calls do nothing."""
        if self._fd >= 0:
            try:
                self.flush()
            finally:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
