"""The one exception that reaches a person: what is wrong, where, and what to do."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. Shown as plain lines, never as a traceback; the process exits with 2.

    ``what`` says what is wrong, ``where`` names the file, key or address, ``remedy`` says what to do.
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
        return "\n".join(parts)
