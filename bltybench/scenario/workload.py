"""Scenarios: what to send, when to send it, how to retry, and what to check."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bltybench.scenario.api.request_options import RequestOptions
from bltybench.scenario.api.routes import Choices, Divided
from bltybench.scenario.base import (
    MAX_DURATION_S,
    MAX_USERS,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Table,
    TokenCount,
)
from bltybench.scenario.pacing import Pacing, PacingName
from bltybench.scenario.patterns import (
    Bursts,
    Closed,
    Constant,
    Gamma,
    Ladder,
    Poisson,
    Ramp,
    Replay,
    Stage,
    Stairs,
    Trace,
)
from bltybench.scenario.retry import Retry
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.trials.tournament import Tournament


class _Range(Table):
    min: TokenCount = 1
    max: TokenCount = 32_768

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must not be below min")
        return self


class Fixed(Table):
    """A constant number of tokens."""

    kind: Literal["fixed"] = "fixed"
    tokens: TokenCount


class Uniform(_Range):
    """A uniformly distributed integer from ``min`` to ``max``, inclusive."""

    kind: Literal["uniform"]
    min: TokenCount
    max: TokenCount


class Normal(_Range):
    """Normal distribution with ``mean`` and ``sd``, truncated to ``min`` … ``max``."""

    kind: Literal["normal"]
    mean: PositiveFloat
    sd: NonNegativeFloat


class Lognormal(_Range):
    """Lognormal distribution with ``median`` and 95th percentile ``p95``, truncated to ``min`` … ``max``."""

    kind: Literal["lognormal"]
    median: PositiveFloat
    p95: PositiveFloat

    @model_validator(mode="after")
    def _p95_above_median(self) -> Self:
        if self.p95 < self.median:
            raise ValueError("p95 must not be below median")
        return self


class Empirical(Table):
    """Draws from a list of observed values."""

    kind: Literal["empirical"]
    values: tuple[TokenCount, ...] = Field(min_length=1)


Lengths = Annotated[Fixed | Uniform | Normal | Lognormal | Empirical, Field(discriminator="kind")]


class Turns(_Range):
    """A conversation of ``min`` to ``max`` turns. Each turn sends the history with the real completions."""

    min: PositiveInt = Field(default=2, le=1000)
    max: PositiveInt = Field(default=6, le=1000)
    tokens: Lengths = Fixed(tokens=32)
    """User tokens from the second turn on. The first turn has the call's prompt_tokens."""
    think_s: NonNegativeFloat = 0.0
    """Pause between a completion and the user's next turn, in seconds."""


class RequestsFile(Table):
    """Recorded requests, sent as they are."""

    file: str
    """JSONL of request bodies, or an OpenAI batch file."""
    models: dict[str, str] = Field(default_factory=dict)
    """Model to send for a recorded one. ``"*"`` stands for all others."""


OF_BODIES = (
    "stream",
    "prompt_tokens",
    "conversations",
    "system",
    "anti_cache",
    "turns",
    "temperature",
    "body",
    "max_tokens_key",
    "stream_options",
)
"""Keys of a call that recorded bodies decide instead."""


class Call(RequestOptions, Divided):
    """One kind of request in a scenario's mix. It overrides request options of the target, and the lists."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    weight: PositiveFloat = 1.0
    stream: bool = False
    prompt_tokens: Lengths = Fixed(tokens=64)
    max_tokens: Lengths = Fixed(tokens=64)
    conversations: str | None = None
    """A JSONL file of ``{"messages": […]}``, used instead of generated prompts. A line's parameters,
    such as ``max_tokens`` and ``tools``, replace those of the call."""
    requests: RequestsFile | None = None
    """Recorded bodies, sent as they are in the order of the file."""
    system: str | None = None
    """System message before the prompt. Its tokens count as part of prompt_tokens."""
    anti_cache: Literal["off", "run", "request"] = "off"
    """Random words at the start of the prompt, so that a prompt cache can't match it: "run" against earlier
    runs, "request" against any other request. Counted in prompt_tokens."""
    turns: Turns | None = None
    """If set, the call is a conversation. A turn that fails after all retries ends it, but not the user."""
    temperature: float | None = Field(default=None, ge=0, le=2)

    @model_validator(mode="after")
    def _one_source_of_turns(self) -> Self:
        if self.turns is not None and self.conversations is not None:
            raise ValueError("turns are generated, so they can't be combined with a conversations file")
        return self

    @model_validator(mode="after")
    def _bodies_as_they_are(self) -> Self:
        if self.requests is not None:
            for key in OF_BODIES:
                if getattr(self, key) != Call.model_fields[key].get_default(call_default_factory=True):
                    raise ValueError(f"the bodies of a requests file are sent as they are: remove {key}")
        return self


Arrivals = Annotated[
    Closed | Ladder | Constant | Poisson | Gamma | Ramp | Stairs | Bursts | Trace | Replay
    | CapacitySearch | Tournament,
    Field(discriminator="kind"),
]  # fmt: skip


class Objectives(Table):
    """Objectives that a successful call must meet to count as goodput."""

    ttft_ms: PositiveFloat | None = None
    """Streams: maximum time from sending to the first token."""
    tpot_ms: PositiveFloat | None = None
    """Streams: maximum average time per token after the first."""
    latency_ms: PositiveFloat | None = None
    """Maximum time from the call's first due time to its last byte, including waits and retries."""


Check = str | bool | int | float

NO_TIME_LIMIT_S = 365 * 86_400.0
"""``duration_s`` of a run that lasts until it is stopped, in seconds: a year."""


