"""Further arrival patterns: gamma, ramp, stairs, bursts, and the closed loop's ladder."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from bltybench.scenario.base import Table

Spacing = Literal["even", "poisson"]
"""Spacing of arrivals at a given rate: even, or Poisson."""

MAX_RATE_PER_MIN = 6_000_000.0
"""Maximum rate, 100,000 per second. No machine reaches it, so a higher value is a typing error."""


class Gamma(Table):
    """Open loop with independent gamma-distributed gaps, more or less regular than Poisson."""

    kind: Literal["gamma"]
    rate_per_min: PositiveFloat = Field(le=MAX_RATE_PER_MIN)
    burstiness: PositiveFloat = Field(ge=0.01, le=100)
    """Coefficient of variation of the gaps: 1 is Poisson, below 1 more even, above 1 bursty."""


class _Rated(Table):
    unit: Literal["requests", "tokens"] = "requests"
    """What the rates count. Tokens include prompt and completion."""
    tokens_per_request: PositiveFloat | None = None
    """Divisor for rates in tokens. Default: the mean of the mix, computed before the run."""
    spacing: Spacing = "even"

    @model_validator(mode="after")
    def _tokens_in_tokens(self) -> Self:
        if self.tokens_per_request is not None and self.unit != "tokens":
            raise ValueError('tokens_per_request requires unit = "tokens"')
        return self

    def calls_per_min(self, rate: float) -> float:
        """Return a rate in this table's unit as requests per minute."""
        if self.unit == "requests":
            return rate
        if self.tokens_per_request is None:
            raise ValueError("a rate in tokens needs tokens_per_request: resolve the scenario first")
        return rate / self.tokens_per_request


class Ramp(_Rated):
    """Open loop with a rate that changes linearly over the whole duration."""

    kind: Literal["ramp"]
    from_per_min: NonNegativeFloat = Field(le=MAX_RATE_PER_MIN * 1000)
    to_per_min: NonNegativeFloat = Field(le=MAX_RATE_PER_MIN * 1000)

    @model_validator(mode="after")
    def _not_nothing(self) -> Self:
        if self.from_per_min == 0 and self.to_per_min == 0:
            raise ValueError("from_per_min and to_per_min must not both be 0: nothing would be sent")
        return self


class Stairs(_Rated):
    """Open loop with one rate after another. Each is a stage and lasts an equal part of the duration."""

    kind: Literal["stairs"]
    rates_per_min: tuple[PositiveFloat, ...] = Field(min_length=1, max_length=100)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        per = " tokens/min" if self.unit == "tokens" else "/min"
        return stage_names([f"{rate:.10g}{per}" for rate in self.rates_per_min])


class Bursts(Table):
    """Open loop with ``size`` requests in one batch every ``every_s`` seconds, starting immediately."""

    kind: Literal["bursts"]
    size: PositiveInt = Field(le=100_000)
    every_s: PositiveFloat
    spread_s: NonNegativeFloat = 0.0
    """Interval in which each request of a batch gets a random time. 0 sends all of them together."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.spread_s > self.every_s:
            raise ValueError("spread_s must not exceed every_s: bursts would overlap")
        return self


class Ladder(Table):
    """Closed loop with one number of users after another. Each lasts an equal part of the duration."""

    kind: Literal["ladder"]
    users: tuple[PositiveInt, ...] = Field(min_length=1, max_length=100)
    think_s: NonNegativeFloat = 0.0

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return stage_names([f"{users} user{'' if users == 1 else 's'}" for users in self.users])


def stage_names(names: list[str]) -> tuple[str, ...]:
    """Return unique names: the second ``60/min`` becomes ``60/min (2)``."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
