"""Ground-truth log: one JSON line per exchange, to compare measurements with."""

from pathlib import Path

import msgspec

from bltybench.errors import UserError
from bltybench.runs.spool import Spool


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
    fault: str | None = None
    """Injected fault, by its name in the settings. A fault of a TLS connection has a row of its own, without
    a path."""
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
    """Appends rows to a file, or drops them if there is no path."""

    def __init__(self, path: Path | None) -> None:
        self._spool: Spool | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._spool = Spool(path)
            except OSError as error:
                raise UserError(
                    f"can't write the sandbox's log: {error.strerror}",
                    where=str(path),
                    remedy="choose another file with --log",
                ) from error

    def add(self, row: TruthRow) -> None:
        """Add a row for the next flush."""
        if self._spool is not None:
            self._spool.append(row)

    def flush(self) -> None:
        """Write the added rows."""
        if self._spool is not None:
            self._spool.flush()

    def close(self) -> None:
        """Flush and close. Later rows are dropped."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None
