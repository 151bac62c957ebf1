"""A line of a trace, the row that it becomes, and what a format of traces is."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bltybench.errors import UserError
from bltybench.scenario.files import read_json

SESSION_KEYS = ("chat_id", "parent_chat_id", "turn")
"""Keys of Bailian's traces that make requests a session."""
NO_PARENT = (-1, "-1", "", None)
"""Values of ``parent_chat_id`` of the first request of a session."""

ChatId = int | str


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One recorded request."""

    at_s: float
    """Recorded time, in seconds."""
    prompt_tokens: int | None = None
    """None if the format leaves it to the mix."""
    max_tokens: int | None = None
    """Tokens requested if the recorded completion is empty: the smallest value an API accepts. Skipping the
    request would reduce the load."""
    blocks: tuple[int, ...] = ()
    block_tokens: int = 0
    """Tokens of each block but the last."""
    call: str | None = None
    chat: ChatId | None = None
    """ID of the request, to which later ones can refer as their parent."""
    parent: ChatId | None = None
    """``chat`` of the request before it in its session."""
    turn: int | None = None
    copy: int = 0
    """Number of its copy, if the trace is scaled up."""
    number: int | None = None
    """Number of the recorded request in the file, from 0."""


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One line of a trace, with its location and an example for messages."""

    text: str
    where: str
    example: str

    def error(self, what: str) -> UserError:
        """Return the error for an invalid line."""
        return UserError(what, where=self.where, remedy=self.example)

    def fields(self, count: int) -> list[str]:
        """Return ``count`` comma-separated fields."""
        fields = [field.strip() for field in self.text.split(",")]
        if len(fields) != count:
            raise self.error(f"has {len(fields)} fields, not {count}")
        return fields

    def count(self, text: str, column: str, minimum: int) -> int:
        """Return a field as an integer."""
        if not (text.isascii() and text.removeprefix("-").isdigit()):
            raise self.error(f"{column} {text[:40]!r} is not an integer")
        return self._bounded(int(text[:20]), column, minimum)

    def object(self) -> dict[str, Any]:
        """Return the line as a JSON object."""
        row = read_json(self.text, where=self.where, remedy=self.example)
        if not isinstance(row, dict):
            raise self.error("not a JSON object")
        return row

    def seconds(self, row: dict[str, Any], key: str) -> float:
        """Return a value of a JSON object as a non-negative number."""
        value = row.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self.error(f"{key} is not a number >= 0")
        return float(value)

    def whole(self, row: dict[str, Any], key: str, minimum: int) -> int:
        """Return a value of a JSON object as an integer."""
        value = row.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"{key} is not an integer")
        return self._bounded(value, key, minimum)

    def session(self, row: dict[str, Any]) -> tuple[ChatId | None, ChatId | None, int | None]:
        """Return a row's ID, its parent (without the key: the row before it with that ID), and its turn."""
        chat = row.get("chat_id")
        parent = row.get("parent_chat_id", chat)
        for key, value in (("chat_id", chat), ("parent_chat_id", parent)):
            if isinstance(value, bool) or not isinstance(value, int | str | None):
                raise self.error(f"{key} is neither an integer nor text")
        turn = None if row.get("turn") is None else self.whole(row, "turn", 1)
        return chat, None if parent in NO_PARENT else parent, turn

    def _bounded(self, value: int, column: str, minimum: int) -> int:
        if value < minimum:
            what = f"{column} is {value}, must be {minimum} or more"
            raise UserError(what, where=self.where, remedy="fix or remove the row")
        return value


TimeUnit = Literal["s", "ms"]
Parse = Callable[[TraceLine], TraceRow]
"""Function from a line to a row. Raises UserError."""


@dataclass(frozen=True, slots=True)
class Format:
    """A trace format."""

    header: str
    """Start of a file in this format."""
    example: str
    time: str
    """Name of its time column."""
    fits: Callable[[str], bool]
    """Whether a file with this first line has this format."""
    reader: Callable[[str, TimeUnit | None], Parse]
    """Factory of a parser, called with the first line and the given unit of time."""
    keeps_first_line: bool = False
    """Whether the first line is already a row."""
    from_first_row: bool = True
    """Whether times count from the first row. Otherwise they are the run's own."""
    has_units: bool = False
    """Whether files in this format have different units of time."""
