"""What became of one request of an experiment, as far as it has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bltybench.runs.attempt import Outcome

NS = 1e9
STAND_INS = (503, 403)
OVERLOAD = ("overload", "capacity")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What became of one request, as far as it has come. Times are Unix seconds; None has not happened."""

    role: str
    sent_s: float
    decided_s: float | None = None
    """When the head of the answer came."""
    begun_s: float | None = None
    """When its first token came. Streams only."""
    end_s: float | None = None
    cancelled: bool = False
    """Ended by us."""
    accepted: bool | None = None
    """None: not decided, or neither let in nor refused for a rate (a mistake, a failure, overload)."""
    status: int | None = None
    said: str = ""
    """Code, type and message of a refusal."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    max_tokens: int = 0
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    retry_after_s: float | None = None

    @property
    def open(self) -> bool:
        """Whether its answer goes on."""
        return self.end_s is None

    @property
    def refused(self) -> bool:
        """Whether a limit refused it."""
        return self.accepted is False

    @property
    def lost(self) -> bool:
        """Whether it ended without an answer: it may have been let in, or not."""
        return self.status is None and self.end_s is not None and not self.cancelled

    @property
    def about_concurrency(self) -> bool:
        """Whether the refusal says that it is about how many are in flight."""
        return any(word in self.said for word in ("concurren", "parallel", "simultaneous", "in flight"))

    @property
    def about_tokens(self) -> bool:
        """Whether the refusal says that it is about tokens."""
        return "token" in self.said and not self.about_concurrency


def seen_of(row: Mapping[str, Any], start_s: float, refusal: int | None = None) -> ProbeResult:
    """Return what a stored attempt says; ``refusal`` is the status of refusals where nothing says so.

    Columns that only experiments need may be missing.
    """
    said = " ".join(str(row[name]) for name in ("error_code", "error_type", "error_message") if row.get(name))

    def at(name: str) -> float | None:
        value = row.get(name)
        return None if value is None else start_s + value / NS

    end_s = at("end_ns")
    cancelled = row["outcome"] == Outcome.CANCELLED
    return ProbeResult(
        role=str(row.get("name")),
        sent_s=at("sent_ns") or end_s or start_s,
        decided_s=at("headers_ns") or (None if cancelled else end_s),
        begun_s=at("first_token_ns"),
        end_s=end_s,
        cancelled=cancelled,
        accepted=_accepted(row, said.lower(), refusal),
        status=row["status"],
        said=said.lower(),
        prompt_tokens=row.get("prompt_tokens") or row.get("wanted_prompt_tokens") or 0,
        completion_tokens=row.get("completion_tokens") or 0,
        max_tokens=row.get("max_tokens") or 0,
        limit=row["limit_requests"],
        remaining=row["remaining_requests"],
        reset_s=row["reset_requests_s"],
        retry_after_s=row["retry_after_s"],
    )


def _accepted(row: Mapping[str, Any], said: str, refusal: int | None) -> bool | None:
    status = row["status"]
    if row["outcome"] == Outcome.RATE_LIMITED:
        return False
    if status in STAND_INS and refusal in {None, status} and not any(word in said for word in OVERLOAD):
        return False
    return True if status is not None and 200 <= status < 300 else None
