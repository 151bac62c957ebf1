"""The result of one request of an experiment, as far as it has come."""

from collections.abc import Collection
from dataclasses import dataclass

from bltybench.limits.observations.classify import Decision, classify
from bltybench.runs.attempt import Attempt, Outcome

NS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The result of one request, as far as it has come. Times are Unix seconds; None has not happened."""

    role: str
    sent_s: float
    decided_s: float | None = None
    """When the head of the response came."""
    begun_s: float | None = None
    """When its first token came. Streams only."""
    end_s: float | None = None
    cancelled: bool = False
    """Whether the client ended it."""
    decision: Decision | None = None
    """None if it is not decided yet."""
    status: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    max_tokens: int = 0
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    retry_after_s: float | None = None

    @property
    def open(self) -> bool:
        """Whether its response has not ended."""
        return self.end_s is None

    @property
    def accepted(self) -> bool | None:
        """True if it was accepted, False if a limit refused it, None if neither or unknown."""
        return None if self.decision is None else self.decision.accepted

    @property
    def refused(self) -> bool:
        """Whether a limit refused it."""
        return self.accepted is False

    @property
    def lost(self) -> bool:
        """Whether it ended without a response: it may have been accepted, or not."""
        return self.status is None and self.end_s is not None and not self.cancelled

    @property
    def about_concurrency(self) -> bool:
        """Whether the concurrency limit refused it, by its own words."""
        return self.decision is Decision.REFUSED_BY_CONCURRENCY

    @property
    def about_tokens(self) -> bool:
        """Whether the token limit refused it, by its own words."""
        return self.decision is Decision.REFUSED_BY_TOKENS


def result_of(attempt: Attempt, start_s: float, refusal_statuses: Collection[int] = ()) -> ProbeResult:
    """Return the result of a stored attempt; ``refusal_statuses`` are those of its run."""

    def at(ns: int | None) -> float | None:
        return None if ns is None else start_s + ns / NS

    end_s = start_s + attempt.end_ns / NS
    cancelled = attempt.outcome is Outcome.CANCELLED
    return ProbeResult(
        role=str(attempt.name),
        sent_s=at(attempt.sent_ns) or end_s,
        decided_s=at(attempt.headers_ns) or (None if cancelled else end_s),
        begun_s=at(attempt.first_token_ns),
        end_s=end_s,
        cancelled=cancelled,
        decision=classify(attempt, refusal_statuses),
        status=attempt.status,
        prompt_tokens=attempt.prompt_tokens or attempt.wanted_prompt_tokens or 0,
        completion_tokens=attempt.completion_tokens or 0,
        max_tokens=attempt.max_tokens or 0,
        limit=attempt.limit_requests,
        remaining=attempt.remaining_requests,
        reset_s=attempt.reset_requests_s,
        retry_after_s=attempt.retry_after_s,
    )
