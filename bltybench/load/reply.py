"""What a user is given of a call."""

from __future__ import annotations

import msgspec

from bltybench.load.recorder import describe
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.wire.result import ExchangeResult


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call, after all its attempts. Absent is None, never 0."""

    outcome: Outcome
    status: int | None
    text: str | None
    """The answer's text; None where there was none, or where the call was made with ``keep_text=False``."""
    reasoning: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error: str | None
    """What the server or the connection said, redacted and short."""
    attempts: int
    ttft_s: float | None
    """Of the last attempt, from its sending. Streams only."""
    latency_s: float
    """Call latency: from when the call was due to the last byte of its last attempt, waits included."""
    retry_after_s: float | None
    record: Attempt
    """The last attempt, as it was stored."""

    @property
    def ok(self) -> bool:
        """Whether the call was answered."""
        return self.outcome is Outcome.OK


def reply_of(attempt: Attempt, reading: ExchangeResult, attempts: int, first_due_ns: int) -> Reply:
    """Return what became of a call that was due at ``first_due_ns``, by the last of its attempts."""
    ttft_ns = attempt.ttft_ns
    return Reply(
        outcome=attempt.outcome,
        status=attempt.status,
        text=reading.text,
        reasoning=reading.reasoning,
        finish_reason=attempt.finish_reason,
        prompt_tokens=attempt.prompt_tokens,
        completion_tokens=attempt.completion_tokens,
        error=None if attempt.outcome is Outcome.OK else attempt.error_message or describe(attempt),
        attempts=attempts,
        ttft_s=None if ttft_ns is None else ttft_ns / 1e9,
        latency_s=(attempt.end_ns - first_due_ns) / 1e9,
        retry_after_s=attempt.retry_after_s,
        record=attempt,
    )