class Scenario(Divided):
    """A load: what to send to which target, when, and how long."""

    title: str
    answers: str = ""
    """The question that the scenario answers."""
    target: str = "sandbox"
    model: str
    duration_s: PositiveFloat = Field(le=MAX_DURATION_S)
    users: PositiveInt = Field(le=MAX_USERS)
    """Closed loop: number of users. Open loop: maximum number of calls in flight."""
    spawn_rate: PositiveFloat | None = None
    """Users started per second. Default: all immediately."""
    seed: NonNegativeInt = 1
    mix: tuple[Call, ...] = ()
    """Optional when replaying a former run, whose mix is then used, and for a locustfile's own calls."""
    arrivals: Arrivals
    retry: Retry = Retry()
    pacing: Pacing = Pacing()
    warm_up_s: NonNegativeFloat = 0.0
    """Seconds at the start of the run, or of each stage, excluded from the results."""
    warm_up_calls: NonNegativeInt = 0
    """The same as a number of calls."""
    objectives: Objectives = Objectives()
    checks: dict[str, Check] = Field(default_factory=dict)

    @property
    def is_open_loop(self) -> bool:
        """Whether due times are known before the run."""
        return not isinstance(self.arrivals, Closed | Ladder | CapacitySearch | Tournament)

    @property
    def has_time_limit(self) -> bool:
        """Whether the run ends by itself when its time is over."""
        return self.duration_s < NO_TIME_LIMIT_S

    def stages(self) -> tuple[Stage, ...]:
        """Return the planned stages, in order; none unless the load is stairs or a ladder.

        A capacity search or a tournament has none either: each trial begins after the last one.
        """
        return self.arrivals.stages(self.duration_s) if isinstance(self.arrivals, Stairs | Ladder) else ()

    def choices(self, call: Call | None = None) -> Choices:
        """Return the weighted targets and models of a call."""
        targets, models = (call.targets, call.models) if call else (None, None)
        return Choices(
            targets or self.targets or {self.target: 1.0}, models or self.models or {self.model: 1.0}
        )

    def target_names(self) -> list[str]:
        """Return the names of all targets that the scenario uses, those it only falls back to last."""
        used = [name for call in self.mix or (None,) for name in self.choices(call).targets]
        fallback = self.retry.fallback
        return list(dict.fromkeys([*used, *(() if isinstance(fallback, bool) else fallback)]))

    def models_on(self, target: str | None = None) -> list[str]:
        """Return all models, or those of the calls that a target gets; of one only fallen back to, all."""
        chosen = [self.choices(call) for call in self.mix or (None,)]
        own = [one for one in chosen if target in one.targets]
        return list(dict.fromkeys(model for one in own or chosen for model in one.models))

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [call.name for call in self.mix]
        if len(set(names)) < len(names):
            raise ValueError("two calls of the mix have the same name")
        if not self.mix and not isinstance(self.arrivals, Closed | Replay):
            raise ValueError("mix must have 1 or more entries")
        return self

    @model_validator(mode="after")
    def _something_after_the_warm_up(self) -> Self:
        if self.warm_up_s and self.warm_up_calls:
            raise ValueError("set warm_up_s or warm_up_calls, not both")
        if isinstance(self.arrivals, CapacitySearch):
            if self.warm_up_calls or self.warm_up_s >= self.arrivals.stage_s:
                raise ValueError("set a search's warm-up in seconds, below stage_s")
            return self
        if isinstance(self.arrivals, Tournament) and (self.warm_up_s or self.warm_up_calls):
            raise ValueError("every call of a tournament counts, so it can't have a warm-up")
        stages = len(self.stages()) or 1
        if self.warm_up_s >= self.duration_s / stages:
            raise ValueError("warm_up_s leaves nothing of " + ("a stage" if stages > 1 else "duration_s"))
        return self

    @model_validator(mode="after")
    def _room_for_the_ladder(self) -> Self:
        if isinstance(self.arrivals, Ladder) and max(self.arrivals.users) > self.users:
            raise ValueError(f"users must be {max(self.arrivals.users)} or more: the ladder goes that high")
        if isinstance(self.arrivals, CapacitySearch):
            if self.arrivals.load == "users" and self.arrivals.max > self.users:
                raise ValueError(f"users must be {self.arrivals.max:g} or more: the search can go that high")
            if any(call.turns for call in self.mix):
                raise ValueError("a search sends single calls, so its mix can't have turns")
        return self

    @model_validator(mode="after")
    def _time_for_every_policy(self) -> Self:
        if not isinstance(self.arrivals, Tournament):
            return self
        least_s = self.arrivals.stage_s * len(self.arrivals.policies)
        if self.duration_s < least_s:
            raise ValueError(f"duration_s must be {least_s:g} or more: stage_s for each of the policies")
        if any(call.turns for call in self.mix):
            raise ValueError("a tournament sends single calls, so its mix can't have turns")
        if self.pacing != Pacing() or self.retry.policy != "none":
            raise ValueError("a tournament names its policies itself: remove pacing and retry.policy")
        return self

    @property
    def pacings(self) -> set[PacingName]:
        """The pacing policies that a run of it uses."""
        if isinstance(self.arrivals, Tournament):
            return {one.pacing for one in self.arrivals.competitors}
        return {self.pacing.policy}

    @property
    def limits_file(self) -> str | None:
        """The limits.toml that it names."""
        return self.arrivals.limits if isinstance(self.arrivals, Tournament) else self.pacing.limits

    def of_one_policy(self) -> "Scenario":
        """Return the load that each policy of a tournament gets; any other scenario as it is."""
        if not isinstance(self.arrivals, Tournament):
            return self
        return self.model_copy(update={"arrivals": self.arrivals.calls, "duration_s": self.arrivals.stage_s})
