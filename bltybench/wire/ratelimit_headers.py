"""Rate-limit headers of many servers, parsed into one Quota.

Servers use the same name for different things, so the magnitude of a value decides: a reset of 1,780,000,000
is a date, one of 30 is a delay. Implausible values are ignored.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

import msgspec

MAX_VALUE_CHARS = 512
MIN_EPOCH_S = 500_000_000.0
"""Smallest number that is a date (1985) and not a delay, in seconds."""
MIN_EPOCH_MS = 100_000_000_000.0
"""Smallest number that is a date in milliseconds and not in seconds."""

MAX_WAIT_S = 9e9
"""Longest wait, in seconds. A longer one is read as this, so that its nanoseconds fit 64 bits."""

_NUMBER = re.compile(r"[-+]?\d{1,300}(?:\.\d{0,24})?(?:[eE]-\d{1,2})?\Z", re.ASCII)
"""Numbers as JSON and programming languages write them, such as 0.13576169299994945 and 1e-05."""
_LEADING_INT = re.compile(r"\s*([-+]?\d{1,15})(?![\w:-])", re.ASCII)
_GO_PART = re.compile(r"(\d{1,300}(?:\.\d{1,12})?)(ms|us|ns|h|m|s|d)", re.ASCII)
_GO = re.compile(rf"(?:{_GO_PART.pattern})+\Z", re.ASCII)
_GO_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ITEM = re.compile(r'\s*(?:"(?P<quoted>[^"]*)"|(?P<token>[^;,="\s]+))\s*(?P<params>(?:;[^,]*)?)')
_PARAM = re.compile(r'([a-z]+)\s*=\s*"?([^;,"\s]+)"?', re.IGNORECASE)
_RETRY_KEYS = (
    "retry-after",
    "x-ratelimit-retry-after",
    "ratelimit-retry-after",
    "x-retry-in",
    "x-retry-after",
)
_PLAIN_WORDS = frozenset({"x", "ratelimit", "limit", "remaining", "reset", "requests", "tokens"})


class Quota(msgspec.Struct, gc=False):
    """The quota that the rate-limit headers of one response announced. None is not announced.

    ``reset_*_s`` and ``retry_after_s`` are seconds after the response, whatever form the header had.
    ``dialect`` is the recognized header format.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None
    retry_after_s: float | None = None
    dialect: str | None = None


def parse_quota(headers: Iterable[tuple[str, str]], now_wall_s: float) -> Quota:
    """Return the quota of a response received at ``now_wall_s`` (Unix seconds). Never raises."""
    quota = Quota()
    fields = [
        (key, value[:MAX_VALUE_CHARS].strip()) for name, value in headers if (key := _rate_limit_key(name))
    ]
    if fields:
        _read_structured(quota, fields)
        _read_plain(quota, fields, now_wall_s)
        _read_retry(quota, fields, now_wall_s)
    return quota


@lru_cache(maxsize=512)
def _rate_limit_key(name: str) -> str:
    """Return the name in a uniform spelling, or "" if the header has nothing to do with rate limits."""
    key = name[:MAX_VALUE_CHARS].lower().replace("_", "-")
    if ("rate" in key and "limit" in key) or "retry" in key:
        return key.replace("rate-limit", "ratelimit")
    return ""


def seconds_until(text: str, now_wall_s: float) -> float | None:
    """Return the seconds from now to a reset or retry value: 0 if it has passed, None if unreadable."""
    wait_s = _wait_s(text.strip().strip('"').replace("µs", "us").replace("μs", "us"), now_wall_s)
    return None if wait_s is None else min(max(0.0, wait_s), MAX_WAIT_S)


def _wait_s(text: str, now_wall_s: float) -> float | None:
    """Return the seconds from now, negative if they have passed."""
    if _NUMBER.match(text):
        value = float(text)
        if value < 0:
            return None  # a sentinel for "unknown" or "no limit"
        if value >= MIN_EPOCH_MS:
            return value / 1000 - now_wall_s
        return value - now_wall_s if value >= MIN_EPOCH_S else value
    if _GO.match(text):
        return sum(float(number) * _GO_SECONDS[unit] for number, unit in _GO_PART.findall(text))
    moment = _moment(text)
    return None if moment is None else moment.timestamp() - now_wall_s


