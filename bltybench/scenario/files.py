"""Reading of text files that a scenario names, with clear error messages."""

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from bltybench.errors import UserError


def open_text(path: Path, *, what: str) -> Iterator[tuple[int, str]]:
    """Yield each line of a UTF-8 file with its number from 1, without line ends, streaming from disk.

    ``what`` describes the file in messages. Raise UserError if the file is missing, a folder, unreadable, or
    not UTF-8.
    """
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\n")
    except OSError as error:
        raise unreadable(path, error, what=what) from None
    except UnicodeDecodeError:
        raise UserError(
            "not UTF-8 text", where=f"{path}:{number + 1}", remedy="save the file as UTF-8"
        ) from None


def open_lines(path: Path, *, what: str, at: int = 0) -> Generator[tuple[int, bytes], None, None]:
    """Yield each line of a file from byte ``at`` on, with its place in bytes, streaming from disk.

    Raise UserError as ``open_text`` does.
    """
    try:
        with path.open("rb") as file:
            file.seek(at)
            for line in file:
                yield at, line
                at += len(line)
    except OSError as error:
        raise unreadable(path, error, what=what) from None


def decoded(line: bytes, *, where: str) -> str:
    """Return the text of a line, without its end or a byte order mark. Raise UserError if it isn't UTF-8."""
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UserError("not UTF-8 text", where=where, remedy="save the file as UTF-8") from None


def unreadable(path: Path, error: OSError, *, what: str) -> UserError:
    """Return the UserError for a file that can't be opened."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{what} not found", where=str(path), remedy=f"looked in {path.parent.resolve()}")
    if isinstance(error, IsADirectoryError):
        return UserError("is a folder", where=str(path), remedy=f"name the {what} in it")
    if isinstance(error, PermissionError):
        return UserError("no permission to read it", where=str(path), remedy=f"chmod u+r {path}")
    return UserError(f"cannot be read: {error.strerror or error}", where=str(path))


def read_json(text: str, *, where: str, remedy: str) -> Any:
    """Return one line of a JSONL file as a value. Raise UserError if it is not JSON."""
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError("contains half of a surrogate pair", where=where, remedy=remedy) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"not valid JSON: {error}", where=where, remedy=remedy) from None
    return value


def version_of(path: Path) -> tuple[int, int]:
    """Return the size and modification time of a file."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0  # reading the file reports the reason
    return stat.st_size, stat.st_mtime_ns
