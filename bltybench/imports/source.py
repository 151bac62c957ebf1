"""The lines of log files, streamed: text or gzip, with the position for messages and for progress."""

import csv
import gzip
import io
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bltybench.errors import UserError
from bltybench.imports.row import BrokenRowError
from bltybench.runs.files import open_regular
from bltybench.scenario.files import unreadable

MAX_ROW_CHARS = 32 * 1024 * 1024
"""Longest row, in characters. Bodies of requests can hold images."""
GZIP = b"\x1f\x8b"
UNREADABLE = (OSError, EOFError, zlib.error)
"""Errors of the disk, and of a damaged gzip file."""
REPORT_S = 0.5
"""Time between two reports of progress, in seconds."""


@dataclass(frozen=True, slots=True)
class Located:
    """A row as the file has it, or why it is broken, with its line."""

    line: int
    value: Any
    """Text of a line, or a decoded object; a BrokenRowError if it can't be read."""


Rows = Iterator[Located]
Report = Callable[[int, int], None]
"""Function that shows progress: bytes read, and bytes of the file."""


class Source:
    """A log file that is being read. Only what it held when it was opened is read: a log can grow."""

    def __init__(self, path: Path, report: Report | None = None) -> None:
        self.path = path
        try:
            self._raw: IO[bytes] = open_regular(path)
        except OSError as error:
            raise unreadable(path, error, what="log file") from None
        self.size = self._raw.seek(0, io.SEEK_END)
        self._raw.seek(0)
        packed = self._raw.read(2) == GZIP
        self._raw.seek(0)
        bounded = io.BufferedReader(_Bounded(self._raw, self.size))
        binary: Any = gzip.GzipFile(fileobj=bounded) if packed else bounded
        self.text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="\n")
        self._report, self._next_s = report, 0.0

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def read(self, chars: int) -> str:
        """Return up to ``chars`` characters; fewer only at the end."""
        self._show()
        try:
            return self.text.read(chars)
        except UNREADABLE as error:
            raise UserError(f"can't be read: {error}", where=str(self.path)) from None

    def lines(self) -> Rows:
        """Yield the lines that are not empty, without their ends."""
        number = 0
        while line := self._line():
            number += 1
            if len(line) > MAX_ROW_CHARS:
                while line and not line.endswith("\n"):
                    line = self._line()
                yield Located(number, BrokenRowError("it is too long"))
            elif stripped := line.strip():
                yield Located(number, stripped)

    def tables(self) -> Rows:
        """Yield the rows of a CSV file as objects, by the names in its first row."""
        csv.field_size_limit(MAX_ROW_CHARS)
        reader = csv.reader(iter(self._line, ""))
        names = next(reader, [])
        while True:
            try:
                fields = next(reader, None)
            except csv.Error:
                yield Located(reader.line_num, BrokenRowError("it is no CSV"))
                continue
            if fields is None:
                return
            if len(fields) != len(names):
                what = f"it has {len(fields)} columns, and the first row {len(names)}"
                yield Located(reader.line_num, BrokenRowError(what))
            else:
                yield Located(reader.line_num, dict(zip(names, fields, strict=True)))

    def _line(self) -> str:
        self._show()
        try:
            return self.text.readline(MAX_ROW_CHARS + 1)
        except UNREADABLE as error:
            raise UserError(f"can't be read: {error}", where=str(self.path)) from None

    def _show(self) -> None:
        if self._report is not None and (now_s := time.monotonic()) >= self._next_s:
            self._next_s = now_s + REPORT_S
            self._report(self._raw.tell(), self.size)


class _Bounded(io.RawIOBase):
    """The first ``size`` bytes of a file."""

    def __init__(self, raw: IO[bytes], size: int) -> None:
        self._raw, self._left = raw, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)