def _moment(text: str) -> datetime | None:
    """Parse RFC 3339 or one of the three date formats of HTTP. Without a zone, the time is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Zero times of programming languages are from 1970 or before.
    return moment if moment.year > 1970 else None


def _integer(text: str) -> int | None:
    if len(text) <= 15 and text.isdigit() and text.isascii():
        return int(text)
    match = _LEADING_INT.match(text)
    value = int(match.group(1)) if match else -1
    return value if value >= 0 else None


def _read_structured(quota: Quota, fields: Sequence[tuple[str, str]]) -> None:
    """Read IETF draft 7 (``limit=4, remaining=3, reset=5``) and 8 or later (``"name";r=3;t=5``)."""
    policies: dict[str, dict[str, str]] = {}
    for key, value in fields:
        if key == "ratelimit-policy":
            policies.update(_parse_items(value))
    for key, value in fields:
        if key not in {"ratelimit", "x-ratelimit"}:
            continue
        pairs = {name.lower(): number for name, number in _PARAM.findall(value)}
        if "limit" in pairs or "remaining" in pairs:
            quota.limit_requests = _integer(pairs.get("limit", ""))
            quota.remaining_requests = _integer(pairs.get("remaining", ""))
            quota.reset_requests_s = _seconds(pairs.get("reset", ""))
            quota.dialect = "ietf-7"
            continue
        for name, params in _parse_items(value).items():
            if "r" in params:
                _take_item(quota, name, params, policies.get(name, {}))


def _take_item(quota: Quota, name: str, params: dict[str, str], policy: dict[str, str]) -> None:
    """Take one policy, unless a previous one of the same kind has less remaining and so binds first."""
    unit = policy.get("qu", "requests")
    if unit not in {"requests", "tokens"}:
        return
    tokens = unit == "tokens" or "token" in name.lower()
    known = quota.remaining_tokens if tokens else quota.remaining_requests
    remaining = _integer(params["r"])
    if remaining is None or (known is not None and known <= remaining):
        return
    limit, reset = _integer(policy.get("q", "")), _seconds(params.get("t", ""))
    if tokens:
        quota.limit_tokens, quota.remaining_tokens, quota.reset_tokens_s = limit, remaining, reset
    else:
        quota.limit_requests, quota.remaining_requests, quota.reset_requests_s = limit, remaining, reset
    quota.dialect = "ietf-8"


def _parse_items(value: str) -> dict[str, dict[str, str]]:
    items: dict[str, dict[str, str]] = {}
    for part in value.split(","):
        match = _ITEM.match(part)
        if match:
            name = match["quoted"] if match["quoted"] is not None else match["token"]
            items[name] = {key.lower(): number for key, number in _PARAM.findall(match["params"])}
    return items


def _seconds(text: str, units_per_s: float = 1.0) -> float | None:
    if not _NUMBER.match(text) or float(text) < 0:
        return None
    return min(float(text) / units_per_s, MAX_WAIT_S)


@lru_cache(maxsize=512)
def _meaning(key: str) -> tuple[str, int, str] | None:
    """Return a plain name's field of Quota, how specific it is, and its family. None: not such a name."""
    words = set(key.split("-"))
    kind = next((word for word in ("limit", "remaining", "reset") if word in words), None)
    if kind is None or words & {"parallel", "concurrent", "retry"}:
        return None
    unit = "tokens" if words & {"tokens", "token", "ratelimitbysize"} else "requests"
    field = f"{kind}_{unit}{'_s' if kind == 'reset' else ''}"
    rank = len(words - _PLAIN_WORDS - {"ratelimitbysize", "anthropic", "minute"})
    return field, rank, _family(key, words)


def _family(key: str, words: set[str]) -> str:
    if key.startswith("anthropic-"):
        return "anthropic"
    if "ratelimitbysize" in words:
        return "mistral"
    if words <= _PLAIN_WORDS:
        if words & {"requests", "tokens"}:
            return "openai"
        return "x-ratelimit" if "x" in words else "ietf-6"
    return "gateway"


def _read_plain(quota: Quota, fields: Sequence[tuple[str, str]], now_wall_s: float) -> None:
    """Read headers with one number each, such as ``[x-][vendor-]ratelimit-remaining[-requests|-tokens]``.

    General names take precedence over specific ones (of input tokens, a user, a team, or an instance).
    """
    ranks: dict[str, int] = {}
    for key, value in fields:
        meaning = _meaning(key)
        if meaning is None:
            continue
        field, rank, family = meaning
        structured = quota.dialect in {"ietf-7", "ietf-8"} and "requests" in field
        if structured or rank >= ranks.get(field, 99):
            continue
        number = seconds_until(value, now_wall_s) if field.startswith("reset") else _integer(value)
        if number is not None:
            ranks[field] = rank
            setattr(quota, field, number)
            if quota.dialect is None or family in {"anthropic", "mistral", "openai"}:
                quota.dialect = family


def _read_retry(quota: Quota, fields: Sequence[tuple[str, str]], now_wall_s: float) -> None:
    """Read ``retry-after-ms`` (the most precise), else ``retry-after``, else the names that gateways use."""
    values = {key: value for key, value in reversed(fields) if "retry" in key}
    if not values:
        return
    exact_s = _seconds(values.get("retry-after-ms", "") or values.get("x-ms-retry-after-ms", ""), 1000)
    if exact_s is not None:
        quota.retry_after_s = exact_s
        quota.dialect = "azure" if quota.dialect in {None, "openai"} else quota.dialect
        return
    for key in _RETRY_KEYS:
        delay = seconds_until(values[key], now_wall_s) if key in values else None
        if delay is not None:
            quota.retry_after_s = delay
            quota.dialect = quota.dialect or "retry-after"
            return
