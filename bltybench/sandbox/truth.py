"""Ground-truth log: one JSON line per exchange, to compare measurements with."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from bltybench.errors import UserError


class TruthRow(msgspec.Struct, kw_only=True):
    """One exchange. Times are CLOCK_MONOTONIC nanoseconds of this machine. Missing values are null."""

    request_id: str
    path: str
    received_ns: int
    """Time at which the whole request had been read."""
    decided_ns: int | None = None
    decision: str | None = None
    """accepted, refused:requests, refused:tokens, refused:concurrency, or error (before any limit, or a 500).
    Null if the client disconnected before the decision."""
    status: int | None = None
    """Status sent. Null if the client disconnected before that."""
    key: str | None = None
    """Name of the key in the settings."""
    model: str | None = None
    stream: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Events sent before the end or before the client disconnected."""
    event_ns: list[int] = msgspec.field(default_factory=list)
    """Time just before each content event was written. Streams only."""
    end_ns: int | None = None
    disconnected: bool = False
    """Whether the response was cut off: the client disconnected, or the sandbox was stopped."""


class TruthLog:
    """Appends rows to a file. Rows stay in memory until ``flush``, so that writing never delays an event."""

    def __init__(self, path: Path | None) -> None:
        self._encoder = msgspec.json.Encoder()
        self._lines: list[bytes] = []
        self._fd: int | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                raise UserError(
                    f"can't write the sandbox's log: {error.strerror}",
                    where=str(path),
                    remedy="choose another file with --log",
                ) from error

    def add(self, row: TruthRow) -> None:
        """Add a row for the next flush."""
        if self._fd is not None:
            self._lines.append(self._encoder.encode(row) + b"\n")

    def flush(self) -> None:
        """Write the added rows."""
        if self._fd is not None and self._lines:
            data = memoryview(b"".join(self._lines))
            self._lines.clear()
            while data:
                data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Flush and close. Later rows are dropped."""
        self.flush()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
