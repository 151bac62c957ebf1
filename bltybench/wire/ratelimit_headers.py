"""Rate-limit headers of many servers, read into one Quota.

The same name means different things in different servers, so values are judged by their magnitude: a
reset of 1,780,000,000 is a date, one of 30 is a delay. Header fields that make no sense are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

MAX_VALUE_CHARS = 512
EPOCH_S_FROM = 500_000_000.0
"""A number of seconds from here on (1985) is a date, not a delay."""
EPOCH_MS_FROM = 100_000_000_000.0

_NUMBER = re.compile(r"[-+]?\d{1,19}(?:\.\d{0,24})?(?:[eE]-\d{1,2})?\Z")
"""As JSON and languages write numbers: Python has up to 17 digits after the point, and 1e-05."""
_LEADING_INT = re.compile(r"\s*([-+]?\d{1,15})(?![\d:T-])")
_GO_PART = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ms|us|µs|μs|ns|h|m|s|d)")
_GO = re.compile(rf"(?:{_GO_PART.pattern})+\Z")
_GO_SECONDS = {
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ns": 1e-9,
}
_ITEM = re.compile(r'\s*(?:"(?P<quoted>[^"]*)"|(?P<token>[^;,="\s]+))\s*(?P<params>(?:;[^,]*)?)')
_PARAM = re.compile(r'([a-z]+)\s*=\s*"?([^;,"\s]+)"?', re.IGNORECASE)
_PLAIN_WORDS = frozenset({"x", "ratelimit", "limit", "remaining", "reset", "requests", "tokens"})


class Quota(msgspec.Struct, gc=False):
    """What the rate-limit headers of one answer said. None is what they did not say.

    ``reset_*_s`` and ``retry_after_s`` are seconds from the answer on, whatever form the header had.
    ``dialect`` names the family of headers that was recognised.
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
    """Read all rate-limit headers of an answer received at ``now_wall_s`` (Unix seconds). Never raises."""
    quota = Quota()
    found = [
        (key, value[:MAX_VALUE_CHARS].strip()) for name, value in headers if (key := _rate_limit_key(name))
    ]
    if found:
        _read_structured(quota, found)
        _read_plain(quota, found, now_wall_s)
        _read_retry(quota, found, now_wall_s)
    return quota


@lru_cache(maxsize=512)
def _rate_limit_key(name: str) -> str:
    """Return the name in one spelling, or an empty string for a header of no interest here."""
    key = name[:MAX_VALUE_CHARS].lower().replace("_", "-")
    if ("rate" in key and "limit" in key) or "retry" in key:
        return key.replace("rate-limit", "ratelimit")
    return ""


def seconds_until(text: str, now_wall_s: float) -> float | None:
    """Return how long from now a reset or retry value points, 0 if to the past, None if it is unreadable."""
    text = text.strip().strip('"')
    if _NUMBER.match(text):
        value = float(text)
        if value < 0:
            return None  # a sentinel: "not known", "no limit"
        if value >= EPOCH_MS_FROM:
            return max(0.0, value / 1000 - now_wall_s)
        return max(0.0, value - now_wall_s) if value >= EPOCH_S_FROM else value
    if _GO.match(text):
        return sum(float(number) * _GO_SECONDS[unit] for number, unit in _GO_PART.findall(text))
    moment = _moment(text)
    return None if moment is None else max(0.0, moment.timestamp() - now_wall_s)


