"""Steps of an experiment: what to send, what to cancel, and when the step is over.

An experiment is a generator. It yields a step, receives the results so far, and returns when it has enough.
It neither waits nor sends nor concludes. A separate function analyzes the results, so a stored run gives the
same answer as the live probe.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from bltybench.limits.observations.probe_result import ProbeResult

PREFIX = "probe: "
"""Before the name of an experiment, in the column ``stage`` of its attempts."""
NS = 1e9
STAND_INS = (503, 403)
OVERLOAD = ("overload", "capacity")

Kind = Literal["chat", "malformed", "unknown_model", "wrong_key", "models"]
Until = Literal["ended", "decided", "begun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """One request."""

    role: str
    """What it is for. Stored as the attempt's name."""
    kind: Kind = "chat"
    """A valid chat request; one without messages (400), for a model that there is not (404) or with a key
    that there is not (401); or the list of models."""
    model: str | None = None
    """None for the scenario's."""
    second_key: bool = False
    prompt_tokens: int = 8
    """About so many."""
    max_tokens: int = 1
    brief: bool = False
    """Whether the answer is to end with its first word, however many tokens it might have."""
    stream: bool = False
    """Whether it is a stream of as many tokens as ``max_tokens`` says, or nearly."""

    @property
    def most_tokens(self) -> int:
        """Return the most that it can use."""
        return self.prompt_tokens + self.max_tokens if self.kind == "chat" else 0


@dataclass(frozen=True, slots=True)
class SendStep:
    """Send, ``width`` at a time; come back when all have ended, or are decided on, or have begun to answer.

    Without ``shots``: only wait. What has not come as far after ``patience_s`` is left open.
    """

    shots: tuple[ProbeRequest, ...] = ()
    at_s: float = 0.0
    """Unix time; in the past means at once."""
    after_s: float = 0.0
    """Seconds from when the step before was over."""
    width: int = 1
    until_refused: bool = False
    """Leave out the rest after a refusal."""
    until: Until = "ended"
    patience_s: float = 60.0
    says: str = ""
    """What it is for, for who watches."""


@dataclass(frozen=True, slots=True)
class CancelStep:
    """Go away from the oldest open answers that have begun: from ``count`` of them, or from all (0)."""

    count: int = 0


Step = SendStep | CancelStep


Experiment = Generator[Step, Sequence[ProbeResult], None]
