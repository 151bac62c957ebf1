"""The capacity search's settings, and how a trial of one load is evaluated.

``bracket.py`` chooses the next load, and ``load/trials`` runs the trials.
"""

from collections.abc import Sequence
from typing import Literal, Self

import msgspec
from pydantic import Field, model_validator

from bltybench.errors import UserError
from bltybench.percentiles import nearest_rank, percentile
from bltybench.scenario.base import NonNegativeFloat, PositiveFloat, PositiveInt, Table
from bltybench.scenario.checks import ParsedCheck, parse_check
from bltybench.scenario.patterns import MAX_RATE_PER_MIN, Spacing

FRACTIONS = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "max": 1.0}
OUTCOMES = {"refused.share": "refused", "errors.share": "error"}
TIMES = ("ttft", "tpot", "latency", "attempt_latency")


class CapacitySearch(Table):
    """The highest rate, or number of users, at which all objectives hold: bracketed, then bisected."""

    kind: Literal["search"]
    load: Literal["rate", "users"] = "rate"
    """An open loop in requests per minute, or a closed loop of users."""
    start: PositiveFloat
    """The first load to try."""
    max: PositiveFloat = Field(le=MAX_RATE_PER_MIN)
    """The highest load to try."""
    step: float = Field(default=2.0, ge=1.01, le=2)
    """Factor from the first load to the second. Each further factor is the square of the one before, and at
    most 2. Choose it near 1 if the capacity is likely to be near ``start``."""
    stage_s: PositiveFloat
    """Duration of each trial, including its warm-up. A trial that can't pass any more ends early."""
    pause_s: NonNegativeFloat = 0.0
    """Pause between trials, after the last response, in which the API's limits refill."""
    precision: float = Field(default=0.05, ge=0.001, le=1)
    """The search ends if the load that failed exceeds the one that held by at most this fraction."""
    confirm: PositiveInt = Field(default=2, le=10)
    """Trials that must agree about each end of the interval."""
    requests: PositiveInt
    """Maximum requests. The search ends before a trial that could exceed it."""
    objectives: dict[str, str] = Field(min_length=1)
    """What must hold in a trial, written as checks."""
    spacing: Spacing = "even"

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.max < self.start:
            raise ValueError("max must not be below start")
        if self.load == "users" and not (self.start.is_integer() and self.max.is_integer()):
            raise ValueError("start and max are numbers of users, so they must be whole")
        for name, value in self.objectives.items():
            try:
                parse_check(name, value)
            except UserError as error:
                raise ValueError(f"objectives: {error.where}: {error.what}") from None
            sample, _, quantile = name.rpartition(".")
            in_trial = name in OUTCOMES or name == "calls.ok_share"
            if not in_trial and not (sample in TIMES and quantile in FRACTIONS):
                raise ValueError(f"objectives: {name} is not measured in a single trial")
        return self

    @property
    def checks(self) -> list[ParsedCheck]:
        """The objectives, parsed."""
        return [parse_check(name, value) for name, value in self.objectives.items()]


class TrialAttempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt of a trial. Times are in ms; None if not measured, or if the attempt failed."""

    call_id: str
    outcome: Literal["ok", "refused", "error"]
    ttft: float | None = None
    tpot: float | None = None
    latency: float | None = None
    """Call latency, from when the call was first due."""
    attempt_latency: float | None = None


def measure(attempts: Sequence[TrialAttempt], metric: str) -> float | None:
    """Return a metric of a trial, a fraction or a percentile in ms; None if there are too few attempts.

    A percentile p needs 1/(1 − p) values. That is fewer than in a report, because several trials must agree.
    """
    if metric in OUTCOMES:
        return _count(attempts, metric) / len(attempts) if attempts else None
    if metric == "calls.ok_share":
        calls = {attempt.call_id for attempt in attempts}
        ok = {attempt.call_id for attempt in attempts if attempt.outcome == "ok"}
        return len(ok) / len(calls) if calls else None
    sample, _, name = metric.rpartition(".")
    values = sorted(_times(attempts, sample))
    fraction = FRACTIONS[name]
    if fraction < 1 and len(values) < round(1 / (1 - fraction)):
        return None
    return percentile(values, fraction)


def cannot_pass(
    attempts: Sequence[TrialAttempt], checks: Sequence[ParsedCheck], calls: int, max_attempts: int
) -> bool:
    """Return whether a trial fails whatever the rest of its ``calls``, of up to ``max_attempts``, brings.

    Every future attempt can at best be accepted, so the refusal rate is at least the refusals until now
    divided by all possible attempts. Percentile p of a time exceeds its bound once more values exceed it than
    the fraction (1 − p) of all calls, because each call has one successful response at most.
    """
    return any(_fails(attempts, check, calls, max_attempts) for check in checks if check.op in {"<", "<="})


def _fails(attempts: Sequence[TrialAttempt], check: ParsedCheck, calls: int, max_attempts: int) -> bool:
    if check.metric in OUTCOMES:
        possible = max(calls * max_attempts, len(attempts))
        return possible > 0 and not check.holds(_count(attempts, check.metric) / possible)
    sample, _, name = check.metric.rpartition(".")
    if sample not in TIMES:
        return False
    values = _times(attempts, sample)
    beyond = sum(not check.holds(value) for value in values)
    possible = max(calls, len(values))
    return possible > 0 and beyond > possible - nearest_rank(FRACTIONS[name], possible)


def _count(attempts: Sequence[TrialAttempt], metric: str) -> int:
    return sum(attempt.outcome == OUTCOMES[metric] for attempt in attempts)


def _times(attempts: Sequence[TrialAttempt], sample: str) -> list[float]:
    return [value for attempt in attempts if (value := getattr(attempt, sample)) is not None]
