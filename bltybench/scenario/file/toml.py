"""TOML reading, with error messages that name the line and the fix."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from bltybench.errors import UserError
from bltybench.scenario.files import unreadable

_SYNTAX_REMEDIES = (
    ("Invalid value", "text goes in quotes; numbers, true and false do not"),
    ("Expected '='", "write it as key = value; a table is headed [name]"),
    ("Cannot overwrite", "the key appears twice: remove one"),
    ("Cannot declare", "the table appears twice: merge them (list entries are headed [[name]])"),
    ("Cannot mutate", "the table was written inline earlier: add the key there"),
    ("Expected ']'", "close the bracket"),
    ("Unclosed", "close the bracket"),
    ("Unterminated", "close the quotes"),
    ("Illegal character", "close the quotes on the same line, or remove the character"),
    ("Expected newline", "one key = value per line; text goes in quotes"),
)
"""Fixes, by a part of the parser's message."""
_DIGITS = re.compile(r"[\d_]+")


def read_toml(path: Path, *, what: str = "scenarios file") -> dict[str, Any]:
    """Return the content. Raise UserError with the location if the file can't be read or isn't TOML."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise unreadable(path, error, what=what) from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8 text", where=str(path), remedy="save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax(path, text, str(error)) from None
    except (ValueError, RecursionError):
        raise _unparsable(path, text) from None


def _unparsable(path: Path, text: str) -> UserError:
    """Return the error for TOML that Python can't hold: a number with too many digits, or deep nesting."""
    lines = text.splitlines()
    digits = [max(map(len, _DIGITS.findall(line)), default=0) for line in lines]
    if max(digits) >= sys.get_int_max_str_digits():
        line, what, remedy = digits.index(max(digits)), "a number has too many digits", "shorten it"
    else:
        depths = [line.count("[") + line.count("{") + line.count(".") for line in lines]
        line, what, remedy = depths.index(max(depths)), "values are nested too deeply", "remove some levels"
    return UserError(f"line {line + 1}: {what}", where=str(path), remedy=remedy)


def _syntax(path: Path, text: str, message: str) -> UserError:
    """Return the error with its location. The line itself is not shown, because it may hold a secret."""
    what, _, place = message.rpartition(" (at ")
    numbers = re.fullmatch(r"line (\d+), column (\d+)\)", place)
    lines = text.splitlines() or [""]
    line, column = (int(n) for n in numbers.groups()) if numbers else (len(lines), len(lines[-1]) + 1)
    remedy = next((remedy for start, remedy in _SYNTAX_REMEDIES if start in what), "see https://toml.io")
    return UserError(f"line {line}, column {column}: {what}", where=str(path), remedy=remedy)
