"""Arrival patterns: closed and open loops, recorded arrivals, and loads that change in steps."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from bltybench.scenario.base import NonNegativeFloat, PositiveFloat, PositiveInt, Table

Spacing = Literal["even", "poisson"]
"""Spacing of arrivals at a given rate: even, or Poisson."""

MAX_RATE_PER_MIN = 6_000_000.0
"""Maximum rate, 100,000 per second. No machine reaches it, so a higher value is a typing error."""


class Stage(NamedTuple):
    """One step of a load that changes in steps."""

    name: str
    begin_s: float
    """Start, in seconds from the start of the run."""
    end_s: float
    users: int | None = None
    """Number of users; None in an open loop."""


class Closed(Table):
    """Closed loop: each user sends, waits for the response, thinks, and sends again."""

    kind: Literal["closed"]
    think_s: NonNegativeFloat = 0.0


class Constant(Table):
    """Open loop, evenly spaced."""

    kind: Literal["constant"]
    rate_per_min: PositiveFloat = Field(le=MAX_RATE_PER_MIN)


class Poisson(Table):
    """Open loop, with independent exponential gaps."""

    kind: Literal["poisson"]
    rate_per_min: PositiveFloat = Field(le=MAX_RATE_PER_MIN)


class _Recorded(Table):
    speed: PositiveFloat = 1.0
    """2 replays twice as fast."""
    start_s: NonNegativeFloat = 0.0
    """Start within the recording, in its own seconds."""
    length_s: PositiveFloat | None = None
    """Length of the recording to use, in its own seconds. Default: what fits into the duration."""
    scale: PositiveFloat = Field(default=1.0, ge=0.001, le=1000)
    """Requests per recorded request: 0.5 drops a random half, 2 sends each twice."""


class Trace(_Recorded):
    """Open loop with recorded arrivals and lengths. The file's first line determines its format."""

    kind: Literal["trace"]
    file: str
    """Azure or BurstGPT (CSV), Mooncake or bltybench's own (JSONL): see docs/workloads.md."""
    time_unit: Literal["s", "ms"] | None = None
    """Unit of ``timestamp`` in Mooncake's format. Required if its values are whole numbers."""


class Replay(_Recorded):
    """Open loop with the arrivals, lengths, and mix of a former run."""

    kind: Literal["run"]
    run: str = Field(min_length=1)
    """Folder, ID, or ID prefix of the run."""


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

    def stages(self, duration_s: float) -> tuple[Stage, ...]:
        """Return the stages of a run, in order."""
        per = " tokens/min" if self.unit == "tokens" else "/min"
        return _equal_stages([f"{rate:.10g}{per}" for rate in self.rates_per_min], duration_s)


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

    def stages(self, duration_s: float) -> tuple[Stage, ...]:
        """Return the stages of a run, in order."""
        stages = _equal_stages(
            [f"{users} user{'' if users == 1 else 's'}" for users in self.users], duration_s
        )
        return tuple(stage._replace(users=users) for stage, users in zip(stages, self.users, strict=True))


def stage_at(stages: Sequence[Stage], at_s: float) -> int | None:
    """Return the index of the stage at a time; None if there are no stages.

    Times before the first stage belong to it, times after the last one to that.
    """
    if not stages:
        return None
    return max(0, bisect_right(stages, at_s, key=lambda stage: stage.begin_s) - 1)


def _equal_stages(names: Sequence[str], duration_s: float) -> tuple[Stage, ...]:
    """Return stages of equal length with distinct names: a second ``60/min`` becomes ``60/min (2)``."""
    step_s = duration_s / len(names)
    stages: list[Stage] = []
    for index, name in enumerate(names):
        earlier = names[:index].count(name)
        distinct = f"{name} ({earlier + 1})" if earlier else name
        stages.append(Stage(distinct, index * step_s, (index + 1) * step_s))
    return tuple(stages)
