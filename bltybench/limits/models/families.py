"""The families of rate limiters: the model of each, and the properties that the fit and the probe rely on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bltybench.limits.models.banned import Banned
from bltybench.limits.models.base import Model
from bltybench.limits.models.composite import Both
from bltybench.limits.models.fixed_window import FirstHitWindow, FixedWindow
from bltybench.limits.models.interval_refill import IntervalRefill
from bltybench.limits.models.leaky_queue import LeakyQueue, Waiting
from bltybench.limits.models.sliding_counter import FirstHitCounter, SlidingCounter
from bltybench.limits.models.sliding_log import SlidingLog
from bltybench.limits.models.token_bucket import TokenBucket, WholeTokenBucket
from bltybench.scenario.api.documented_limits import NAMES, What
from bltybench.scenario.target import RateLimit

TOKEN_BUCKET, INTERVAL_REFILL, LEAKY_QUEUE = "token_bucket", "interval_refill", "leaky_queue"
WHOLE_TOKEN_BUCKET = "whole_token_bucket"  # noqa: S105  # not a password
FIXED_WINDOW, SLIDING_COUNTER, SLIDING_LOG = "fixed_window", "sliding_counter", "sliding_log"
FIRST_HIT_WINDOW = "first_hit_window"


@dataclass(frozen=True, slots=True)
class LimiterFamily:
    """A family's model and properties."""

    model: Callable[..., Model]
    """Called with the limit, the period in seconds, and the family's options."""
    kind: Literal["window", "log", "counter", "bucket", "queue"]
    """A window resets completely, a counter weights two windows, and a bucket needs a whole token per
    request."""
    start: Literal["phase", "first_hit"] | None = None
    """Whether windows or ticks recur from a fixed phase, or start at the first request after an idle time."""
    aligned: str | None = None
    """For windows that start at the first request: the family of the same kind with a fixed phase."""

    @property
    def has_phase(self) -> bool:
        """Whether windows or ticks recur from a fixed phase, ``phase_s``."""
        return self.start == "phase"

    @property
    def has_recurring_windows(self) -> bool:
        """Whether windows follow each other without gaps, so an error in the period adds up over the run."""
        return self.has_phase and self.kind != "bucket"

    @property
    def refills_singly(self) -> bool:
        """Whether tokens come one by one, so the fit searches the time per token."""
        return self.kind == "bucket" and not self.has_phase

    @property
    def shows_count_refused(self) -> bool:
        """Whether counting refused requests has a visible effect. A window is exhausted when it refuses."""
        return self.kind in {"log", "counter"}

    @property
    def refills_gradually(self) -> bool:
        """Whether the limit refills in parts, so that a few requests are accepted before it is full again."""
        return self.kind in {"bucket", "counter"}


FAMILIES = {
    FIXED_WINDOW: LimiterFamily(FixedWindow, "window", "phase"),
    FIRST_HIT_WINDOW: LimiterFamily(FirstHitWindow, "window", "first_hit", aligned=FIXED_WINDOW),
    SLIDING_LOG: LimiterFamily(SlidingLog, "log"),
    SLIDING_COUNTER: LimiterFamily(SlidingCounter, "counter", "phase"),
    "first_hit_counter": LimiterFamily(FirstHitCounter, "counter", "first_hit", aligned=SLIDING_COUNTER),
    TOKEN_BUCKET: LimiterFamily(TokenBucket, "bucket"),
    WHOLE_TOKEN_BUCKET: LimiterFamily(WholeTokenBucket, "bucket"),
    INTERVAL_REFILL: LimiterFamily(IntervalRefill, "bucket", "phase"),
    LEAKY_QUEUE: LimiterFamily(LeakyQueue, "queue"),
}
"""Every time-based family by name. A new family is one module with a ``Model``, and one line here."""
BUCKETS = frozenset(name for name, family in FAMILIES.items() if family.refills_singly)
"""The buckets that refill token by token."""


def model_of(limit: RateLimit) -> Model:
    """Return a new limiter with the algorithm, limit, period, and options of a table of scenarios.toml."""
    model = FAMILIES[limit.algorithm].model(limit.limit, limit.period_s, **limit.options())
    if limit.also is not None:
        model = Both(model, model_of(limit.also))
    if limit.waiting is not None:
        return Waiting(model, limit.waiting)
    return model if limit.ban_s is None else Banned(model, limit.ban_s, restarts=bool(limit.ban_restarts))


def in_words(limit: RateLimit, unit: What) -> str:
    """Return a limit in words, such as "60 requests per 60 s (fixed window)"."""
    words = (
        f"{limit.limit:,} {NAMES.get(unit, unit)} per {limit.period_s:g} s ({prose_name(limit.algorithm)})"
    )
    if limit.also is not None:
        words += f" and {in_words(limit.also, unit)}"
    if limit.waiting is not None:
        words += f", and {limit.waiting} more wait"
    if limit.ban_s is None:
        return words
    return f"{words}, and a ban of {limit.ban_s:g} s after a refusal"


def prose_name(family: str) -> str:
    """Return a family's name in prose, such as "token bucket"."""
    names = {
        "first_hit_window": "first-hit fixed window",
        "first_hit_counter": "first-hit sliding counter",
        WHOLE_TOKEN_BUCKET: "bucket of whole tokens",
    }
    return names.get(family, family.replace("_", " "))


def with_article(family: str) -> str:
    """Return a family's name in prose after an article, such as "a token bucket"."""
    name = prose_name(family)
    return f"an {name}" if name.startswith("interval") else f"a {name}"
