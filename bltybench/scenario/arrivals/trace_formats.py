"""Trace formats, one reader each: Azure and BurstGPT (CSV), Mooncake, requests files, and our own (JSONL)."""

import math
import re
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from bltybench.errors import UserError
from bltybench.scenario.arrivals.trace_line import SESSION_KEYS, Format, Parse, TimeUnit, TraceLine, TraceRow

BLOCK_SIZES = (16, 32, 64, 128, 256, 512)
"""Sizes that the blocks of a trace can have, in tokens: 512 in Mooncake's traces, 16 in Bailian's."""


# Azure LLM inference traces (Azure Public Dataset, 2023 and 2024)

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def _azure(_: str, _unit: TimeUnit | None) -> Parse:
    # Seconds since a nearby day: a float resolves nanoseconds over weeks, not over half a century.
    epoch: datetime | None = None

    def parse(line: TraceLine) -> TraceRow:
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


def _moment(line: TraceLine, text: str) -> tuple[datetime, float]:
    """Return the whole second and the fraction. A missing time zone means UTC."""
    match = _TIMESTAMP.fullmatch(text)
    invalid = line.error(f"timestamp {text[:40]!r} is not a time")
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

    def parse(line: TraceLine) -> TraceRow:
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
        self._time_s = _Timestamps(unit)
        self._sizes: tuple[int, ...] = BLOCK_SIZES
        """Block sizes that fit all rows so far. A prompt of two or more blocks leaves one."""

    def __call__(self, line: TraceLine) -> TraceRow:
        """Return the row of a line."""
        row = line.object()
        prompt = line.whole(row, "input_length", 1)
        ids = row.get("hash_ids", [])
        if not isinstance(ids, list) or not all(isinstance(one, int) and one >= 0 for one in ids):
            raise line.error("hash_ids is not a list of integers")
        if "hash_ids" in row:
            self._fit_sizes(line, prompt, len(ids))
        completion = max(1, line.whole(row, "output_length", 0))
        at_s = self._time_s(line, row)
        size = self._sizes[-1] if ids else 0
        return TraceRow(at_s, prompt, completion, tuple(ids), size, None, *line.session(row))

    def _fit_sizes(self, line: TraceLine, prompt: int, blocks: int) -> None:
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


class _Timestamps:
    """Reader of the key ``timestamp``: a number, or the text of a time."""

    def __init__(self, unit: TimeUnit | None) -> None:
        self._unit = unit
        """Unit of numbers. Without a given one, a decimal point means seconds."""

    def __call__(self, line: TraceLine, row: dict[str, Any]) -> float:
        """Return the time of a row in seconds."""
        if isinstance(row.get("timestamp"), str):
            moment, fraction_s = _moment(line, row["timestamp"])
            return moment.timestamp() + fraction_s
        timestamp = line.seconds(row, "timestamp")
        if self._unit is None and timestamp:
            if isinstance(row["timestamp"], int):
                raise UserError(
                    f"timestamp {row['timestamp']} can be in seconds or in milliseconds",
                    where=line.where,
                    remedy='add time_unit = "ms" (as in Mooncake\'s traces) or "s" to the arrivals',
                )
            self._unit = "s"
        return timestamp / 1000 if self._unit == "ms" else timestamp


# Recorded requests with their times. scenario/prompts/request_files.py reads their bodies.

_REQUESTS_HEADER = '{"timestamp": "2026-11-30T12:00:00.250Z", "body": {"model": "…", "messages": […]}}'
_BODY = re.compile(r'\{.*"(?:body|messages)"\s*:')


def _requests(_: str, unit: TimeUnit | None) -> Parse:
    time_s, numbers = _Timestamps(unit), count()

    def parse(line: TraceLine) -> TraceRow:
        row = line.object()
        if "body" not in row:
            raise line.error("has no body, which holds the messages and all other keys of the request")
        chat, parent, turn = line.session(row)
        return TraceRow(time_s(line, row), chat=chat, parent=parent, turn=turn, number=next(numbers))

    return parse


# bltybench's own: seconds since the start of the run, and properties of the request

_OWN_HEADER = '{"at_s": 0.25, "prompt_tokens": 120, "max_tokens": 40}'
_OWN_KEYS = {"at_s", "prompt_tokens", "max_tokens", "call", *SESSION_KEYS}


def _own(line: TraceLine) -> TraceRow:
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
        _REQUESTS_HEADER,
        f"a line looks like {_REQUESTS_HEADER}",
        "timestamp",
        lambda first: _BODY.match(first) is not None,
        _requests,
        keeps_first_line=True,
        has_units=True,
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
