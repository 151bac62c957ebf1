"""Words by which a server's error names an unpaid bill, overload, or a rate limit.

The wire decides the outcome of an exchange with them, and ``limits.observations.classify`` the decision about
an attempt. ``names`` are the type and the code of the error, in lower case.
"""

import re
from enum import StrEnum
from functools import lru_cache

UNPAID = (
    "insufficient_quota",
    "insufficient_user_quota",
    "insufficient_balance",
    "insufficient_credit",
    "insufficient_fund",
    "insufficientbalance",
    "exceeded_current_quota",
    "quota_exhausted",
    "billing",
    "budget_exceeded",
    "payment_required",
    "out_of_credit",
    "no_credit",
    "arrear",
    "overdue",
    "freetieronly",
)
"""In the type or the code: no wait helps."""
UNPAID_CODES = frozenset({"1113"})
"""Whole codes that mean the same (Zhipu)."""
UNPAID_MESSAGE = re.compile(
    r"(?:insufficient|not enough|no|low|negative|zero)\s(?:\w+\s){0,2}(?:balance|credits?|funds)\b"
    r"|balance\s(?:\w+\s){0,3}(?:too low|insufficient|not enough|exhausted|negative|run out)"
    r"|(?:out of|used all (?:of )?your)\s(?:\w+\s){0,2}(?:credits?|funds|balance)"
    r"|(?:credits?|funds)\s(?:\w+\s){0,3}(?:exhausted|depleted|used up)"
    r"|requires more credits|billing (?:hard |soft )?limit|payment (?:is )?required"
    r"|in arrears|unpaid|past due"
    r"|\brecharge\b|余额不足|欠费",
    re.IGNORECASE,
)
"""In a message, unless it says that waiting helps: the same."""
ALLOCATED_QUOTA = re.compile(
    r"allocation_?quota\b(?!\.free)|allocated quota exceeded|#token-limit\b", re.IGNORECASE
)
"""In any text: a limit on tokens refused, although the type or the code is "insufficient_quota" (Alibaba)."""
QUOTA_MESSAGE = "exceeded your current quota"
"""In a message: an unpaid bill, unless the error says that the quota renews (Google: RESOURCE_EXHAUSTED)."""
RENEWS = re.compile(
    r"rate.?limit|too many requests|retry in|try again in|per.?(?:minute|day|hour)|quota exceeded for",
    re.IGNORECASE,
)
"""In a message: waiting helps, whatever it says about money."""

OVERLOAD = "overload"
OVERLOAD_NAMES = (OVERLOAD, "engine_busy", "server_busy", "at_capacity", "capacity_exceeded")
"""In the type or the code: the server was too busy for anybody."""
OVERLOAD_CODES = frozenset({"1305", "529"})
"""Whole codes that mean the same (Zhipu, Anthropic)."""
BUSY_MESSAGE = re.compile(
    r"(?:at|over|no|out of|insufficient|lacks?)\s(?:\w+\s){0,2}capacity\b"
    r"|(?:high|heavy|excessive)\s(?:\w+\s)?(?:load|demand)|(?:server|engine|model|service) is (?:\w+ )?busy"
    r"|too busy"
    r"|访问量过大|服务繁忙",
    re.IGNORECASE,
)
"""In a message that names no rate limit: the same."""
SLOW_DOWN = ("slow_down", "slowdown", "burstrate", "burst_rate")
"""In the type or the code: traffic grew too fast, whatever the limit is."""

RATE = (
    "rate limit",
    "rate_limit",
    "rate-limit",
    "ratelimit",
    "too many requests",
    "too_many_requests",
    "throttl",
    "resource_exhausted",
    "requests per minute",
    "tokens per minute",
    "request limit",
    "quota exceeded",
    "concurrency limit",
    "concurrency_limit",
    "limit_exceeded",
)
UPSTREAM_REFUSAL = re.compile(
    r"rate[-_ ]?limit(?!ers?\b|(?:ing)?[-_ ](?:service|check|store|backend|cache|config|server))"
    r"|too[-_ ]?many[-_ ]?requests|throttl(?:ed|ing)|resource_exhausted|quota exceeded"
    r"|(?:code|status|error|http)\W{0,4}429\b|^429\b",
    re.IGNORECASE,
)
"""In the type, the code, or the message of a 5xx: a gateway reports that its upstream's limit refused. An
error of the limiter itself does not match."""
LIMITED = (*RATE, "limit", "requests", "token", "concurren")
"""In the type or the code: the error is about a limit, whatever its message mentions besides."""


class ErrorReason(StrEnum):
    """Why a request failed, if a limit is not the reason."""

    UNPAID = "unpaid"
    OVERLOAD = "overload"
    SLOW_DOWN = "slow down"


def names_of(error_type: str | None, error_code: str | None) -> str:
    """Return the type and the code of an error as one text, in lower case."""
    return f"{error_type or ''} {error_code or ''}".lower()


@lru_cache(maxsize=4096)
def reason_of(status: int, names: str, message: str | None) -> ErrorReason | None:
    """Return the reason for a failed request that an error names, if it is not a limit.

    An error in a 2xx response is treated like one with a status of 429.
    """
    if status == 402 or "402" in names.split() or says_unpaid(names, message):
        return ErrorReason.UNPAID
    if not (status == 429 or status >= 500 or 200 <= status < 300):
        return None
    if any(word in names for word in SLOW_DOWN):
        return ErrorReason.SLOW_DOWN
    return ErrorReason.OVERLOAD if status == 529 or says_overload(names, message) else None


def says_unpaid(names: str, message: str | None) -> bool:
    """Return whether the caller has no money left."""
    if ALLOCATED_QUOTA.search(f"{names} {message or ''}"):
        return False
    if any(word in names for word in UNPAID) or not UNPAID_CODES.isdisjoint(names.split()):
        return True
    if not message or RENEWS.search(message):
        return False
    return bool(UNPAID_MESSAGE.search(message)) or (
        "resource_exhausted" not in names and QUOTA_MESSAGE in message.lower()
    )


def says_overload(names: str, message: str | None) -> bool:
    """Return whether the server was too busy. A message counts only if the names are not about a limit."""
    if any(word in names for word in OVERLOAD_NAMES) or not OVERLOAD_CODES.isdisjoint(names.split()):
        return True
    if not message or any(word in names for word in LIMITED):
        return False
    return OVERLOAD in message.lower() or (
        not says_rate_limit("", message) and bool(BUSY_MESSAGE.search(message))
    )


def says_rate_limit(names: str, message: str | None) -> bool:
    """Return whether the error names a rate limit."""
    text = f"{names} {message or ''}".lower()
    return any(word in text for word in RATE) or "429" in names.split()


def wraps_refusal(status: int, names: str, message: str | None) -> bool:
    """Return whether a gateway answers a refusal by its upstream with a server error."""
    if status < 500:
        return False
    return "429" in names.split() or any(UPSTREAM_REFUSAL.search(text) for text in (names, message or ""))


def essence(message: str | None) -> str | None:
    """Return a message with few distinct values that means the same here."""
    if not message:
        return None
    words = [OVERLOAD] if says_overload("", message) else []
    words += ALLOCATED_QUOTA.findall(message)[:1]
    if says_unpaid("", message):
        words.append("insufficient balance" if UNPAID_MESSAGE.search(message) else QUOTA_MESSAGE)
    if UPSTREAM_REFUSAL.search(message):
        words.append("rate limit")
    return ", ".join(words) or None
