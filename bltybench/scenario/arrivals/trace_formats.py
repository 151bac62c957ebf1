"""Trace formats, one reader each: Azure and BurstGPT (CSV), Mooncake and bltybench's own (JSONL)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bltybench.errors import UserError

BLOCK_TOKENS = 512
"""Tokens in a block of a Mooncake trace."""


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
    call: str | None = None


Parse = Callable[[str, str], TraceRow]
"""Function from a line and its location to a row. Raises UserError."""


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
    reader: Callable[[str], Parse]
    """Factory of a parser, called with the first line."""
    keeps_first_line: bool = False
    """Whether the first line is already a row."""
    from_first_row: bool = True
    """Whether times count from the first row. Otherwise they are the run's own."""


# Azure LLM inference traces (Azure Public Dataset, 2023 and 2024)

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_AZURE_EXAMPLE = "a row looks like 2023-11-16 18:15:46.6805900,374,44"
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def _azure(_: str) -> Parse:
    # Seconds since a nearby day: a float resolves nanoseconds over weeks, not over half a century.
    epoch: datetime | None = None

    def parse(line: str, where: str) -> TraceRow:
        nonlocal epoch
        fields = _fields(line, 3, where, _AZURE_EXAMPLE)
        moment, fraction_s = _moment(fields[0], where)
        if epoch is None:
            epoch = moment
        whole_s = (moment - epoch) // timedelta(seconds=1)
        return TraceRow(
            whole_s + fraction_s,
            _count(fields[1], "ContextTokens", 1, where, _AZURE_EXAMPLE),
            max(1, _count(fields[2], "GeneratedTokens", 0, where, _AZURE_EXAMPLE)),
        )

    return parse


def _moment(text: str, where: str) -> tuple[datetime, float]:
    """Return the whole second and the fraction. A missing time zone means UTC."""
    match = _TIMESTAMP.fullmatch(text)
    wrong = UserError(f"TIMESTAMP {text[:40]!r} is not a time", where=where, remedy=_AZURE_EXAMPLE)
    if match is None:
        raise wrong
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{zone or '+00:00'}")
    except ValueError:
        raise wrong from None
    return moment.astimezone(UTC), int((fraction or "0").ljust(9, "0")) / 1e9


# BurstGPT (HPMLL/BurstGPT). Newer files have more columns, so columns are found by name.

BURSTGPT_HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
_BURSTGPT_EXAMPLE = "a row looks like 5,ChatGPT,472,18,490,Conversation log"
_BURSTGPT_NEEDED = ("Timestamp", "Request tokens", "Response tokens")


def _burstgpt(header: str) -> Parse:
    names = [name.strip() for name in header.split(",")]
    at, asked, answered = (names.index(name) for name in _BURSTGPT_NEEDED)

    def parse(line: str, where: str) -> TraceRow:
        fields = _fields(line, len(names), where, _BURSTGPT_EXAMPLE)
        return TraceRow(
            _seconds(fields[at], "Timestamp", where, _BURSTGPT_EXAMPLE),
            max(1, _count(fields[asked], "Request tokens", 0, where, _BURSTGPT_EXAMPLE)),
            max(1, _count(fields[answered], "Response tokens", 0, where, _BURSTGPT_EXAMPLE)),
        )

    return parse


# Mooncake (kvcache-ai/Mooncake): milliseconds, and IDs of blocks of 512 tokens

_MOONCAKE_HEADER = '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": […]}'
_MOONCAKE_EXAMPLE = f"a line looks like {_MOONCAKE_HEADER}"


def _mooncake(_: str) -> Parse:
    def parse(line: str, where: str) -> TraceRow:
        row = _object(line, where, _MOONCAKE_EXAMPLE)
        prompt = _whole(row, "input_length", 1, where, _MOONCAKE_EXAMPLE)
        ids = row.get("hash_ids")
        if not isinstance(ids, list) or not all(isinstance(one, int) and one >= 0 for one in ids):
            raise UserError("hash_ids is not a list of integers", where=where, remedy=_MOONCAKE_EXAMPLE)
        blocks = math.ceil(prompt / BLOCK_TOKENS)
        if len(ids) != blocks:
            raise UserError(
                f"has {len(ids)} hash_ids, but an input_length of {prompt} needs {blocks} blocks of "
                f"{BLOCK_TOKENS}",
                where=where,
                remedy="fix or remove the row",
            )
        return TraceRow(
            _number(row, "timestamp", where, _MOONCAKE_EXAMPLE) / 1000,
            prompt,
            max(1, _whole(row, "output_length", 0, where, _MOONCAKE_EXAMPLE)),
            blocks=tuple(ids),
        )

    return parse


