"""Scenarios: what is sent, when, how failures are met, and what must hold at the end."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from bltybench.scenario.arrivals.patterns import MAX_RATE_PER_MIN, Bursts, Gamma, Ladder, Ramp, Stairs
from bltybench.scenario.base import Table
from bltybench.scenario.capacity import CapacitySearch


class Fixed(Table):
    """Always the same number of tokens."""

    kind: Literal["fixed"] = "fixed"
    tokens: PositiveInt


class Uniform(Table):
    """Any number from ``min`` to ``max``, both included, with the same probability."""

    kind: Literal["uniform"]
    min: PositiveInt
    max: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must not be below min")
        return self


class Normal(Table):
    """Normal with ``mean`` and ``sd``, cut to ``min`` … ``max``."""

    kind: Literal["normal"]
    mean: PositiveFloat
    sd: NonNegativeFloat
    min: PositiveInt = 1
    max: PositiveInt = 32_768

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must not be below min")
        return self


class Lognormal(Table):
    """Lognormal by its ``median`` and 95th percentile ``p95``, cut to ``min`` … ``max``."""

    kind: Literal["lognormal"]
    median: PositiveFloat
    p95: PositiveFloat
    min: PositiveInt = 1
    max: PositiveInt = 32_768

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.p95 < self.median:
            raise ValueError("p95 must not be below median")
        if self.max < self.min:
            raise ValueError("max must not be below min")
        return self


class Empirical(Table):
    """Drawn from a list of observed values."""

    kind: Literal["empirical"]
    values: tuple[PositiveInt, ...] = Field(min_length=1)


Lengths = Annotated[Fixed | Uniform | Normal | Lognormal | Empirical, Field(discriminator="kind")]


class Turns(Table):
    """A conversation of ``min`` to ``max`` turns, each sent with all before it and the real answers."""

    min: PositiveInt = Field(default=2, le=1000)
    max: PositiveInt = Field(default=6, le=1000)
    tokens: Lengths = Fixed(tokens=32)
    """What the user says from the second turn on; the first has the call's prompt_tokens."""
    think_s: NonNegativeFloat = 0.0
    """From an answer to the user's next turn."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must not be below min")
        return self


class Call(Table):
    """One kind of request in a scenario's mix."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    weight: PositiveFloat = 1.0
    stream: bool = False
    prompt_tokens: Lengths = Fixed(tokens=64)
    max_tokens: Lengths = Fixed(tokens=64)
    conversations: str | None = None
    """A JSONL file of ``{"messages": […]}``, taken instead of generated prompts."""
    system: str | None = None
    """A system message put before the prompt; its tokens count as part of prompt_tokens."""
    anti_cache: Literal["off", "run", "request"] = "off"
    """A few random words at the very beginning of the prompt, so that a server's prompt cache knows nothing
    of it: "run" for earlier runs, "request" for any other request. Counted in prompt_tokens."""
    turns: Turns | None = None
    """Present: a conversation. A turn that fails in the end (retries included) ends it, not the user."""
    temperature: float | None = Field(default=None, ge=0, le=2)

    @model_validator(mode="after")
    def _one_source_of_turns(self) -> Self:
        if self.turns is not None and self.conversations is not None:
            raise ValueError("turns are generated: they cannot be had together with a file of conversations")
        return self


class Closed(Table):
    """Closed loop: each user sends, waits for the answer, thinks, sends again."""

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
    """Where in the recording to begin, in its own seconds."""
    length_s: PositiveFloat | None = None
    """How much of the recording to use, in its own seconds; as much as fits the duration when absent."""
    scale: PositiveFloat = Field(default=1.0, ge=0.001, le=1000)
    """How many requests to send for each recorded one: 0.5 leaves out half by chance, 2 sends each twice."""


class Trace(_Recorded):
    """Open loop, arrivals and lengths as recorded. The file's format is told by its first line."""

    kind: Literal["trace"]
    file: str
    """Azure or BurstGPT (CSV), Mooncake or bltybench's own (JSONL): see docs/workloads.md."""


