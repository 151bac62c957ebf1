"""What a retry policy knows, and those that the literature describes: constant and exponential waits."""

from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal, Protocol

from bltybench.limits.observations.classify import Decision

MAX_DOUBLINGS = 80
"""Doublings of a wait after which every cap is reached. More would overflow."""
JITTER_FRACTION = 0.25
"""Fraction of a wait that the jitter of ``backoff`` and ``retry_after_jitter`` varies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """One failed attempt of a call. None is what the server did not send."""

    number: int
    """Attempts of the call before this one."""
    decision: Decision
    status: int | None = None
    announced_s: float | None = None
    """Wait that the headers or the body announced, in seconds."""
    standard_s: float | None = None
    """Wait of ``retry-after-ms`` or ``retry-after``, the only headers that SDKs read, in seconds."""
    should_retry: bool | None = None
    """The header ``x-should-retry``."""
    stream: bool = False
    interrupted: bool = False
    """Whether the connection failed or a timeout expired."""
    has_tokens: bool = False
    """Whether tokens of a stream have arrived."""
    waited_s: float | None = None
    """Wait before this attempt, in seconds. None for the first."""


class Policy(Protocol):
    """How long a client waits before it retries a failed attempt."""

    follows: ClassVar[bool]
    """Whether it reads what the server announced."""

    def wait_s(
        self, number: int, announced_s: float | None, waited_s: float | None, rng: Random
    ) -> float | None:
        """Return the wait in seconds, or None to give up.

        ``number`` counts the attempts of the call before the one that failed, ``announced_s`` is what the
        server announced, and ``waited_s`` the wait before the attempt, None for the first.
        """
        ...


@dataclass(frozen=True, slots=True)
class FixedBackoff:
    """The same wait each time."""

    follows: ClassVar[bool] = False
    base_s: float

    def wait_s(self, number: int, announced_s: float | None, waited_s: float | None, rng: Random) -> float:
        """Return the wait in seconds."""
        del number, announced_s, waited_s, rng
        return self.base_s


@dataclass(frozen=True, slots=True)
class Exponential:
    """Waits that double up to a cap. U is uniform in [0, 1)."""

    follows: ClassVar[bool] = False
    base_s: float
    cap_s: float
    jitter: Literal["none", "quarter", "full", "equal"] = "none"
    """Factor of the wait: 1, 1 - U/4, U, or 1/2 + U/2."""

    def wait_s(self, number: int, announced_s: float | None, waited_s: float | None, rng: Random) -> float:
        """Return the wait in seconds."""
        del announced_s, waited_s
        # Comparisons, because a simulation needs this to be fast, and min() takes as long as the rest.
        wait_s = self.base_s * 2.0 ** (number if number < MAX_DOUBLINGS else MAX_DOUBLINGS)
        wait_s = wait_s if wait_s < self.cap_s else self.cap_s
        match self.jitter:
            case "none":
                return wait_s
            case "full":
                return wait_s * rng.random()
            case "quarter":
                return wait_s * (1 - JITTER_FRACTION * rng.random())
            case "equal":
                return wait_s * (1 + rng.random()) / 2


@dataclass(frozen=True, slots=True)
class DecorrelatedJitter:
    """Uniform waits between the base and three times the previous wait, up to a cap."""

    follows: ClassVar[bool] = False
    base_s: float
    cap_s: float

    def wait_s(self, number: int, announced_s: float | None, waited_s: float | None, rng: Random) -> float:
        """Return the wait in seconds."""
        del number, announced_s
        previous_s = self.base_s if waited_s is None else waited_s
        return min(self.cap_s, rng.uniform(self.base_s, max(self.base_s, 3 * previous_s)))


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The announced wait, or the fallback's without one. A wait above the maximum ends the call."""

    follows: ClassVar[bool] = True
    fallback: Policy
    max_wait_s: float
    jitter: bool = False
    """Whether up to a quarter of the announced wait is added."""

    def wait_s(
        self, number: int, announced_s: float | None, waited_s: float | None, rng: Random
    ) -> float | None:
        """Return the wait in seconds, or None if the server announced more than the maximum."""
        if announced_s is None or announced_s <= 0:
            return self.fallback.wait_s(number, announced_s, waited_s, rng)
        if announced_s > self.max_wait_s:
            return None
        return announced_s * (1 + JITTER_FRACTION * rng.random()) if self.jitter else announced_s
