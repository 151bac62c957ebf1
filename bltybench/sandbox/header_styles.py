"""Rate-limit headers as found in the wild: accurate, missing, and wrong in several ways."""

from __future__ import annotations

from bltybench.limits.models import Admission
from bltybench.sandbox.errors import Headers
from bltybench.scenario.target import HeaderStyle


def styled(
    style: HeaderStyle, honest: Headers, decision: Admission | None, retry_after_s: int | None
) -> Headers:
    """Return the headers of a response in ``style``. ``honest`` are the accurate ones without Retry-After."""
    if style == "none":
        return []
    if style == "nonsense":
        return [(name, b"soon") for name, _ in honest] + (
            [] if retry_after_s is None else [(b"retry-after", b"in a while")]
        )
    headers = list(honest)
    if style == "full_remaining" and decision is not None:
        full = str(decision.limit).encode()
        headers = [(name, full if name.endswith(b"-remaining") else value) for name, value in headers]
    if retry_after_s is not None and style != "no_retry_after":
        factor = {"short_retry_after": 0.5, "long_retry_after": 2.0}.get(style, 1.0)
        headers.append((b"retry-after", str(int(retry_after_s * factor)).encode()))
    return headers
