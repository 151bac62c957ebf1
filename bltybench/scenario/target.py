"""Targets: the API's address, its documented limits, and the sandbox's setup."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.api.documented_limits import (
    PER_PERIOD,
    Limit,
    Limits,
    LimitsKey,
    What,
    documented,
)
from bltybench.scenario.api.endpoint import Endpoint
from bltybench.scenario.base import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Table
from bltybench.scenario.faults import SandboxFaults, check_tls

SANDBOX_KEY = "sk-sandbox"
"""Public key of the sandbox. It is valid only for the sandbox on this machine."""

SANDBOX_SECOND_KEY = "sk-sandbox-second"
"""Another public key, with limits of its own."""

SANDBOX_RESTRICTED_KEY = "sk-sandbox-restricted"
"""A public key that is valid for deepseek-chat only, to produce a 403."""

PUBLIC_KEYS = {
    "SANDBOX_KEY": SANDBOX_KEY,
    "SANDBOX_SECOND_KEY": SANDBOX_SECOND_KEY,
    "SANDBOX_RESTRICTED_KEY": SANDBOX_RESTRICTED_KEY,
}
"""The sandbox's public keys by the names that ``keys`` of a target can use without setting a variable."""


class Budget(Table):
    """Caps on a run's spending. Required for a remote target."""

    requests: PositiveInt | None = None
    tokens: PositiveInt | None = None
    """Prompt plus completion tokens."""
    money: PositiveFloat | None = None
    """In the currency of the target's prices."""


class Price(Table):
    """Prices of a model, in any one currency."""

    input_per_million: NonNegativeFloat
    """Per million prompt tokens."""
    output_per_million: NonNegativeFloat
    """Per million completion tokens, including reasoning."""

    def of(self, prompt_tokens: float, answer_tokens: float) -> float:
        """Return the cost of the given tokens."""
        return (prompt_tokens * self.input_per_million + answer_tokens * self.output_per_million) / 1e6


OPTIONS: dict[str, tuple[Algorithm, ...]] = {
    "phase_s": ("fixed_window", "sliding_counter", "interval_refill"),
    "burst": ("token_bucket", "whole_token_bucket"),
    "ticks": ("interval_refill",),
    "queue": ("leaky_queue",),
    "free": ("leaky_queue",),
    "delaying": ("leaky_queue",),
    "spread": ("first_hit_window",),
    "count_refused": (
        "fixed_window",
        "first_hit_window",
        "sliding_log",
        "sliding_counter",
        "first_hit_counter",
    ),
}
"""Options of a limit besides limit and period, with the algorithms that support them."""


