"""Targets: where the load goes, what is documented of its limits, and how the sandbox is set up."""

from __future__ import annotations

import ipaddress
import os
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)

from bltybench.errors import UserError
from bltybench.scenario.base import Table

SANDBOX_KEY = "sk-sandbox"
"""The sandbox's public key: it opens nothing but the sandbox on this machine."""

SANDBOX_RESTRICTED_KEY = "sk-sandbox-restricted"
"""A second public key, for deepseek-chat only: it makes the 403 that SANDBOX_KEY never sees."""


class Limits(Table):
    """Documented limits of an API; absent where nothing is documented."""

    requests_per_min: PositiveInt | None = None
    tokens_per_min: PositiveInt | None = None
    concurrency: PositiveInt | None = None


class Budget(Table):
    """The most that a run may spend. A target beyond this machine needs one."""

    requests: PositiveInt | None = None
    tokens: PositiveInt | None = None
    """Prompt and answer together."""
    money: PositiveFloat | None = None
    """In the currency of the target's prices."""


class Price(Table):
    """What a model costs, in any one currency."""

    input_per_million: NonNegativeFloat
    """For a million prompt tokens."""
    output_per_million: NonNegativeFloat
    """For a million tokens of answers, reasoning included."""

    def of(self, prompt_tokens: float, answer_tokens: float) -> float:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.input_per_million + answer_tokens * self.output_per_million) / 1e6


class Timeouts(Table):
    """Bounds on one attempt, in seconds."""

    connect_s: PositiveFloat = 10.0
    headers_s: PositiveFloat = 60.0
    between_events_s: PositiveFloat = 30.0
    total_s: PositiveFloat = 300.0


Algorithm = Literal[
    "fixed_window",
    "first_hit_window",
    "sliding_log",
    "sliding_counter",
    "first_hit_counter",
    "token_bucket",
    "interval_refill",
    "leaky_queue",
]

OPTIONS: dict[str, tuple[Algorithm, ...]] = {
    "phase_s": ("fixed_window", "sliding_counter", "interval_refill"),
    "burst": ("token_bucket",),
    "ticks": ("interval_refill",),
    "queue": ("leaky_queue",),
    "free": ("leaky_queue",),
    "delaying": ("leaky_queue",),
    "count_refused": (
        "fixed_window",
        "first_hit_window",
        "sliding_log",
        "sliding_counter",
        "first_hit_counter",
    ),
}
"""What a limit can be told besides limit and period, and the algorithms that know it."""


class RateLimit(Table):
    """One limit that the sandbox enforces."""

    limit: PositiveInt
    period_s: PositiveFloat = 60.0
    algorithm: Algorithm = "fixed_window"
    phase_s: NonNegativeFloat | None = None
    """Where windows or ticks begin, in seconds after a whole period of Unix time; 0 if absent."""
    burst: PositiveInt | None = None
    """What a token bucket holds; the limit if absent."""
    ticks: PositiveInt | None = None
    """In how many lumps a period's refill comes; 4 if absent."""
    queue: NonNegativeInt | None = None
    """How many a leaky queue lets wait; limit - 1 if absent."""
    free: NonNegativeInt | None = None
    """How many of them a leaky queue serves at once all the same; none if absent."""
    delaying: bool | None = None
    """Whether a leaky queue makes them wait (true if absent) or serves them at once."""
    count_refused: bool | None = None
    """Whether refused requests count too; false if absent."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        for name in self.options():
            if self.algorithm not in OPTIONS[name]:
                raise ValueError(f"{name} is for {', '.join(OPTIONS[name])}, not for {self.algorithm}")
        return self

    def options(self) -> dict[str, float | bool]:
        """Return what was said besides limit, period and algorithm."""
        return {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}


HeaderStyle = Literal[
    "honest",
    "none",
    "no_retry_after",
    "short_retry_after",
    "long_retry_after",
    "full_remaining",
    "nonsense",
]


class SandboxLimits(Table):
    """The limits that the sandbox enforces, per key. The documented ones unless said otherwise.

    Only chat requests that are valid and allowed reach the limits: a 400, 401, 403 or 404 is free, unless
    ``charged_errors`` and ``charged_endpoints`` say otherwise. A request
    that is refused by any of them is charged to none (but where ``count_refused`` says so); one that is
    answered with a 500 costs a request and no tokens. Left out means the documented limit; ``false`` means
    none.
    """

    requests: RateLimit | None = RateLimit(limit=60)
    tokens: RateLimit | None = RateLimit(limit=100_000)
    """Prompt + max_tokens (1,024 where not given) are reserved at admission; what was not used comes back
    when the answer ends, so the limit is never overshot."""
    concurrency: PositiveInt | None = 50
    """A slot is free as soon as the answer ends or its client goes away."""
    concurrency_excess: Literal["refused", "queued"] = "refused"
    """What becomes of requests beyond it: refused at once, or kept waiting, without a byte, for a slot."""
    cancelled_keeps_slot: bool = False
    """Whether a slot stays taken, where its client goes away, until its answer would have ended."""
    per: tuple[Literal["key", "model"], ...] = ("key",)
    """What has limits of its own: each key, each model, both; with ``[]`` all share them."""
    charged_errors: tuple[Literal[400, 403, 404], ...] = ()
    """Errors that cost a request all the same."""
    charged_endpoints: tuple[Literal["models"], ...] = ()
    """Endpoints besides chat whose calls cost a request, and are refused with the same limit."""
    tokens_charged: Literal["refunded", "reserved", "used"] = "refunded"
    """Reserved at admission and the rest given back (refunded) or kept (reserved); or only what was used,
    charged when the answer has ended, so that the limit can be overshot."""
    headers: HeaderStyle = "honest"
    """What the rate-limit headers say: the truth, nothing, no Retry-After, half or twice the wait that is
    needed, a Remaining that never falls, or what no client can read."""
    refusal_status: Literal[429, 503, 403] = 429

    @field_validator("requests", "tokens", "concurrency", mode="before")
    @classmethod
    def _false_is_none(cls, value: object) -> object:
        # TOML has no null.
        return None if value is False else value


class Delay(Table):
    """A lognormal delay in milliseconds, by its median and its 95th percentile."""

    median_ms: NonNegativeFloat
    p95_ms: NonNegativeFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.p95_ms < self.median_ms:
            raise ValueError("p95_ms must not be below median_ms")
        if self.median_ms == 0 and self.p95_ms > 0:
            raise ValueError("a median_ms of 0 is no delay at all: p95_ms must be 0 too")
        return self


class SandboxQueue(Table):
    """A server that can do only so much at a time: TTFT grows with the load.

    Each admitted request waits for one of ``slots`` and keeps it for ``service_ms``; its delays begin after
    that. So the sandbox bears ``slots * 60_000 / service_ms`` requests a minute; beyond that the line of
    those who wait grows without end.
    """

    slots: PositiveInt
    service_ms: PositiveFloat


class SandboxKey(Table):
    """A key that the sandbox takes. Plain text on purpose: it opens nothing but a sandbox."""

    name: str
    """Stands for the key in the sandbox's log."""
    key: str = Field(min_length=1)
    models: tuple[str, ...] | None = None
    """Models that it may use: all when absent, a 403 for the others."""


