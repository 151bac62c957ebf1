"""One request of a log, and the reading of its times and numbers."""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from bltybench.wire.result import ExchangeResult

NS_PER_S = 1_000_000_000
MIN_TIME_NS = 946_684_800 * NS_PER_S
"""Earliest time of a row: the year 2000. A zero is no time."""
MAX_TIME_NS = 4_102_444_800 * NS_PER_S
"""Latest time of a row: the year 2100."""
MAX_COUNT = 1 << 40
"""Largest number of tokens or bytes of a request."""
MAX_DURATION_S = 7 * 86_400
"""Longest request, in seconds."""


class BrokenRowError(Exception):
    """A row that can't be read. The text says why, without the row's content: it can hold secrets."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is no request to the API."""

    why: str
    """What it is instead, in the plural."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One request. Times are Unix nanoseconds; None is what the log does not say."""

    clock_ns: int
    """A time as the log wrote it, which shows the resolution of its clock."""
    start_ns: int | None
    """Earliest time at which the request was sent; None if its duration is unknown."""
    end_ns: int
    result: ExchangeResult
    """Outcome, status, error, tokens, and quota."""
    endpoint: str
    model: str | None = None
    stream: bool | None = None
    headers_ns: int | None = None
    first_token_ns: int | None = None
    connect_ns: int | None = None
    tls_ns: int | None = None
    max_tokens: int | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    client: str | None = field(default=None, repr=False)
    """Its key, user, or address. It is counted and compared, and never stored."""
    host: str | None = None
    """Host of the API."""
    span: str | None = None
    parent: str | None = None
    """IDs of its span and of the span that contains it (OpenTelemetry)."""

    def __post_init__(self) -> None:
        """Reject times that no request has."""
        start_ns = self.end_ns if self.start_ns is None else self.start_ns
        if not MIN_TIME_NS <= start_ns <= self.end_ns <= MAX_TIME_NS:
            raise BrokenRowError("its times are out of order, or no times")
        if self.end_ns - start_ns > MAX_DURATION_S * NS_PER_S:
            raise BrokenRowError("it lasted more than a week")


_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?\s?(Z|UTC|[+-]\d\d:?\d\d)?", re.ASCII
)


def time_ns(value: Any, name: str) -> int:
    """Return an ISO time, or seconds since 1970, in Unix nanoseconds. A missing time zone means UTC."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return seconds_ns(value, name)
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise BrokenRowError(f"{name} is no time")
    day, clock, fraction, zone = match.groups()
    return _second(f"{day}T{clock}", zone or "", name) * NS_PER_S + int((fraction or "").ljust(9, "0"))


def optional_time_ns(value: Any, name: str) -> int | None:
    """Return the same, or None if there is no value."""
    missing = value is None or (isinstance(value, str | int | float) and value in {"", 0})
    return None if missing else time_ns(value, name)


@lru_cache(maxsize=1024)
def _second(moment: str, zone: str, name: str) -> int:
    try:
        offset = "+00:00" if zone in {"", "Z", "UTC"} else zone
        return int(datetime.fromisoformat(moment + offset).timestamp())
    except ValueError:
        raise BrokenRowError(f"{name} is no time") from None


def seconds_ns(value: Any, name: str) -> int:
    """Return seconds, as a number or as text, in nanoseconds. Decimals of a text are exact."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}(\.\d{1,20})?", value, re.ASCII):
        whole, _, fraction = value.partition(".")
        return int(whole) * NS_PER_S + int(fraction[:9].ljust(9, "0"))
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        # A float of Unix seconds resolves 0.2 µs, so further digits are noise.
        return round(value * 1e6) * 1000
    raise BrokenRowError(f"{name} is no number of seconds")


def host_of(url: Any) -> str | None:
    """Return the host in a URL; None if there is none."""
    try:
        return urlsplit(str(url or "")).hostname
    except ValueError:
        return None


def whole(value: Any) -> int | None:
    """Return a count, which some logs write as text; None if there is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return value
    return None


def table(value: Any) -> dict[str, Any]:
    """Return an object; an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def table_or_text(value: Any, name: str) -> dict[str, Any]:
    """Return the same of a value that a CSV export has as text."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            raise BrokenRowError(f"{name} is no JSON") from None
    return table(value)


def max_tokens_in(parameters: dict[str, Any]) -> int | None:
    """Return the bound of a completion in the parameters of a request."""
    return whole(parameters.get("max_tokens") or parameters.get("max_completion_tokens"))


def first_flag(*values: Any) -> bool | None:
    """Return the first value that is true or false, which some logs write as text; None if there is none."""
    flags = ({"true": True, "false": False}.get(str(value).lower()) for value in values)
    return next((flag for flag in flags if flag is not None), None)
