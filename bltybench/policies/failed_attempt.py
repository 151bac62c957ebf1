"""What a retry policy knows about a failed attempt."""

from dataclasses import dataclass

from bltybench.limits.observations.classify import Decision


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
