"""Trace formats, one reader each: Azure and BurstGPT (CSV), Mooncake and bltybench's own (JSONL)."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from bltybench.errors import UserError
from bltybench.scenario.files import read_json

BLOCK_SIZES = (16, 32, 64, 128, 256, 512)
"""Sizes that the blocks of a trace can have, in tokens: 512 in Mooncake's traces, 16 in Bailian's."""
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
    prompt_tokens: int | None
    """None only in bltybench's own format. The mix then decides."""
    max_tokens: int | None
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


@dataclass(frozen=True, slots=True)
class Line:
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
Parse = Callable[[Line], TraceRow]
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


# Azure LLM inference traces (Azure Public Dataset, 2023 and 2024)

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def _azure(_: str, _unit: TimeUnit | None) -> Parse:
    # Seconds since a nearby day: a float resolves nanoseconds over weeks, not over half a century.
    epoch: datetime | None = None

    def parse(line: Line) -> TraceRow:
        nonlocal epoch
        timestamp, prompt, completion = line.fields(3)
        moment, fraction_s = _moment(line, timestamp)
        epoch = epoch or moment
        return TraceRow(
            (moment - epoch) // timedelta(seconds=1) + fraction_s,
            line.count(prompt, "ContextTokens", 1),
            max(1, line.count(completion, "GeneratedTokens", 0)),
        )

    return parse


def _moment(line: Line, text: str) -> tuple[datetime, float]:
    """Return the whole second and the fraction. A missing time zone means UTC."""
    match = _TIMESTAMP.fullmatch(text)
    invalid = line.error(f"TIMESTAMP {text[:40]!r} is not a time")
    if match is None:
        raise invalid
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{zone or '+00:00'}")
    except ValueError:
        raise invalid from None
    return moment.astimezone(UTC), int((fraction or "0").ljust(9, "0")) / 1e9


# BurstGPT (HPMLL/BurstGPT). Newer files have more columns, so columns are found by name.

_BURSTGPT_COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
_SESSION = "Session ID"


def _burstgpt(header: str, _unit: TimeUnit | None) -> Parse:
    names = [name.strip() for name in header.split(",")]
    columns = [names.index(name) for name in _BURSTGPT_COLUMNS]
    session = names.index(_SESSION) if _SESSION in names else None

    def parse(line: Line) -> TraceRow:
        fields = line.fields(len(names))
        at, prompt, completion = (fields[column] for column in columns)
        try:
            at_s = float(at)
        except ValueError:
            at_s = math.nan
        if not 0 <= at_s < math.inf:
            raise line.error(f"Timestamp {at[:40]!r} is not a number of seconds")
        # The parent of a row is the row before it in its session.
        chat = None if session is None else fields[session] or None
        return TraceRow(
            at_s,
            max(1, line.count(prompt, "Request tokens", 0)),
            max(1, line.count(completion, "Response tokens", 0)),
            chat=chat,
            parent=chat,
        )

    return parse


# Mooncake (kvcache-ai/Mooncake) and Bailian (alibaba-edu/qwen-bailian-usagetraces-anon): IDs of blocks

_MOONCAKE_HEADER = '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": […]}'


class _Blocks:
    """Parser of a trace with blocks, which infers the size of blocks from its rows."""

    def __init__(self, _: str, unit: TimeUnit | None) -> None:
        self._unit = unit
        """Unit of timestamps. Without a given one, a decimal point means seconds."""
        self._sizes: tuple[int, ...] = BLOCK_SIZES
        """Block sizes that fit all rows so far. A prompt of two or more blocks leaves one."""

    def __call__(self, line: Line) -> TraceRow:
        """Return the row of a line."""
        row = line.object()
        prompt = line.whole(row, "input_length", 1)
        ids = row.get("hash_ids", [])
        if not isinstance(ids, list) or not all(isinstance(one, int) and one >= 0 for one in ids):
            raise line.error("hash_ids is not a list of integers")
        if "hash_ids" in row:
            self._fit_sizes(line, prompt, len(ids))
        completion = max(1, line.whole(row, "output_length", 0))
        at_s = self._at_s(line, row)
        size = self._sizes[-1] if ids else 0
        return TraceRow(at_s, prompt, completion, tuple(ids), size, None, *line.session(row))

    def _fit_sizes(self, line: Line, prompt: int, blocks: int) -> None:
        fitting = tuple(size for size in self._sizes if math.ceil(prompt / size) == blocks)
        if not fitting:
            size = self._sizes[-1]
            raise UserError(
                f"has {blocks} hash_ids, but an input_length of {prompt} needs {math.ceil(prompt / size)} "
                f"blocks of {size}",
                where=line.where,
                remedy="fix or remove the row",
            )
        self._sizes = fitting

    def _at_s(self, line: Line, row: dict[str, Any]) -> float:
        timestamp = line.seconds(row, "timestamp")
        if self._unit is None and timestamp:
            if isinstance(row["timestamp"], int):
                raise UserError(
                    f"timestamp {timestamp:g} can be in seconds or in milliseconds",
                    where=line.where,
                    remedy='add time_unit = "ms" (as in Mooncake\'s traces) or "s" to the arrivals',
                )
            self._unit = "s"
        return timestamp / 1000 if self._unit == "ms" else timestamp


# bltybench's own: seconds since the start of the run, and properties of the request

_OWN_HEADER = '{"at_s": 0.25, "prompt_tokens": 120, "max_tokens": 40}'
_OWN_KEYS = {"at_s", "prompt_tokens", "max_tokens", "call", *SESSION_KEYS}


def _own(line: Line) -> TraceRow:
    row = line.object()
    unknown = sorted(row.keys() - _OWN_KEYS)
    if unknown:
        raise line.error(f"unknown key {unknown[0][:40]!r}")
    call = row.get("call")
    if call is not None and not isinstance(call, str):
        raise line.error("call is not text")
    at_s = line.seconds(row, "at_s")
    prompt, completion = (
        line.whole(row, key, 1) if key in row else None for key in ("prompt_tokens", "max_tokens")
    )
    return TraceRow(at_s, prompt, completion, (), 0, call, *line.session(row))


def _is_burstgpt(first: str) -> bool:
    return {name.strip() for name in first.split(",")} >= set(_BURSTGPT_COLUMNS)


FORMATS = (
    Format(
        AZURE_HEADER,
        "a row looks like 2023-11-16 18:15:46.6805900,374,44",
        "TIMESTAMP",
        AZURE_HEADER.__eq__,
        _azure,
    ),
    Format(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        "a row looks like 5,ChatGPT,472,18,490,Conversation log",
        "Timestamp",
        _is_burstgpt,
        _burstgpt,
    ),
    Format(
        _OWN_HEADER,
        f'a line looks like {_OWN_HEADER}; "call" can name a call of the mix',
        "at_s",
        lambda first: first.startswith("{") and '"at_s"' in first,
        lambda _first, _unit: _own,
        keeps_first_line=True,
        from_first_row=False,
    ),
    Format(
        _MOONCAKE_HEADER,
        f"a line looks like {_MOONCAKE_HEADER}",
        "timestamp",
        lambda first: first.startswith("{"),
        _Blocks,
        keeps_first_line=True,
        has_units=True,
    ),
)
"""Formats in the order in which they are tried."""
