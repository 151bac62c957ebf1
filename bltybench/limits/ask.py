"""The words in which an experiment asks: what to send, what to do with it, and what was seen of it.

An experiment is a generator. It yields a step (``Send``, ``Drop``), is sent all that was seen in it so far,
and ends when it has asked enough. It neither waits nor sends, and concludes nothing: what was seen is judged
by a function of its own, so a record says the same as the probe that made it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bltybench.runs.attempt import Outcome

PREFIX = "probe: "
"""Before the name of an experiment, in the column ``stage`` of its attempts."""
NS = 1e9
STAND_INS = (503, 403)
OVERLOAD = ("overload", "capacity")

Kind = Literal["chat", "malformed", "unknown_model", "wrong_key", "models"]
Until = Literal["ended", "decided", "begun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
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
class Send:
    """Send, ``width`` at a time; come back when all have ended, or are decided on, or have begun to answer.

    Without ``shots``: only wait. What has not come as far after ``patience_s`` is left open.
    """

    shots: tuple[Shot, ...] = ()
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
class Drop:
    """Go away from the oldest open answers that have begun: from ``count`` of them, or from all (0)."""

    count: int = 0


Step = Send | Drop


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of one request, as far as it has come. Times are Unix seconds; None has not happened."""

    role: str
    sent_s: float
    decided_s: float | None = None
    """When the head of the answer came."""
    begun_s: float | None = None
    """When its first token came. Streams only."""
    end_s: float | None = None
    cancelled: bool = False
    """Ended by us."""
    accepted: bool | None = None
    """None: not decided, or neither let in nor refused for a rate (a mistake, a failure, overload)."""
    status: int | None = None
    said: str = ""
    """Code, type and message of a refusal."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    max_tokens: int = 0
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    retry_after_s: float | None = None

    @property
    def open(self) -> bool:
        """Whether its answer goes on."""
        return self.end_s is None

    @property
    def refused(self) -> bool:
        """Whether a limit refused it."""
        return self.accepted is False

    @property
    def lost(self) -> bool:
        """Whether it ended without an answer: it may have been let in, or not."""
        return self.status is None and self.end_s is not None and not self.cancelled

    @property
    def about_concurrency(self) -> bool:
        """Whether the refusal says that it is about how many are in flight."""
        return any(word in self.said for word in ("concurren", "parallel", "simultaneous", "in flight"))

    @property
    def about_tokens(self) -> bool:
        """Whether the refusal says that it is about tokens."""
        return "token" in self.said and not self.about_concurrency


Experiment = Generator[Step, Sequence[Seen], None]


def seen_of(row: Mapping[str, Any], start_s: float, refusal: int | None = None) -> Seen:
    """Return what a stored attempt says; ``refusal`` is the status of refusals where nothing says so.

    Columns that only experiments need may be missing.
    """
    said = " ".join(str(row[name]) for name in ("error_code", "error_type", "error_message") if row.get(name))

    def at(name: str) -> float | None:
        value = row.get(name)
        return None if value is None else start_s + value / NS

    end_s = at("end_ns")
    cancelled = row["outcome"] == Outcome.CANCELLED
    return Seen(
        role=str(row.get("name")),
        sent_s=at("sent_ns") or end_s or start_s,
        decided_s=at("headers_ns") or (None if cancelled else end_s),
        begun_s=at("first_token_ns"),
        end_s=end_s,
        cancelled=cancelled,
        accepted=_accepted(row, said.lower(), refusal),
        status=row["status"],
        said=said.lower(),
        prompt_tokens=row.get("prompt_tokens") or row.get("wanted_prompt_tokens") or 0,
        completion_tokens=row.get("completion_tokens") or 0,
        max_tokens=row.get("max_tokens") or 0,
        limit=row["limit_requests"],
        remaining=row["remaining_requests"],
        reset_s=row["reset_requests_s"],
        retry_after_s=row["retry_after_s"],
    )


def _accepted(row: Mapping[str, Any], said: str, refusal: int | None) -> bool | None:
    status = row["status"]
    if row["outcome"] == Outcome.RATE_LIMITED:
        return False
    if status in STAND_INS and refusal in {None, status} and not any(word in said for word in OVERLOAD):
        return False
    return True if status is not None and 200 <= status < 300 else None
