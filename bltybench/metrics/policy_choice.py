"""The choice between the client policies of a tournament: their ranks, and the one to use."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from bltybench.runs.trials.tournament import TournamentCourse

MAX_NAMED = 4
"""Maximum policies that a sentence names."""


class IntervalEstimate(msgspec.Struct, frozen=True):
    """A value with its 95% interval, which is null if the calls are due in fewer than MIN_SPANS spans."""

    value: float
    low: float | None
    high: float | None

    def overlaps(self, other: "IntervalEstimate") -> bool:
        """Return whether the intervals have a value in common. Unknown ones can't be distinguished."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return True
        return self.low <= other.high and other.low <= self.high


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy achieved. Null is what does not apply or has too few calls."""

    policy: str
    rank: int
    """1 plus the number of policies that are better beyond the intervals: see ``rank``."""
    calls: int
    ok: int
    gave_up: int
    """Calls that ended refused."""
    cut_off: int
    """Calls that had not ended in time."""
    goodput_per_min: IntervalEstimate
    """Calls that met the objectives and ended before the last call had become due, per minute."""
    ok_share: IntervalEstimate
    """Fraction of the calls that succeeded."""
    refusals_per_success: IntervalEstimate | None
    success_p50_s: IntervalEstimate | None
    """Time from when a call was due until it succeeded, in seconds."""
    success_p95_s: IntervalEstimate | None
    success_p99_s: IntervalEstimate | None
    wasted_tokens: int
    """Tokens of prompts and completions of attempts that failed."""
    makespan_s: float
    """Time from the beginning of the stage until the last call ended, in seconds."""
    below_optimum_percent: float | None = None
    """Calls accepted before the end, compared with the optimum: in percent fewer."""
    recovered: bool | None
    """Whether the first response showed the whole limit. Null if the API does not announce it."""
    no_free_user: int
    """Arrivals that found no idle user, although pacing held none."""


class TournamentResult(msgspec.Struct, frozen=True, kw_only=True):
    """The standings of a tournament, the best first."""

    course: TournamentCourse
    standings: list[Standing]
    recommendation: str
    recommended: str | None
    """Policy to use. Null if that is not decided."""


class Criterion(NamedTuple):
    """What decides between policies."""

    name: str
    estimate: Callable[[Standing], IntervalEstimate | None]
    more: bool
    """Whether more is better."""
    best: str
    """The best of it, in words."""


CRITERIA = (
    Criterion("goodput", lambda one: one.goodput_per_min, True, "the highest goodput per minute"),
    Criterion("success rate", lambda one: one.ok_share, True, "the highest success rate"),
    Criterion("refusals", lambda one: one.refusals_per_success, False, "the fewest refusals per success"),
    Criterion(
        "p95", lambda one: one.success_p95_s, False, "the lowest p95 of the time to success, in seconds"
    ),
)
"""Criteria, the most important first. The next one decides between policies whose intervals overlap."""


class _Choice(NamedTuple):
    """The best policies, and the criterion that decided for a single one, with those that lost by it."""

    best: list[Standing]
    criterion: Criterion | None
    lost: list[Standing]
    compared: int
    """Policies among which the criterion decided."""


def ranked(standings: Sequence[Standing], *, timed: bool = True) -> list[Standing]:
    """Return the standings with their ranks, the best first. Those that can't be distinguished share a rank.

    ``timed`` says whether times to success are valid. Otherwise, they decide nothing.
    """
    left, found = list(standings), list[Standing]()
    while left:
        rank, best = len(found) + 1, _choose(left, timed).best
        best = sorted(best, key=lambda one: one.goodput_per_min.value, reverse=True)
        found += [msgspec.structs.replace(one, rank=rank) for one in best]
        names = {one.policy for one in best}
        left = [one for one in left if one.policy not in names]
    return found


def _choose(standings: Sequence[Standing], timed: bool) -> _Choice:
    leaders = list(standings)
    for criterion in CRITERIA if timed else CRITERIA[:-1]:
        known = [(one, estimate) for one in leaders if (estimate := criterion.estimate(one)) is not None]
        if not known:
            continue
        order = sorted(known, key=lambda pair: pair[1].value, reverse=criterion.more)
        first = order[0][1]
        kept = [one for one, estimate in order if estimate is first or estimate.overlaps(first)]
        if len(kept) == 1 and len(order) > 1:
            return _Choice(kept, criterion, [one for one, _ in order[1:]], len(leaders))
        leaders = kept
    return _Choice(leaders, None, [], len(leaders))


def recommend(
    standings: Sequence[Standing], course: TournamentCourse, *, valid: bool, timed: bool = True
) -> tuple[str, str | None]:
    """Return which policy to use, in words, and its name; None if that is not decided.

    Nothing is decided unless the rates of the run are ``valid``.
    """
    notes = _notes(standings, course)
    if len(standings) < 2:
        return " ".join(["Not decided: there is nothing to compare.", *notes]), None
    if not valid:
        return "Not decided: the rates of the run are INVALID.", None
    choice = _choose(standings, timed)
    if choice.criterion is None:
        names = ", ".join(one.policy for one in choice.best[:MAX_NAMED])
        more = len(choice.best) - MAX_NAMED
        names += f", and {more} more" if more > 0 else ""
        says = f"Not decided between {names}: their intervals overlap. A longer stage_s may distinguish them."
        return " ".join([says, *notes]), None
    (best,), criterion = choice.best, choice.criterion
    next_best = choice.lost[0]
    equal = " and ".join(one.name for one in CRITERIA[: CRITERIA.index(criterion)])
    among = f"of the {choice.compared} policies whose {equal} can't be distinguished, " if equal else ""
    says = (
        f"Use {best.policy}: {among}it has {criterion.best}, {_shown(criterion.estimate(best))}. "
        f"The next is {next_best.policy}, with {_shown(criterion.estimate(next_best))}."
    )
    return " ".join([says, *notes]), best.policy


def _notes(standings: Sequence[Standing], course: TournamentCourse) -> list[str]:
    """Return what qualifies the result."""
    notes = [f"Only {course.shortfall}."] if course.shortfall else []
    before = [one.policy for one in standings if one.recovered is False]
    if before:
        notes.append(f"The limits had not refilled before {', '.join(before[:MAX_NAMED])}.")
    lacking = [one.policy for one in standings if one.no_free_user]
    if lacking:
        notes.append(f"Calls of {', '.join(lacking[:MAX_NAMED])} found no idle user: raise users.")
    return notes


def _shown(estimate: IntervalEstimate | None) -> str:
    if estimate is None:
        return "too few calls to say"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} ({estimate.low:.3g} to {estimate.high:.3g})"