class Replay(_Recorded):
    """Open loop, arrivals, lengths and mix of a former run."""

    kind: Literal["run"]
    run: str = Field(min_length=1)
    """Its folder, its id or the beginning of it."""


Arrivals = Annotated[
    Closed | Ladder | Constant | Poisson | Gamma | Ramp | Stairs | Bursts | Trace | Replay | CapacitySearch,
    Field(discriminator="kind"),
]


class Retry(Table):
    """What a call does about a refusal or a passing failure."""

    policy: Literal["none", "retry_after", "backoff"] = "none"
    """retry_after waits as the server says (else backs off); backoff never looks at what the server says."""
    max_attempts: PositiveInt = 3
    base_s: PositiveFloat = 0.5
    cap_s: PositiveFloat = 8.0
    max_wait_s: PositiveFloat = 120.0
    """A server that asks for a longer wait is not waited for: the call ends."""


class Objectives(Table):
    """What a call must keep to count as good, beside being answered."""

    ttft_ms: PositiveFloat | None = None
    """Streams: from sending to the first token."""
    tpot_ms: PositiveFloat | None = None
    """Streams: a token, on average after the first."""
    latency_ms: PositiveFloat | None = None
    """From when the call was first due to its last byte, waits and retries included."""


Check = str | bool | int | float


class Scenario(Table):
    """A load: what is sent to which target, when and for how long."""

    title: str
    answers: str = ""
    """The question that the scenario answers, for people who choose one."""
    target: str = "sandbox"
    model: str
    duration_s: PositiveFloat
    users: PositiveInt
    """Closed loop: how many users. Open loop: the ceiling of calls in flight."""
    spawn_rate: PositiveFloat | None = None
    """Users started a second; all at once when absent."""
    seed: NonNegativeInt = 1
    mix: tuple[Call, ...] = ()
    """May be left out where a former run is replayed: then it is that run's."""
    arrivals: Arrivals
    retry: Retry = Retry()
    warm_up_s: NonNegativeFloat = 0.0
    """So many seconds at the beginning of the run, or of each stage, are left out of what is reported."""
    warm_up_calls: NonNegativeInt = 0
    """The same as a number of calls."""
    objectives: Objectives = Objectives()
    checks: dict[str, Check] = Field(default_factory=dict)

    @property
    def is_open_loop(self) -> bool:
        """Whether calls are due at times that are known before the run."""
        return not isinstance(self.arrivals, Closed | Ladder | CapacitySearch)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [call.name for call in self.mix]
        if len(set(names)) < len(names):
            raise ValueError("two calls of the mix have the same name")
        if not self.mix and not isinstance(self.arrivals, Replay):
            raise ValueError("mix must have 1 or more entries")
        return self

    @model_validator(mode="after")
    def _something_after_the_warm_up(self) -> Self:
        if self.warm_up_s and self.warm_up_calls:
            raise ValueError("warm_up_s and warm_up_calls are two ways to say one thing: give one")
        if isinstance(self.arrivals, CapacitySearch):
            if self.warm_up_calls or self.warm_up_s >= self.arrivals.stage_s:
                raise ValueError("the warm-up of a search is in seconds, and less than stage_s")
            return self
        stages = len(self.arrivals.stages) if isinstance(self.arrivals, Stairs | Ladder) else 1
        if self.warm_up_s >= self.duration_s / stages:
            raise ValueError("warm_up_s leaves nothing of " + ("a stage" if stages > 1 else "duration_s"))
        return self

    @model_validator(mode="after")
    def _room_for_the_ladder(self) -> Self:
        if isinstance(self.arrivals, Ladder) and max(self.arrivals.users) > self.users:
            raise ValueError(f"users must be {max(self.arrivals.users)} or more: the ladder goes as high")
        if isinstance(self.arrivals, CapacitySearch):
            if self.arrivals.load == "users" and self.arrivals.max > self.users:
                raise ValueError(f"users must be {self.arrivals.max:g} or more: the search may go as high")
            if any(call.turns for call in self.mix):
                raise ValueError("a search sends single calls: its mix cannot have turns")
        return self
