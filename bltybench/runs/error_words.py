"""Words by which a server's error names an unpaid bill, overload, or a rate limit.

The wire decides the outcome of an exchange with them, and ``limits.observations.classify`` the decision about
an attempt. ``names`` are the type and the code of the error, in lower case.
"""

from __future__ import annotations

UNPAID = ("insufficient_quota", "billing", "quota_exhausted", "insufficient_balance")
"""In the type or the code: no wait helps."""
OVERLOAD = "overload"
RATE = (
    "rate limit",
    "rate_limit",
    "rate-limit",
    "ratelimit",
    "too many requests",
    "too_many_requests",
    "throttl",
)
LIMITED = (*RATE, "limit", "requests", "token", "concurren")
"""In the type or the code: the error is about a limit, whatever its message mentions besides."""


def names_of(error_type: str | None, error_code: str | None) -> str:
    """Return the type and the code of an error as one text, in lower case."""
    return f"{error_type or ''} {error_code or ''}".lower()


def says_unpaid(names: str) -> bool:
    """Return whether the caller has no money left."""
    return any(word in names for word in UNPAID)


def says_overload(names: str, message: str | None) -> bool:
    """Return whether the server was too busy. A message counts only if the names are not about a limit."""
    if OVERLOAD in names:
        return True
    return OVERLOAD in (message or "").lower() and not any(word in names for word in LIMITED)


def says_rate_limit(names: str, message: str | None) -> bool:
    """Return whether the error names a rate limit."""
    text = f"{names} {message or ''}".lower()
    return any(word in text for word in RATE)