# bltybench's own: seconds since the start of the run, and properties of the request

_OWN_HEADER = '{"at_s": 0.25, "prompt_tokens": 120, "max_tokens": 40}'
_OWN_EXAMPLE = f'a line looks like {_OWN_HEADER}; "call" can name a call of the mix'
_OWN_KEYS = {"at_s", "prompt_tokens", "max_tokens", "call"}


def _own(_: str) -> Parse:
    def parse(line: str, where: str) -> TraceRow:
        row = _object(line, where, _OWN_EXAMPLE)
        unknown = sorted(row.keys() - _OWN_KEYS)
        if unknown:
            raise UserError(f"unknown key {unknown[0][:40]!r}", where=where, remedy=_OWN_EXAMPLE)
        call = row.get("call")
        if call is not None and not isinstance(call, str):
            raise UserError("call is not text", where=where, remedy=_OWN_EXAMPLE)
        return TraceRow(
            _number(row, "at_s", where, _OWN_EXAMPLE),
            _whole(row, "prompt_tokens", 1, where, _OWN_EXAMPLE) if "prompt_tokens" in row else None,
            _whole(row, "max_tokens", 1, where, _OWN_EXAMPLE) if "max_tokens" in row else None,
            call=call,
        )

    return parse


def _is_burstgpt(first: str) -> bool:
    return {name.strip() for name in first.split(",")} >= set(_BURSTGPT_NEEDED)


FORMATS = (
    Format(AZURE_HEADER, _AZURE_EXAMPLE, "TIMESTAMP", AZURE_HEADER.__eq__, _azure),
    Format(BURSTGPT_HEADER, _BURSTGPT_EXAMPLE, "Timestamp", _is_burstgpt, _burstgpt),
    Format(
        _OWN_HEADER,
        _OWN_EXAMPLE,
        "at_s",
        lambda first: first.startswith("{") and '"at_s"' in first,
        _own,
        keeps_first_line=True,
        from_first_row=False,
    ),
    Format(
        _MOONCAKE_HEADER,
        _MOONCAKE_EXAMPLE,
        "timestamp",
        lambda first: first.startswith("{"),
        _mooncake,
        keeps_first_line=True,
    ),
)
"""Formats in the order in which they are tried."""


def _fields(line: str, wanted: int, where: str, example: str) -> list[str]:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != wanted:
        raise UserError(f"has {len(fields)} fields, not {wanted}", where=where, remedy=example)
    return fields


def _count(text: str, column: str, least: int, where: str, example: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise UserError(f"{column} {text[:40]!r} is not an integer", where=where, remedy=example)
    return _at_least(int(text[:20]), column, least, where)


def _seconds(text: str, column: str, where: str, example: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{column} {text[:40]!r} is not a number of seconds", where=where, remedy=example)
    return value


def _object(line: str, where: str, example: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not valid JSON: {error}", where=where, remedy=example) from None
    if not isinstance(row, dict):
        raise UserError("not a JSON object", where=where, remedy=example)
    return row


def _number(row: dict[str, Any], key: str, where: str, example: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise UserError(f"{key} is not a number >= 0", where=where, remedy=example)
    return float(value)


def _whole(row: dict[str, Any], key: str, least: int, where: str, example: str) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{key} is not an integer", where=where, remedy=example)
    return _at_least(value, key, least, where)


def _at_least(value: int, column: str, least: int, where: str) -> int:
    if value < least:
        raise UserError(
            f"{column} is {value}, must be {least} or more", where=where, remedy="fix or remove the row"
        )
    return value
