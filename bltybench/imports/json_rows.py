"""The rows of JSON logs, streamed: JSON lines, or documents that hold the rows in an array."""

import json
import re
from typing import Any

from bltybench.errors import UserError
from bltybench.imports.row import BrokenRowError
from bltybench.imports.source import MAX_ROW_CHARS, Located, Rows, Source

READ_CHARS = 256 * 1024
CONTAINERS = frozenset({"data", "entries", "resourceSpans", "observations", "logs"})
"""Keys of a document whose array holds the rows. They can be in the object ``log`` (HAR)."""
PARENTS = frozenset({"log"})

_JSON = re.compile(r"\s*(?:\{|\[\s*[{\]])")

_decoder = json.JSONDecoder()


class _CutError(Exception):
    """The file ends within a value."""


def is_json(first: str) -> bool:
    """Return whether a file that begins with ``first`` is JSON. Envoy's lines begin with a bracket too."""
    return _JSON.match(first) is not None


def rows(source: Source, first: str) -> Rows:
    """Yield the objects in a file that begins with ``first``.

    If its first line is a complete row, each line is one, so that a broken one costs no other.
    """
    line, newline, _ = first.lstrip().partition("\n")
    try:
        one = json.loads(line) if newline else None
    except (ValueError, RecursionError):
        one = None
    lines = isinstance(one, dict) and ("resourceSpans" in one or not (one.keys() & (CONTAINERS | PARENTS)))
    return _of_lines(source) if lines else _Document(source).rows()


def _of_lines(source: Source) -> Rows:
    for row in source.lines():
        if isinstance(row.value, BrokenRowError):
            yield row
            continue
        try:
            value = json.loads(row.value)
        except (ValueError, RecursionError):
            yield Located(row.line, BrokenRowError("it is no JSON"))
            continue
        spans = value.get("resourceSpans") if isinstance(value, dict) else None
        for one in spans if isinstance(spans, list) else [value]:
            yield _located(row.line, one)


def _located(line: int, value: Any) -> Located:
    return Located(line, value if isinstance(value, dict) else BrokenRowError("it is no JSON object"))


class _Document:
    """JSON documents, of which only the row that is being decoded is in memory."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._text, self._at, self._line = "", 0, 1

    def rows(self) -> Rows:
        """Yield the rows of one document after another. An object without an array of rows is a row."""
        try:
            while char := self._peek():
                yield from self._elements() if char == "[" else self._members()
        except _CutError:
            yield Located(self._line, BrokenRowError("the file ends within it"))

    def _members(self) -> Rows:
        """Yield the rows in an object."""
        line, other, found = self._line, dict[str, Any](), False
        self._take("{")
        while self._peek() != "}":
            name = self._value()
            self._take(":")
            char = self._peek()
            if name in CONTAINERS and char == "[":
                found = True
                yield from self._elements()
            elif name in PARENTS and char == "{":
                found = True
                yield from self._members()
            else:
                value = self._value()
                if not found:
                    other[str(name)] = value
            self._next("}")
        self._take("}")
        if not found:
            yield Located(line, other)

    def _elements(self) -> Rows:
        self._take("[")
        while self._peek() != "]":
            line = self._line
            yield _located(line, self._value())
            self._next("]")
        self._take("]")

    def _next(self, end: str) -> None:
        if self._peek() != end:
            self._take(",")

    def _peek(self) -> str:
        """Return the next character that is no white space, or "" at the end."""
        while True:
            while self._at < len(self._text):
                char = self._text[self._at]
                if not char.isspace():
                    return char
                self._line += char == "\n"
                self._at += 1
            if not self._more(READ_CHARS):
                return ""

    def _more(self, chars: int) -> bool:
        fresh = self._source.read(chars)
        self._text = self._text[self._at :] + fresh
        self._at = 0
        return bool(fresh)

    def _take(self, char: str) -> None:
        found = self._peek()
        if not found:
            raise _CutError
        if found != char:
            raise self._error()
        self._at += 1

    def _value(self) -> Any:
        """Return the next value."""
        self._peek()
        chars = READ_CHARS
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise self._error() from None
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > MAX_ROW_CHARS:
                    raise self._error() from None
                at = error.pos - self._at
                if self._more(chars):
                    chars *= 2
                    continue
                unfinished = error.msg.startswith("Unterminated") or at >= len(self._text.rstrip()) - 1
                raise (_CutError if unfinished else self._error()) from None
            if end == len(self._text) and isinstance(value, int | float) and self._more(chars):
                continue  # a number can continue in the next part
            self._line += self._text.count("\n", self._at, end)
            self._at = end
            return value

    def _error(self) -> UserError:
        return UserError(
            f"is no JSON, or has a row of more than {MAX_ROW_CHARS:,} characters",
            where=f"{self._source.path}:{self._line}",
            remedy="export the log again, or import only the part before this line",
        )
