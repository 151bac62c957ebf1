"""The decision after a failed attempt: whether the call is retried, and after which wait."""

from collections.abc import Callable
from random import Random

from bltybench.limits.observations.classify import REFUSALS, Decision
from bltybench.policies.retry.backoff import (
    DecorrelatedJitter,
    Exponential,
    FailedAttempt,
    FixedBackoff,
    Policy,
    RetryAfter,
)
from bltybench.policies.retry.budgets import FinagleBudget, GrpcBudget, RetryBudget
from bltybench.policies.retry.sdks import LiteLLM, OpenAI, VercelAI
from bltybench.scenario.retry import Retry

POLICIES: dict[str, Callable[[Retry], Policy]] = {
    "fixed": lambda retry: FixedBackoff(retry.base_s),
    "exponential": lambda retry: Exponential(retry.base_s, retry.cap_s),
    "full_jitter": lambda retry: Exponential(retry.base_s, retry.cap_s, "full"),
    "equal_jitter": lambda retry: Exponential(retry.base_s, retry.cap_s, "equal"),
    "decorrelated_jitter": lambda retry: DecorrelatedJitter(retry.base_s, retry.cap_s),
    "backoff": lambda retry: Exponential(retry.base_s, retry.cap_s, "quarter"),
    "retry_after": lambda retry: RetryAfter(POLICIES["backoff"](retry), retry.max_wait_s),
    "retry_after_jitter": lambda retry: RetryAfter(POLICIES["backoff"](retry), retry.max_wait_s, jitter=True),
    "openai": lambda _: OpenAI(max_wait_s=120.0, gives_up=True),
    "openai_2_51": lambda _: OpenAI(max_wait_s=60.0, gives_up=False),
    "litellm": lambda _: LiteLLM(),
    "vercel_ai": lambda _: VercelAI(),
}
"""Every policy but ``none``, by its name in a scenario."""
SDKS = (OpenAI, LiteLLM, VercelAI)
"""Policies that read the headers of SDKs, and retry what the SDK retries."""
BUDGETS = {"none": RetryBudget, "grpc": GrpcBudget, "finagle": FinagleBudget}
"""Every retry budget by its name in a scenario."""


class Retries:
    """The retries of all calls of one client. Only the budget has state."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self.policy = None if retry.policy == "none" else POLICIES[retry.policy](retry)
        self._budget = BUDGETS[retry.budget]()

    def begin(self, now_s: float) -> None:
        """Count a new call."""
        self._budget.begin(now_s)

    def succeed(self) -> None:
        """Count a successful attempt."""
        self._budget.succeed()

    def wait_s(self, failed: FailedAttempt, now_s: float, rng: Random) -> float | None:
        """Return the seconds to wait before the next attempt, or None if the call ends here."""
        if self.policy is None or not self.retries(failed):
            return None
        self._budget.fail()
        if failed.number + 1 >= self._retry.max_attempts:
            return None
        announced_s = failed.standard_s if isinstance(self.policy, SDKS) else failed.announced_s
        wait_s = self.policy.wait_s(failed.number, announced_s, failed.waited_s, rng)
        return wait_s if wait_s is not None and self._budget.take(now_s) else None

    def retries(self, failed: FailedAttempt) -> bool:
        """Return whether an attempt can be retried, whatever its number is."""
        if isinstance(self.policy, SDKS):
            return self.policy.retries(failed)
        if failed.has_tokens and not self._retry.retry_begun_streams:
            return False
        return outcome_of(failed.decision) in self._retry.outcomes


def outcome_of(decision: Decision) -> str:
    """Return a decision's name in ``outcomes`` of a scenario."""
    return "refused" if decision in REFUSALS else decision.value.replace(" ", "_")
