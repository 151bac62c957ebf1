"""Retry policies of SDKs, from their source code. docs/retries.md names the versions."""

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from bltybench.limits.observations.classify import Decision
from bltybench.policies.retry.backoff import MAX_DOUBLINGS, Exponential, FailedAttempt

RETRIED_STATUSES = frozenset({408, 409, 429})
"""Statuses below 500 that the SDKs retry, even if the account is out of credit."""
FIRST_WAIT_S, MAX_BACKOFF_S = 0.5, 8.0
"""Backoff of the openai package, which LiteLLM copied, in seconds."""
LITELLM_JITTER_S = 0.75
"""Maximum jitter that LiteLLM adds, in seconds."""
MAX_LITELLM_WAIT_S = MAX_VERCEL_WAIT_S = 60.0
"""Longest ``retry-after`` that LiteLLM and the Vercel AI SDK follow, in seconds."""
VERCEL_FIRST_WAIT_S = 2.0
"""First backoff of the Vercel AI SDK, in seconds."""


def sdk_retries(failed: FailedAttempt) -> bool:
    """Return whether the SDKs retry an attempt: by its status, or after a network error or timeout.

    A stream is in the caller's hands once its status was 200, so the SDKs don't retry it then.
    """
    status = failed.status
    if failed.decision is Decision.CANCELLED:
        return False
    if status is None:
        return True
    if 200 <= status < 300:
        return failed.interrupted and not failed.stream
    return status >= 500 or status in RETRIED_STATUSES


@dataclass(frozen=True, slots=True)
class OpenAI:
    """The openai package: ``retry-after`` exactly, without jitter, or else a backoff."""

    follows: ClassVar[bool] = True
    max_wait_s: float
    """Longest ``retry-after`` that it follows."""
    gives_up: bool
    """Whether a longer one ends the call. Otherwise it backs off."""

    def retries(self, failed: FailedAttempt) -> bool:
        """Return whether it retries an attempt. An error response can decide that with ``x-should-retry``."""
        is_error = failed.status is not None and not 200 <= failed.status < 300
        if is_error and failed.should_retry is not None:
            return failed.should_retry
        return sdk_retries(failed)

    def wait_s(
        self, number: int, announced_s: float | None, waited_s: float | None, rng: Random
    ) -> float | None:
        """Return the wait in seconds, or None to give up."""
        if announced_s is not None and 0 < announced_s <= self.max_wait_s:
            return announced_s
        if self.gives_up and announced_s is not None and announced_s > self.max_wait_s:
            return None
        return Exponential(FIRST_WAIT_S, MAX_BACKOFF_S, "quarter").wait_s(number, None, waited_s, rng)


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """LiteLLM's router with one deployment: whole seconds of ``retry-after``, or a backoff, plus jitter."""

    follows: ClassVar[bool] = True

    def retries(self, failed: FailedAttempt) -> bool:
        """Return whether it retries an attempt."""
        return sdk_retries(failed)

    def wait_s(self, number: int, announced_s: float | None, waited_s: float | None, rng: Random) -> float:
        """Return the wait in seconds."""
        jitter_s = LITELLM_JITTER_S * rng.random()
        whole_s = int(announced_s or 0)
        if 0 < whole_s <= MAX_LITELLM_WAIT_S:
            return whole_s + jitter_s
        return Exponential(FIRST_WAIT_S, MAX_BACKOFF_S).wait_s(number, None, waited_s, rng) + jitter_s


@dataclass(frozen=True, slots=True)
class VercelAI:
    """The Vercel AI SDK: ``retry-after`` if it is short, or else a backoff without jitter and cap."""

    follows: ClassVar[bool] = True

    def retries(self, failed: FailedAttempt) -> bool:
        """Return whether it retries an attempt."""
        return sdk_retries(failed)

    def wait_s(self, number: int, announced_s: float | None, waited_s: float | None, rng: Random) -> float:
        """Return the wait in seconds."""
        del waited_s, rng
        backoff_s = VERCEL_FIRST_WAIT_S * 2.0 ** min(number, MAX_DOUBLINGS)
        if announced_s is not None and 0 <= announced_s < max(MAX_VERCEL_WAIT_S, backoff_s):
            return announced_s
        return backoff_s
