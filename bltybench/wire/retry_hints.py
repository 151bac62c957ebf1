"""Waits and quotas that the body of an error announces, used if the headers don't."""

import re
from collections.abc import Iterator
from typing import Any

from bltybench.wire.ratelimit_headers import MAX_WAIT_S, Quota, parse_quota

MAX_MESSAGE_CHARS = 2000
MAX_DEPTH = 6
"""Objects within each other that are searched."""
MAX_JSON_NUMBER = 1e15
"""Numbers above it are read as it, which is also in milliseconds more than any policy waits."""
MAX_PARTS = 32
"""Members of an object or list that are searched."""
BODY = "body"
"""Dialect of a response whose only wait is in its body."""

_KEYS_S = ("retryDelay", "retry_after", "retryAfter", "retry_after_seconds", "retry_after_s", "retry-after")
"""Seconds, as a number or as a duration (Google's RetryInfo: "3.5s")."""
_KEYS_MS = ("retry_after_ms", "retryAfterMs")
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_UNIT = r"(?:ms|msecs?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)"
_SAYS = re.compile(
    r"(?:try\s+again|retry(?:ing)?|wait)(?:\s+(?:your\s+request|again|for|in|after|at\s+least|about|another))*\s+"
    rf"((?:\d{{1,300}}(?:\.\d{{1,9}})?\s*{_UNIT}(?:,?\s*(?:and\s+)?(?=\d)|(?=[^a-z\d]|$)))+)",
    re.IGNORECASE | re.ASCII,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"\d{1,300}(?:\.\d{1,9})?s?\Z", re.ASCII)


def wait_in_message(message: str | None) -> float | None:
    """Return the seconds in a message such as "try again in 1m30s"; None if it names no wait."""
    match = _SAYS.search((message or "")[:MAX_MESSAGE_CHARS])
    if match is None:
        return None
    wait_s = sum(float(number) * _unit_s(unit.lower()) for number, unit in _PART.findall(match[1]))
    return min(wait_s, MAX_WAIT_S)


def take_hints(body: Any, message: str | None, quota: Quota, now_wall_s: float) -> None:
    """Complete ``quota`` from the decoded body of an error and its message. The headers take precedence."""
    for part in _objects(body, MAX_DEPTH):
        headers = part.get("headers")
        if isinstance(headers, dict):
            _complete(quota, headers, now_wall_s)
        if quota.retry_after_s is None:
            quota.retry_after_s = _wait_of(part)
    if quota.retry_after_s is None:
        quota.retry_after_s = wait_in_message(message)
    if quota.retry_after_s is not None and quota.dialect is None:
        quota.dialect = BODY


def _complete(quota: Quota, headers: dict[str, Any], now_wall_s: float) -> None:
    pairs = [(name, str(value)) for name, value in headers.items() if isinstance(value, str | int | float)]
    announced = parse_quota(pairs, now_wall_s)
    for name in Quota.__struct_fields__:
        if getattr(quota, name) is None:
            setattr(quota, name, getattr(announced, name))


def _wait_of(part: dict[str, Any]) -> float | None:
    for keys, unit_s in ((_KEYS_S, 1.0), (_KEYS_MS, 1e-3)):
        for key in keys:
            value = _number(part.get(key))
            if value is not None:
                return min(value * unit_s, MAX_WAIT_S)
    return None


def _number(value: Any) -> float | None:
    """Return a number of JSON, or a text of seconds. Python reads more texts as numbers; servers don't."""
    if isinstance(value, str) and _DURATION.match(value):
        return float(value.removesuffix("s"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer can be too large for a float.
    return float(min(value, MAX_JSON_NUMBER)) if value >= 0 else None


def _objects(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth and isinstance(value, dict | list):
        if isinstance(value, dict):
            yield value
        for part in list(value.values() if isinstance(value, dict) else value)[:MAX_PARTS]:
            yield from _objects(part, depth - 1)


def _unit_s(unit: str) -> float:
    return 1e-3 if unit.startswith(("ms", "milli")) else _UNITS_S[unit[0]]
