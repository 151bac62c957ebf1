"""How far does it go? The search for the highest load at which objectives hold: its settings, and how a
trial of one load is judged. ``bracket.py`` says which load comes next, ``load/search.py`` does the trying.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import msgspec
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from bltybench.errors import UserError
from bltybench.percentiles import nearest_rank, percentile
from bltybench.scenario.base import Table
from bltybench.scenario.checks import ParsedCheck, parse_check
from bltybench.scenario.patterns import MAX_RATE_PER_MIN, Spacing

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "max": 1.0}
SHARES = ("refused.share", "errors.share", "calls.ok_share")
SAMPLES = ("ttft", "tpot", "latency", "attempt_latency")


class CapacitySearch(Table):
    """The highest rate, or number of users, at which all objectives hold: bracketed, then bisected."""

    kind: Literal["search"]
    load: Literal["rate", "users"] = "rate"
    """An open loop at so many requests a minute, or a closed loop of so many users."""
    start: PositiveFloat
    """The first load to try."""
    max: PositiveFloat = Field(le=MAX_RATE_PER_MIN)
    """The highest load to try."""
    step: float = Field(default=2.0, ge=1.01, le=2)
    """The factor from the first load to the second; each further one is the square of the one before, and
    2 at most. Near 1 where the capacity is likely to be near ``start``."""
    stage_s: PositiveFloat
    """How long each trial lasts, its warm-up included; less where it cannot hold any more."""
    pause_s: NonNegativeFloat = 0.0
    """Between trials, after the last answer: so long that a limiter has forgotten what was before."""
    precision: float = Field(default=0.05, ge=0.001, le=1)
    """The search ends when the load that failed is this little above the one that held."""
    confirm: PositiveInt = Field(default=2, le=10)
    """Trials that must agree before a load is believed."""
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


class TrialAttempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt of a trial. Times in ms; None where there is none, or it did not succeed."""

    call_id: str
    outcome: Literal["ok", "refused", "error"]
    ttft: float | None = None
    tpot: float | None = None
    latency: float | None = None
    """Of the call, from when it was first due."""
    attempt_latency: float | None = None


def measure(seen: Sequence[TrialAttempt], metric: str) -> float | None:
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
    return percentile(values, share)


def hopeless(
    seen: Sequence[TrialAttempt], checks: Sequence[ParsedCheck], calls: int, attempts_each: int
) -> bool:
    """Return whether a trial cannot hold any more, whatever the rest of its ``calls`` may bring.

    A call is answered once at most and has up to ``attempts_each`` attempts. So the share of what is refused
    will not be less than what was refused by now of all attempts that there can be; and the percentile p of
    a time will pass its bound once more answers passed it than the (1 − p) part of all calls.
    """
    return any(_lost(seen, check, calls, attempts_each) for check in checks if check.op in {"<", "<="})


def _lost(seen: Sequence[TrialAttempt], check: ParsedCheck, calls: int, attempts_each: int) -> bool:
    if check.metric in {"refused.share", "errors.share"}:
        wanted = "refused" if check.metric == "refused.share" else "error"
        most = max(calls * attempts_each, len(seen))
        return most > 0 and not check.holds(sum(one.outcome == wanted for one in seen) / most)
    sample, _, name = check.metric.rpartition(".")
    if sample not in SAMPLES:
        return False
    values = [value for one in seen if (value := getattr(one, sample)) is not None]
    beyond = sum(not check.holds(value) for value in values)
    most = max(calls, len(values))
    return most > 0 and beyond > most - nearest_rank(QUANTILES[name], most)
