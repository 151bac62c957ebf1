"""Reading files of a run folder that may be damaged: one error for each, and no endless read."""

import os
import stat
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from bltybench.errors import UserError, reason

MAX_JSON_BYTES = 256 * 1024 * 1024
"""Largest JSON file that is read, in bytes."""

T = TypeVar("T")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file. Raise OSError for anything else: reading a pipe or a device may never end."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    raise OSError("not a regular file")


def read_json(path: Path, kind: type[T]) -> T:
    """Return the content of a JSON file as ``kind``.

    Raise FileNotFoundError if there is none, and UserError if it can't be read.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise UserError(f"has more than {MAX_JSON_BYTES:,} bytes", where=str(path))
        return msgspec.json.decode(data, type=kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot be read: {reason(error)}", where=str(path)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None
    except RecursionError:
        raise UserError("cannot be read: it is nested too deeply", where=str(path)) from None