class RateLimit(Table):
    """One limit that the sandbox enforces."""

    limit: PositiveInt
    period_s: PositiveFloat = 60.0
    algorithm: Algorithm = "fixed_window"
    phase_s: NonNegativeFloat | None = None
    """Start of windows or ticks, in seconds after a whole period of Unix time. Default: 0."""
    burst: PositiveInt | None = None
    """Capacity of a token bucket. Default: the limit."""
    ticks: PositiveInt | None = None
    """Number of ticks into which a period's refill is divided. Default: 4."""
    queue: NonNegativeInt | None = None
    """Requests a leaky queue can hold. Default: limit - 1."""
    free: NonNegativeInt | None = None
    """Requests of a burst that a leaky queue serves without delay. Default: none."""
    delaying: bool | None = None
    """Whether a leaky queue delays requests (default) or serves them immediately."""
    spread: bool | None = None
    """Whether a window delays requests, so that they are spread out over it. Default: false."""
    count_refused: bool | None = None
    """Whether refused requests count too. Default: false."""
    also: "RateLimit | None" = None
    """Another limit on the same requests, of a shorter period for example. A request has to fit both, and is
    charged to both or to none."""
    waiting: PositiveInt | None = None
    """Requests beyond the limit that are delayed until they fit. Default: all of these are refused."""
    ban_s: PositiveFloat | None = None
    """Length of the ban that a refusal starts: all requests are refused meanwhile. Default: no ban."""
    ban_restarts: bool | None = None
    """Whether a request during a ban starts it again. Default: false."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        for name in self.options():
            if self.algorithm not in OPTIONS[name]:
                raise ValueError(f"{name} requires {', '.join(OPTIONS[name])}, not {self.algorithm}")
        if self.also is not None and (self.count_refused or self.also.count_refused):
            raise ValueError("count_refused can't be combined with also")
        if self.also is not None and self.also.ban_s is not None:
            raise ValueError("ban_s belongs next to also, not inside it, because a ban refuses everything")
        if self.ban_s is not None and self.count_refused:
            raise ValueError("count_refused can't be combined with ban_s")
        if self.waiting is not None and (self.count_refused or self.also or self.ban_s or self.spread):
            raise ValueError("waiting can't be combined with count_refused, also, ban_s, or spread")
        if self.ban_restarts and self.ban_s is None:
            raise ValueError("ban_restarts requires ban_s")
        return self

    def chain(self) -> Iterator["RateLimit"]:
        """Yield this limit and those of ``also``."""
        limit: RateLimit | None = self
        while limit is not None:
            yield limit
            limit = limit.also

    def options(self) -> dict[str, float | bool]:
        """Return the options other than limit, period, and algorithm."""
        return {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}


def alone(limit: RateLimit | None) -> list[RateLimit]:
    """Return the limits of a chain, each without the others."""
    return [] if limit is None else [one.model_copy(update={"also": None}) for one in limit.chain()]


def chained(limits: Sequence[RateLimit]) -> RateLimit | None:
    """Return limits on the same as a chain, which can't count refused requests; None if there are none."""
    if len(limits) < 2:
        return limits[0] if limits else None
    return limits[0].model_copy(update={"also": chained(limits[1:]), "count_refused": None})


HeaderStyle = Literal[
    "honest", "none", "no_retry_after", "short_retry_after", "long_retry_after", "full_remaining", "nonsense"
]


