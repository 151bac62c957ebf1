"""The spool: JSON lines appended by one process while a run goes on.

Encoding a record costs a few microseconds and a flush is one write to the page cache, so the event loop
never waits for it; a columnar batch built inside the loop stalls it for milliseconds. After a kill, what was
flushed is whole but perhaps for the last line, which readers drop.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

FLUSH_BYTES = 64 * 1024


class Spool:
    """An append-only file of records. Not shared between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, record: msgspec.Struct) -> None:
        """Add a record; it is on disk after the next flush."""
        self._encoder.encode_into(record, self._buffer, -1)
        self._buffer += b"\n"
        self.count += 1
        if len(self._buffer) >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting. Raises OSError where the disk will not take it; nothing is dropped then."""
        while self._buffer:
            del self._buffer[: os.write(self._fd, self._buffer)]

    def close(self) -> None:
        """Flush and close; a second call does nothing."""
        if self._fd >= 0:
            try:
                self.flush()
            finally:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
