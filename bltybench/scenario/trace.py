"""Recorded arrivals and lengths: CSV as in the Azure Public Dataset (AzureLLMInferenceDataset).

``TIMESTAMP,ContextTokens,GeneratedTokens``, a row a request, in order of time; the timestamp has up to nine
decimals of a second. Read from disk as it is used: a trace may be larger than memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bltybench.errors import UserError
from bltybench.scenario.files import open_text

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
EXAMPLE = "a row looks like 2023-11-16 18:15:46.6805900,374,44"

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded request."""

    at_s: float
    """Seconds after the first row."""
    prompt_tokens: int
    max_tokens: int


def check(path: Path, until_s: float) -> None:
    """Read the part before ``until_s`` once. Raises UserError that names file and line of a mistake."""
    for _ in rows(path, until_s):
        pass


def rows(path: Path, until_s: float) -> Iterator[Row]:
    """Yield the rows of the first ``until_s`` seconds.

    A request for which nothing was generated is kept and asks for one token, the least an API takes: to
    leave it out would thin the load.
    """
    lines = open_text(path, what="trace file")
    _, header = next(lines, (1, ""))
    if header.strip() != HEADER:
        said = f"starts with {header.strip()[:60]!r}" if header.strip() else "is empty"
        raise UserError(f"{said}, not with the header of a trace", where=str(path), remedy=HEADER)
    first_ns = last_ns = None
    for number, line in lines:
        if not line.strip():
            continue
        at_ns, prompt_tokens, generated = _parse(line, f"{path}:{number}")
        if first_ns is None or last_ns is None:
            first_ns = last_ns = at_ns
        if at_ns < last_ns:
            raise UserError(
                "is earlier than the row before it",
                where=f"{path}:{number}",
                remedy="sort the rows by TIMESTAMP",
            )
        last_ns = at_ns
        at_s = (at_ns - first_ns) / 1e9
        if at_s >= until_s:
            return
        yield Row(at_s, prompt_tokens, max(1, generated))
    if first_ns is None:
        raise UserError("has a header and no rows", where=str(path), remedy=EXAMPLE)


def _parse(line: str, where: str) -> tuple[int, int, int]:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 3:
        raise UserError(f"has {len(fields)} fields, not 3", where=where, remedy=EXAMPLE)
    at_ns = _nanoseconds(fields[0])
    if at_ns is None:
        raise UserError(f"TIMESTAMP {fields[0][:40]!r} is not a time", where=where, remedy=EXAMPLE)
    return (
        at_ns,
        _tokens(fields[1], "ContextTokens", 1, where),
        _tokens(fields[2], "GeneratedTokens", 0, where),
    )


def _nanoseconds(text: str) -> int | None:
    """Return nanoseconds since 1970, None where the text is not a time. No zone is taken as UTC."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{zone or '+00:00'}")
    except ValueError:
        return None
    whole_s = (moment - _EPOCH) // timedelta(seconds=1)
    return whole_s * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def _tokens(text: str, column: str, least: int, where: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise UserError(f"{column} {text[:40]!r} is not a whole number", where=where, remedy=EXAMPLE)
    value = int(text[:20])
    if value < least:
        raise UserError(
            f"{column} is {value}, must be {least} or more", where=where, remedy="mend or remove the row"
        )
    return value