def _moment(text: str) -> datetime | None:
    """Read RFC 3339 or one of the three date forms of HTTP; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Years that timestamp() cannot take, or that no limiter means.
    return moment if 1970 < moment.year < 2200 else None


def _integer(text: str) -> int | None:
    if len(text) <= 15 and text.isdigit() and text.isascii():
        return int(text)
    match = _LEADING_INT.match(text)
    value = int(match.group(1)) if match else -1
    return value if value >= 0 else None


def _read_structured(quota: Quota, found: Sequence[tuple[str, str]]) -> None:
    """IETF drafts 7 (``limit=4, remaining=3, reset=5``) and 8 on (``"name";r=3;t=5``)."""
    policies: dict[str, dict[str, str]] = {}
    for key, value in found:
        if key == "ratelimit-policy":
            policies.update(_items(value))
    for key, value in found:
        if key not in {"ratelimit", "x-ratelimit"}:
            continue
        pairs = {name.lower(): number for name, number in _PARAM.findall(value)}
        if "limit" in pairs or "remaining" in pairs:
            quota.limit_requests = _integer(pairs.get("limit", ""))
            quota.remaining_requests = _integer(pairs.get("remaining", ""))
            quota.reset_requests_s = _delay(pairs.get("reset", ""))
            quota.dialect = "ietf-7"
            continue
        for name, params in _items(value).items():
            if "r" in params:
                _take_item(quota, name, params, policies.get(name, {}))


def _take_item(quota: Quota, name: str, params: dict[str, str], policy: dict[str, str]) -> None:
    """Of several policies on the same dimension the one with the least remaining binds first."""
    unit = policy.get("qu", "requests")
    if unit not in {"requests", "tokens"}:
        return
    tokens = unit == "tokens" or "token" in name.lower()
    known = quota.remaining_tokens if tokens else quota.remaining_requests
    remaining = _integer(params["r"])
    if remaining is None or (known is not None and known <= remaining):
        return
    limit, reset = _integer(policy.get("q", "")), _delay(params.get("t", ""))
    if tokens:
        quota.limit_tokens, quota.remaining_tokens, quota.reset_tokens_s = limit, remaining, reset
    else:
        quota.limit_requests, quota.remaining_requests, quota.reset_requests_s = limit, remaining, reset
    quota.dialect = "ietf-8"


def _items(value: str) -> dict[str, dict[str, str]]:
    items: dict[str, dict[str, str]] = {}
    for part in value.split(","):
        match = _ITEM.match(part)
        if match:
            name = match["quoted"] if match["quoted"] is not None else match["token"]
            items[name] = {key.lower(): number for key, number in _PARAM.findall(match["params"])}
    return items


def _delay(text: str) -> float | None:
    return float(text) if _NUMBER.match(text) and float(text) >= 0 else None


class _Meaning(NamedTuple):
    """What a plain header's name says: the field of Quota, and how much the name narrows it."""

    field: str
    tokens: bool
    rank: int
    family: str


@lru_cache(maxsize=512)
def _meaning(key: str) -> _Meaning | None:
    words = set(key.split("-"))
    what = next((word for word in ("limit", "remaining", "reset") if word in words), None)
    if what is None or words & {"parallel", "concurrent", "retry"}:
        return None
    tokens = bool(words & {"tokens", "token", "ratelimitbysize"})
    field = f"{what}_{'tokens' if tokens else 'requests'}{'_s' if what == 'reset' else ''}"
    rank = len(words - _PLAIN_WORDS - {"ratelimitbysize", "anthropic", "minute"})
    return _Meaning(field, tokens, rank, _family(key, words))


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


def _read_plain(quota: Quota, found: Sequence[tuple[str, str]], now_wall_s: float) -> None:
    """One header a number: ``[x-][vendor-]ratelimit-{limit,remaining,reset}[-requests|-tokens]`` and kin.

    Plain names go before narrower ones (input tokens, a user's, a team's, an instance's).
    """
    ranks: dict[str, int] = {}
    for key, value in found:
        meaning = _meaning(key)
        if meaning is None or meaning.rank >= ranks.get(meaning.field, 99):
            continue
        if quota.dialect in {"ietf-7", "ietf-8"} and not meaning.tokens:
            continue
        reset = meaning.field.startswith("reset")
        number = seconds_until(value, now_wall_s) if reset else _integer(value)
        if number is not None:
            ranks[meaning.field] = meaning.rank
            setattr(quota, meaning.field, number)
            if quota.dialect is None or meaning.family in {"anthropic", "mistral", "openai"}:
                quota.dialect = meaning.family


def _read_retry(quota: Quota, found: Sequence[tuple[str, str]], now_wall_s: float) -> None:
    """``retry-after-ms`` first (the most exact), then ``retry-after``, then what gateways call it."""
    values = {key: value for key, value in reversed(found) if "retry" in key}
    if not values:
        return
    exact = _delay(values.get("retry-after-ms", "") or values.get("x-ms-retry-after-ms", ""))
    if exact is not None:
        quota.retry_after_s = exact / 1000
        quota.dialect = "azure" if quota.dialect in {None, "openai"} else quota.dialect
        return
    for key in (
        "retry-after",
        "x-ratelimit-retry-after",
        "ratelimit-retry-after",
        "x-retry-in",
        "x-retry-after",
    ):
        if key in values:
            delay = seconds_until(values[key], now_wall_s)
            if delay is not None:
                quota.retry_after_s = delay
                quota.dialect = quota.dialect or "retry-after"
                return