class SandboxSettings(Table):
    """How the sandbox behaves: limits, keys, models and delays."""

    seed: NonNegativeInt = 1
    limits: SandboxLimits = SandboxLimits()
    ttft: Delay = Delay(median_ms=180, p95_ms=420)
    """From the request's last byte to the first token."""
    itl: Delay = Delay(median_ms=18, p95_ms=40)
    """Between tokens."""
    models: tuple[str, ...] = Field(
        default=("deepseek-chat", "deepseek-reasoner", "gpt-4o-mini"), min_length=1
    )
    """A model whose name ends in "reasoner" thinks first: half of its tokens are ``reasoning_content``."""
    keys: tuple[SandboxKey, ...] = (
        SandboxKey(name="public", key=SANDBOX_KEY),
        SandboxKey(name="restricted", key=SANDBOX_RESTRICTED_KEY, models=("deepseek-chat",)),
    )
    """Each key has limits of its own."""
    queue: SandboxQueue | None = None
    """Absent: as fast under any load."""
    error_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of chat requests that are answered with a 500."""


class Target(Table):
    """An OpenAI-compatible API."""

    base_url: str
    """Up to and including ``/v1``."""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key."""
    limits: Limits = Limits()
    budget: Budget = Budget()
    prices: dict[str, Price] = Field(default_factory=dict)
    """By model. Needed where the budget is in money."""
    timeouts: Timeouts = Timeouts()
    verify_tls: bool = True
    ca_file: str | None = None
    """PEM file of certificates to trust instead of the usual ones."""
    sandbox: SandboxSettings | None = None
    """Present: this is the sandbox, started for the run where nothing listens at base_url."""

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        wrong = "must look like https://api.example.com/v1"
        try:
            parts = urlsplit(value)
            port_ok = parts.port != 0
        except ValueError:  # a port that is none, or half of an IPv6 address
            raise ValueError(wrong) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok:
            raise ValueError(wrong)
        if not value.isprintable() or " " in value:
            raise ValueError("must not hold spaces or control characters")
        if parts.username or parts.password:
            raise ValueError("must not hold a user name or password; the key comes from api_key_env")
        if parts.query or parts.fragment:
            raise ValueError("must not have a query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _sandbox_is_here(self) -> Self:
        if self.sandbox is not None and not self.is_local:
            raise ValueError("a sandbox runs on this machine: base_url must name 127.0.0.1 or localhost")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the target is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def api_key(self, name: str) -> SecretStr | None:
        """Return the key from the environment; ``name`` is the target's, for the message.

        Raises UserError where a key is asked for and not set. The sandbox falls back on its public key,
        and a target without ``api_key_env`` is called without one.
        """
        value = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if value:
            return SecretStr(value)
        if self.sandbox is not None:
            return SecretStr(SANDBOX_KEY)
        if self.api_key_env is None:
            return None
        raise UserError(
            f"target '{name}' needs an API key and {self.api_key_env} is not set",
            remedy=f"export {self.api_key_env}=… (read from the environment only, and never stored)",
        )
