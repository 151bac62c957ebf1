"""Steps of an experiment: what to send, what to cancel, and when the step is over.

An experiment is a generator. It yields a step, receives the results so far, and returns when it has enough.
It neither waits nor sends nor concludes. A separate function analyzes the results, so a stored run gives the
same answer as the live probe.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from bltybench.limits.observations.probe_result import ProbeResult

STAGE_PREFIX = "probe: "
"""Prefix of an experiment's name in the ``stage`` column of its attempts."""

Kind = Literal["chat", "malformed", "unknown_model", "wrong_key", "models"]
"""A valid chat request; one without messages (400), with an unknown model (404), or with a wrong key (401);
or a request for the list of models."""
Until = Literal["ended", "decided", "begun"]
"""Progress of a request: its response ended, its status arrived, or its first token arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """One request of an experiment."""

    role: str
    """Its purpose within the experiment, stored as the attempt's name."""
    kind: Kind = "chat"
    model: str | None = None
    """Model name, or None for the scenario's."""
    second_key: bool = False
    prompt_tokens: int = 8
    """Approximate prompt size, in tokens."""
    max_tokens: int = 1
    one_word: bool = False
    """Whether the completion ends with its first word, whatever ``max_tokens`` is."""
    stream: bool = False
    """Whether to stream a completion of about ``max_tokens`` tokens."""

    @property
    def max_total_tokens(self) -> int:
        """Maximum prompt and completion tokens."""
        return self.prompt_tokens + self.max_tokens if self.kind == "chat" else 0


@dataclass(frozen=True, slots=True)
class SendStep:
    """Requests to send. The step is over once all of them have reached ``until``.

    Without requests, it waits for those in flight.
    """

    requests: tuple[ProbeRequest, ...] = ()
    at_s: float = 0.0
    """Unix time. A time in the past means now."""
    after_s: float = 0.0
    """Minimum delay after the previous step, in seconds."""
    max_in_flight: int = 1
    until_refused: bool = False
    """Whether to skip the remaining requests after a refusal."""
    until: Until = "ended"
    timeout_s: float = 60.0
    """Seconds after the last send at which the step ends anyway. Its requests stay in flight."""
    purpose: str = ""
    """Progress message."""


@dataclass(frozen=True, slots=True)
class CancelStep:
    """Cancel the oldest ``count`` responses that have begun, or everything in flight if ``count`` is 0."""

    count: int = 0


Step = SendStep | CancelStep
Experiment = Generator[Step, Sequence[ProbeResult], None]
