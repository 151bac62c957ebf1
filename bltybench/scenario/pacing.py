"""The ``pacing`` table of a scenario: when a client sends its next request, before it is refused."""

from typing import Literal, Self, get_args

from pydantic import model_validator

from bltybench.scenario.base import Table

PacingName = Literal["none", "token_bucket", "even", "headers", "aimd", "adaptive", "limiter"]
"""Pacing policies: docs/retries.md describes each."""
PACINGS: tuple[PacingName, ...] = get_args(PacingName)
NEED_LIMITS: frozenset[PacingName] = frozenset({"token_bucket", "even", "limiter"})
"""Pacing policies that know the limits beforehand."""


class Pacing(Table):
    """Pacing of all requests of a load-generating process. Each process has its share of the limits."""

    policy: PacingName = "none"
    limits: str | None = None
    """limits.toml with the limits to keep. Default: those of the sandbox, or the documented ones."""

    @model_validator(mode="after")
    def _limits_are_used(self) -> Self:
        if self.limits is not None and self.policy not in NEED_LIMITS:
            raise ValueError(f"limits requires a policy that uses them: {', '.join(sorted(NEED_LIMITS))}")
        return self