class SandboxLimits(Table):
    """Limits that the sandbox enforces per key. Default: the documented limits.

    Only valid, permitted chat requests count: a 400, 401, 403, or 404 is free, unless ``charged_errors`` or
    ``charged_endpoints`` is set. A request refused by one limit is charged to none, unless ``count_refused``
    is set. A request answered with a 500 costs a request and no tokens. An unset limit is the documented one;
    ``false`` disables it.
    """

    requests: RateLimit | None = RateLimit(limit=60)
    tokens: RateLimit | None = RateLimit(limit=100_000)
    """Prompt + max_tokens (default 1,024) are reserved on admission. The unused part is refunded when the
    response ends, so the limit is never exceeded."""
    input_tokens: RateLimit | None = None
    """Tokens of prompts. Default: no limit of their own."""
    output_tokens: RateLimit | None = None
    """Tokens of completions, reserved and refunded as those of ``tokens``. Default: no limit of their own."""
    concurrency: PositiveInt | None = 50
    """A slot is released when the response ends or the client disconnects."""
    concurrency_excess: Literal["refused", "queued"] = "refused"
    """Handling of excess requests: refused immediately, or queued without a response until a slot is
    released."""
    cancelled_keeps_slot: bool = False
    """Whether a slot stays occupied after the client disconnects, until the response would have ended."""
    per: tuple[Literal["key", "model"], ...] = ("key",)
    """What has its own limits: each key, each model, or both. With ``[]`` all share the same limits."""
    charged_errors: tuple[Literal[400, 403, 404], ...] = ()
    """Errors that cost a request."""
    charged_endpoints: tuple[Literal["models"], ...] = ()
    """Endpoints besides chat whose requests count against the same limit and can be refused."""
    tokens_charged: Literal["refunded", "reserved", "used"] = "refunded"
    """Token charging: reserved on admission and the rest refunded (refunded) or kept (reserved); or only the
    tokens used, charged when the response has ended, so the limit can be exceeded."""
    headers: HeaderStyle = "honest"
    """What the rate-limit headers say: accurate values, none, no Retry-After, half or twice the required
    wait, a Remaining that never decreases, or unreadable values."""
    refusal_status: Literal[429, 503, 403] = 429

    @field_validator(*PER_PERIOD, "concurrency", mode="before")
    @classmethod
    def _false_is_none(cls, value: object) -> object:
        # TOML has no null.
        return None if value is False else value

    @property
    def per_period(self) -> dict[What, RateLimit]:
        """The limits that are set, without concurrency, by what they count."""
        known: dict[What, RateLimit | None] = {
            "requests": self.requests,
            "tokens": self.tokens,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        return {what: limit for what, limit in known.items() if limit is not None}


class Delay(Table):
    """A lognormal delay in milliseconds, given by its median and 95th percentile."""

    median_ms: NonNegativeFloat
    p95_ms: NonNegativeFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.p95_ms < self.median_ms:
            raise ValueError("p95_ms must not be below median_ms")
        if self.median_ms == 0 and self.p95_ms > 0:
            raise ValueError("a median_ms of 0 means no delay, so p95_ms must be 0 too")
        return self


class SandboxQueue(Table):
    """A server with limited capacity: TTFT grows with the load.

    Each admitted request waits for one of ``slots`` and occupies it for ``service_ms``; its delays start
    afterwards. The sandbox sustains ``slots * 60_000 / service_ms`` requests per minute. Above that, the
    queue grows without bound.
    """

    slots: PositiveInt
    service_ms: PositiveFloat


class SandboxKey(Table):
    """A key that the sandbox accepts. Plain text on purpose: it is valid only for a sandbox."""

    name: str
    """Name of the key in the sandbox's log."""
    key: str = Field(min_length=1)
    models: tuple[str, ...] | None = None
    """Models it may use. Default: all. Other models return 403."""


class SandboxSettings(Table):
    """Behavior of the sandbox: limits, keys, models, and delays."""

    seed: NonNegativeInt = 1
    limits: SandboxLimits = SandboxLimits()
    ttft: Delay = Delay(median_ms=180, p95_ms=420)
    """From the last request byte to the first token."""
    itl: Delay = Delay(median_ms=18, p95_ms=40)
    """Between tokens."""
    models: tuple[str, ...] = Field(
        default=("deepseek-chat", "deepseek-reasoner", "gpt-4o-mini"), min_length=1
    )
    """A model whose name ends in "reasoner" reasons first: half of its tokens are ``reasoning_content``."""
    keys: tuple[SandboxKey, ...] = (
        SandboxKey(name="public", key=SANDBOX_KEY),
        SandboxKey(name="second", key=SANDBOX_SECOND_KEY),
        SandboxKey(name="restricted", key=SANDBOX_RESTRICTED_KEY, models=("deepseek-chat",)),
    )
    """Each key has its own limits."""
    queue: SandboxQueue | None = None
    """Default: equally fast under any load."""
    error_rate: float = Field(default=0.0, ge=0, le=1)
    """Fraction of chat requests answered with a 500."""
    faults: SandboxFaults = SandboxFaults()


class Target(Endpoint):
    """An OpenAI-compatible API, with its limits and what a run may spend there."""

    limits: LimitsKey = Limits()
    """Unset if undocumented. ``documented`` has them in one form."""
    limits_per: tuple[Literal["key", "model"], ...] = ("key",)
    """What has the documented limits of its own, as ``per`` of a sandbox."""
    budget: Budget = Budget()
    prices: dict[str, Price] = Field(default_factory=dict)
    """Per model. Required if the budget caps money."""
    sandbox: SandboxSettings | None = None
    """If set, the target is the sandbox, which the run starts if nothing listens at base_url."""

    @model_validator(mode="after")
    def _sandbox_is_here(self) -> Self:
        if self.sandbox is not None and not self.is_local:
            raise ValueError("a sandbox runs on this machine: base_url must use 127.0.0.1 or localhost")
        if self.sandbox is not None:
            check_tls(self.base_url, self.ca_file, self.sandbox.faults)
        return self

    @property
    def documented(self) -> list[Limit]:
        """The documented limits."""
        return documented(self.limits)

    @property
    def default_key(self) -> str | None:
        """The sandbox's public key, if the target is the sandbox."""
        return None if self.sandbox is None else SANDBOX_KEY

    @property
    def public_keys(self) -> Mapping[str, str]:
        """The sandbox's public keys by name, if the target is the sandbox."""
        return {} if self.sandbox is None else PUBLIC_KEYS
