"""Reading a TOML file, with messages that say where it stops being one and what to do."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from bltybench.errors import UserError
from bltybench.scenario.files import unreadable

_SYNTAX_REMEDIES = (
    ("Invalid value", "text goes in quotes; numbers, true and false do not"),
    ("Expected '='", "write it as key = value; a table is headed [name]"),
    ("Cannot overwrite", "the key is there twice: remove one"),
    ("Cannot declare", "the table is there twice: join the two (entries of a list are headed [[name]])"),
    ("Cannot mutate", "the table was written inline before: add the key there"),
    ("Expected ']'", "close the bracket"),
    ("Unclosed", "close the bracket"),
    ("Unterminated", "close the quotes"),
    ("Illegal character", "close the quotes on the same line, or remove the character"),
    ("Expected newline", "one key = value a line; text goes in quotes"),
)
"""What to do, by a part of the parser's message."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content. Raises UserError where the file cannot be read or is not TOML: where, and why."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise unreadable(path, error, what="scenarios file") from None
    except UnicodeDecodeError:
        raise UserError(
            "not UTF-8 text", where=str(path), remedy="save the file with the encoding UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax(path, text, str(error)) from None


def _syntax(path: Path, text: str, said: str) -> UserError:
    """Say where the file stops being TOML. The line itself is not shown: it may hold anything."""
    what, _, place = said.rpartition(" (at ")
    numbers = re.fullmatch(r"line (\d+), column (\d+)\)", place)
    lines = text.splitlines() or [""]
    line, column = (int(n) for n in numbers.groups()) if numbers else (len(lines), len(lines[-1]) + 1)
    remedy = next(
        (remedy for start, remedy in _SYNTAX_REMEDIES if start in what), "https://toml.io shows how"
    )
    return UserError(f"line {line}, column {column}: {what}", where=str(path), remedy=remedy)
