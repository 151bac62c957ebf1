"""The ``retry`` table of a scenario: how a call reacts to a refusal or a transient failure."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from bltybench.scenario.base import PositiveFloat, PositiveInt, Table

PolicyName = Literal[
    "none",
    "fixed",
    "exponential",
    "full_jitter",
    "equal_jitter",
    "decorrelated_jitter",
    "backoff",
    "retry_after",
    "retry_after_jitter",
    "openai",
    "openai_2_51",
    "litellm",
    "vercel_ai",
]
"""Retry policies: docs/retries.md has the waits of each."""

SDK_POLICIES = frozenset({"openai", "openai_2_51", "litellm", "vercel_ai"})
"""Policies of SDKs, whose waits and retryable outcomes are those of the SDK."""

RetryableOutcome = Literal[
    "refused", "overload", "slow_down", "server_error", "broken", "lost", "client_error", "billing"
]
"""Outcomes of an attempt that can be retried, by the decision about it (docs/limits.md)."""


def _read_fallback(value: object) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) for name in value):
        raise ValueError("must be true, false, or a list of targets")
    if len(set(value)) < len(value):
        raise ValueError("names the same target twice")
    return tuple(value)


class Retry(Table):
    """Reaction of a call to a refusal or a transient failure."""

    policy: PolicyName = "none"
    """retry_after follows the wait in the header or body, or backs off without one. The others up to backoff
    ignore it."""
    max_attempts: PositiveInt = 3
    """Maximum attempts of a call, including the first."""
    base_s: PositiveFloat = 0.5
    """First wait of a backoff, and every wait of fixed."""
    cap_s: PositiveFloat = 8.0
    """Maximum wait of a backoff."""
    max_wait_s: PositiveFloat = 120.0
    """If the server requests a longer wait, the call ends as refused."""
    outcomes: tuple[RetryableOutcome, ...] = (
        "refused",
        "overload",
        "slow_down",
        "server_error",
        "broken",
        "lost",
    )
    """Outcomes that are retried."""
    retry_begun_streams: bool = False
    """Whether a stream that failed after its first token is retried."""
    fallback: Annotated[bool | tuple[str, ...], BeforeValidator(_read_fallback)] = False
    """Whether a failed attempt is followed immediately by one with the next key, target, or model of the
    lists; or the targets to fall back to. The policy decides once all of them have failed."""
    budget: Literal["none", "grpc", "finagle"] = "none"
    """Limit on retries that all calls of a load-generating process share."""

    @model_validator(mode="after")
    def _sdks_are_exact(self) -> Self:
        if self.policy not in SDK_POLICIES:
            return self
        defaults = Retry()
        names = ("base_s", "cap_s", "max_wait_s", "outcomes", "retry_begun_streams")
        changed = [name for name in names if getattr(self, name) != getattr(defaults, name)]
        if changed:
            unused = ", ".join(changed)
            raise ValueError(f"policy {self.policy} waits and retries as the SDK, so it can't have {unused}")
        return self
