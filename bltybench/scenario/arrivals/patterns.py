"""Arrivals beyond constant, Poisson and traces: gamma, ramps, stairs, bursts; the closed loop's ladder."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from bltybench.scenario.base import Table

Spacing = Literal["even", "poisson"]
"""How arrivals lie within a rate: evenly, or by chance."""

MAX_RATE_PER_MIN = 6_000_000.0
"""100,000 a second: beyond any machine, and so a slip of the pen."""


class Gamma(Table):
    """Open loop, with independent gamma-distributed gaps: more or less regular than chance."""

    kind: Literal["gamma"]
    rate_per_min: PositiveFloat = Field(le=MAX_RATE_PER_MIN)
    burstiness: PositiveFloat = Field(ge=0.01, le=100)
    """Coefficient of variation of the gaps: 1 is Poisson, towards 0 evenly spaced, above 1 in bursts."""


class _Rated(Table):
    unit: Literal["requests", "tokens"] = "requests"
    """What the rates count. Tokens: prompt and answer together."""
    tokens_per_request: PositiveFloat | None = None
    """What a rate in tokens is divided by. Absent: the mean of the mix, settled before the run."""
    spacing: Spacing = "even"

    @model_validator(mode="after")
    def _tokens_in_tokens(self) -> Self:
        if self.tokens_per_request is not None and self.unit != "tokens":
            raise ValueError('tokens_per_request belongs to unit = "tokens"')
        return self

    def calls_per_min(self, rate: float) -> float:
        """Return a rate of this table's unit in requests a minute."""
        if self.unit == "requests":
            return rate
        if self.tokens_per_request is None:
            raise ValueError("a rate in tokens needs tokens_per_request: resolve the scenario first")
        return rate / self.tokens_per_request


class Ramp(_Rated):
    """Open loop, from one rate to another along a straight line over the whole duration."""

    kind: Literal["ramp"]
    from_per_min: NonNegativeFloat = Field(le=MAX_RATE_PER_MIN * 1000)
    to_per_min: NonNegativeFloat = Field(le=MAX_RATE_PER_MIN * 1000)

    @model_validator(mode="after")
    def _not_nothing(self) -> Self:
        if self.from_per_min == 0 and self.to_per_min == 0:
            raise ValueError("from_per_min and to_per_min must not both be 0: nothing would be sent")
        return self


class Stairs(_Rated):
    """Open loop, one rate after another. Each lasts the same part of the duration and is a stage."""

    kind: Literal["stairs"]
    rates_per_min: tuple[PositiveFloat, ...] = Field(min_length=1, max_length=100)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages' names, in order."""
        per = " tokens/min" if self.unit == "tokens" else "/min"
        return stage_names([f"{rate:.10g}{per}" for rate in self.rates_per_min])


class Bursts(Table):
    """Open loop, ``size`` requests together every ``every_s`` seconds, the first of them at the start."""

    kind: Literal["bursts"]
    size: PositiveInt = Field(le=100_000)
    every_s: PositiveFloat
    spread_s: NonNegativeFloat = 0.0
    """Each of them at a time drawn from so many seconds; 0 sends all at once."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.spread_s > self.every_s:
            raise ValueError("spread_s must not be above every_s: bursts would run into each other")
        return self


class Ladder(Table):
    """Closed loop with one number of users after another. Each lasts the same part of the duration."""

    kind: Literal["ladder"]
    users: tuple[PositiveInt, ...] = Field(min_length=1, max_length=100)
    think_s: NonNegativeFloat = 0.0

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages' names, in order."""
        return stage_names([f"{users} user{'' if users == 1 else 's'}" for users in self.users])


def stage_names(names: list[str]) -> tuple[str, ...]:
    """Return names that are told apart: the second ``60/min`` becomes ``60/min (2)``."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
