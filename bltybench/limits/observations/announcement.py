"""What the rate-limit headers of a response announce about the request limit."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_VALUE_CHARS = 512
_PARAMETER = re.compile(r'[;,]\s*(w|q|qu)\s*=\s*"?([\w-]{1,12})', re.ASCII)
_LEADING_NUMBER = re.compile(r"\s*(\d{1,12})\s*(?:;|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Announcement:
    """The announced request limit. None is not announced; any value can be wrong."""

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    """Seconds until the reset, which has several meanings."""
    window_s: float | None = None
    """Length of the window, from the parameter ``w`` of a policy."""


def announced_window_s(headers: Iterable[tuple[str, str]], limit: int | None) -> float | None:
    """Return the parameter ``w`` of the policy that allows ``limit`` requests, or else of the first one.

    Policies are those of ``RateLimit-Policy`` (``100;w=60`` and ``"minute";q=100;w=60``), of headers with
    vendors' prefixes, and of drafts that list them in ``RateLimit-Limit``. Policies of tokens don't count.
    """
    windows: list[tuple[int | None, float]] = []
    for name, value in headers:
        # Most values are a number, and this is read from every response.
        if "=" not in value or "ratelimit" not in name.lower().replace("-", ""):
            continue
        for policy in value[:MAX_VALUE_CHARS].split(","):
            parameters: dict[str, str] = dict(_PARAMETER.findall(f";{policy.strip().lower()}"))
            length, unit = parameters.get("w", ""), parameters.get("qu", "requests")
            if not length.isdigit() or not int(length) or unit != "requests" or "token" in policy.lower():
                continue
            leading = _LEADING_NUMBER.match(policy)
            quota = parameters.get("q") or (leading[1] if leading else "")
            windows.append((int(quota) if quota.isdigit() else None, float(length)))
    return next((window_s for quota, window_s in windows if quota == limit), None) or next(
        (window_s for _, window_s in windows), None
    )
