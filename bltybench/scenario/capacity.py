"""How far does it go? The search for the highest load at which objectives hold: its settings and its logic.

Pure: it says which load to try next and is told whether that held. ``load/search.py`` does the trying.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from bltybench.errors import UserError
from bltybench.scenario.base import Table
from bltybench.scenario.checks import ParsedCheck, parse_check
from bltybench.scenario.patterns import MAX_RATE_PER_MIN, Spacing

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "max": 1.0}
SHARES = ("refused.share", "errors.share", "calls.ok_share")
SAMPLES = ("ttft", "tpot", "latency", "attempt_latency")

LEAST = 1 / 64
"""A search that has gone down to this part of its start without anything that holds gives up."""


class Search(Table):
    """The highest rate, or number of users, at which all objectives hold: bracketed, then bisected."""

    kind: Literal["search"]
    load: Literal["rate", "users"] = "rate"
    """An open loop at so many requests a minute, or a closed loop of so many users."""
    start: PositiveFloat
    """The first load to try."""
    max: PositiveFloat = Field(le=MAX_RATE_PER_MIN)
    """The highest load to try."""
    stage_s: PositiveFloat
    """How long each trial lasts, its warm-up included."""
    pause_s: NonNegativeFloat = 0.0
    """Between trials, after the last answer: so long that a limiter has forgotten what was before."""
    precision: float = Field(default=0.05, ge=0.001, le=1)
    """The search ends when the load that failed is this little above the one that held."""
    confirm: PositiveInt = Field(default=2, le=10)
    """Trials of one load that must agree before it is believed."""
    requests: PositiveInt
    """The most requests to send: the search ends before a trial that could pass it."""
    objectives: dict[str, str] = Field(min_length=1)
    """What must hold in a trial, written as checks are."""
    spacing: Spacing = "even"

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.max < self.start:
            raise ValueError("max must not be below start")
        if self.load == "users" and not (self.start.is_integer() and self.max.is_integer()):
            raise ValueError("start and max are numbers of users: they must be whole")
        for name, value in self.objectives.items():
            try:
                parse_check(name, value)
            except UserError as error:
                raise ValueError(f"objectives: {error.where}: {error.what}") from None
            sample, _, quantile = name.rpartition(".")
            if name not in SHARES and not (sample in SAMPLES and quantile in QUANTILES):
                raise ValueError(f"objectives: {name} is not known of a single trial")
        return self

    @property
    def checks(self) -> list[ParsedCheck]:
        """The objectives, ready to be evaluated."""
        return [parse_check(name, value) for name, value in self.objectives.items()]


@dataclass(frozen=True, slots=True)
class Seen:
    """One attempt of a trial. Times in ms; None where there is none, or it did not succeed."""

    call_id: str
    outcome: Literal["ok", "refused", "error"]
    ttft: float | None = None
    tpot: float | None = None
    latency: float | None = None
    """Of the call, from when it was first due."""
    attempt_latency: float | None = None


def measure(seen: Sequence[Seen], metric: str) -> float | None:
    """Return a metric of a trial: a share, or a nearest-rank percentile in ms. None: too little was seen.

    A percentile p needs 1/(1 − p) values. That is fewer than a report asks for: a trial is one of several,
    and it is their agreement that is believed.
    """
    if metric in {"refused.share", "errors.share"}:
        wanted = "refused" if metric == "refused.share" else "error"
        return sum(one.outcome == wanted for one in seen) / len(seen) if seen else None
    if metric == "calls.ok_share":
        calls = {one.call_id for one in seen}
        return len({one.call_id for one in seen if one.outcome == "ok"}) / len(calls) if calls else None
    sample, _, name = metric.rpartition(".")
    values = sorted(value for one in seen if (value := getattr(one, sample)) is not None)
    share = QUANTILES[name]
    if not values or (share < 1 and len(values) < round(1 / (1 - share))):
        return None
    return float(values[max(0, math.ceil(round(share * len(values), 9)) - 1)])


class Bracket:
    """Doubles until a load fails or halves until one holds, then takes the middle until it is sure."""

    def __init__(self, start: float, most: float, *, precision: float, confirm: int, whole: bool) -> None:
        self._level = start
        self._least = max(1.0, start * LEAST) if whole else start * LEAST
        self._most = most
        self._precision = precision
        self._confirm = confirm
        self._whole = whole
        self._votes = [0, 0]
        self.holds: float | None = None
        """The highest load that held, as often as it takes to believe it."""
        self.fails: float | None = None
        """The lowest load that failed, as often."""
        self.done = False

    @property
    def level(self) -> float:
        """The load to try now."""
        return self._level

    def add(self, held: bool) -> None:
        """Take in how a trial at ``level`` went, and choose the next level once enough of them agree."""
        self._votes[held] += 1
        if self._votes[held] < self._confirm:
            return
        self._votes = [0, 0]
        if held:
            self.holds = self._level
        else:
            self.fails = self._level
        self._choose()

    def _choose(self) -> None:
        low, high = self.holds, self.fails
        if high is None:
            self.done = self._level >= self._most
            self._level = min(self._most, self._level * 2)
        elif low is None:
            self.done = self._level <= self._least
            half = self._level / 2
            self._level = max(self._least, math.floor(half) if self._whole else half)
        elif self._whole:
            self.done = high - low <= max(1.0, low * self._precision)
            self._level = float((low + high) // 2)
        else:
            self.done = high <= low * (1 + self._precision)
            self._level = math.sqrt(low * high)
