"""A request of a virtual API under way: what becomes of it, and how a run would record it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.protocol import ProbeRequest
from bltybench.sandbox.quota import Grant

BILLS = ("insufficient_quota",)
"""Errors with the status of a refusal that are none: no wait mends them."""


@dataclass(kw_only=True)
class Flight:
    """One request under way."""

    shot: ProbeRequest
    sent_s: float
    prompt: int
    grant: Grant | None = None
    decided_s: float | None = None
    begun_s: float | None = None
    end_s: float | None = None
    status: int | None = None
    code: str = ""
    cancelled: bool = False
    accepted: bool | None = None
    tokens: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    served: bool = False
    over: bool = False
    lost: bool = False
    stage: str | None = None

    def number(self, name: str) -> int | None:
        """Return the value of a header; None where there is none, or it is no number."""
        value = self.headers.get(name, "")
        return int(value) if value.isdigit() else None

    def reached(self, until: str) -> bool:
        """Return whether it has come so far: ``decided``, ``begun`` or ``over``."""
        if self.end_s is not None:
            return True
        if until == "decided":
            return self.decided_s is not None
        return until == "begun" and self.begun_s is not None

    def seen(self) -> ProbeResult:
        """Return what is known of it so far."""
        number, reset = self.number, self.number("x-ratelimit-reset")
        known = self.decided_s is not None
        return ProbeResult(
            role=self.shot.role,
            sent_s=self.sent_s,
            decided_s=self.decided_s,
            begun_s=self.begun_s,
            end_s=self.end_s,
            cancelled=self.cancelled,
            accepted=self.accepted if known else None,
            status=self.status if known else None,
            said=self.code if known else "",
            prompt_tokens=self.prompt,
            completion_tokens=self.tokens if self.end_s is not None else 0,
            max_tokens=self.shot.max_tokens,
            limit=number("x-ratelimit-limit"),
            remaining=number("x-ratelimit-remaining"),
            reset_s=None if reset is None or self.decided_s is None else reset - self.decided_s,
            retry_after_s=number("retry-after"),
        )

    def row(self, start_s: float) -> dict[str, Any]:
        """Return it as the store gives back an attempt of a run that began at ``start_s``."""
        seen = self.seen()

        def ns(at_s: float | None) -> int | None:
            return None if at_s is None else round((at_s - start_s) * 1e9)

        end_s = self.end_s if self.end_s is not None else self.sent_s
        return {
            "stage": self.stage,
            "name": self.shot.role,
            "sent_ns": ns(self.sent_s),
            "headers_ns": None if self.lost else ns(self.decided_s),
            "first_token_ns": ns(self.begun_s),
            "end_ns": ns(end_s),
            "outcome": self._outcome(),
            "status": None if self.lost else self.status,
            "error_type": None,
            "error_code": self.code or None,
            "error_message": None,
            "prompt_tokens": None if self.cancelled else self.prompt,
            "wanted_prompt_tokens": self.prompt,
            "completion_tokens": None if self.cancelled else seen.completion_tokens,
            "max_tokens": self.shot.max_tokens,
            "limit_requests": seen.limit,
            "remaining_requests": seen.remaining,
            "reset_requests_s": seen.reset_s,
            "retry_after_s": seen.retry_after_s,
            "header_dialect": None if seen.limit is None else "x-ratelimit",
        }

    def _outcome(self) -> str:
        if self.lost:
            return "transport_error"
        if self.cancelled:
            return "cancelled"
        if self.status == 429 and self.code not in BILLS:
            return "rate_limited"
        status = self.status or 200
        return "ok" if status < 400 else "client_error" if status < 500 else "server_error"
