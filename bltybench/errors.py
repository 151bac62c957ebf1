"""The one exception shown to users: what is wrong, where, and what to do."""

import os

CANNOT_RUN = 2
"""Exit code of a command or a run that ends with such an error."""


class UserError(Exception):
    """An error that the user can fix. Printed without a traceback; the process exits with 2.

    ``what`` describes the error, ``where`` names the file, key, or address, and ``remedy`` is the fix.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.remedy:
            parts.append(f"  → {self.remedy}")
        return "\n".join(map(_printable, "\n".join(parts).split("\n")))


def _printable(line: str) -> str:
    """Escape what a terminal would obey: names and paths in a message can hold any character."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def reason(error: OSError) -> str:
    """Return why the system refused, without the file's name."""
    return error.strerror or str(error)


def os_error(error: OSError) -> UserError:
    """Return an error of the system as one for users: what went wrong, and with which file."""
    where = None if error.filename is None else os.fsdecode(error.filename)
    return UserError(reason(error), where=where)
