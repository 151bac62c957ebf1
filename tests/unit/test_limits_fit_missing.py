"""Lost responses: if both outcomes fit, the result must allow for both."""

from __future__ import annotations

import numpy as np
import pytest

from bltybench.limits.fit.charges import ChargeBounds, enumerate_assignments
from bltybench.limits.fit.grid import plain_grid
from bltybench.limits.fit.scoring import Scored, score
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.fit.thresholds import SCORING
from bltybench.limits.observations.observation import ACCEPTED, REFUSED, UNKNOWN, Observation, Observations

OUTCOMES = {"a": True, "r": False, "?": None}


def observed(*bursts: tuple[float, str], step_s: float = 0.02) -> list[Observation]:
    """Sequential requests from a start time on: accepted (a), refused (r), or lost (?)."""
    return [
        Observation(at_s + i * step_s, at_s + (i + 0.8) * step_s, OUTCOMES[outcome])
        for at_s, outcomes in bursts
        for i, outcome in enumerate(outcomes)
    ]


def score_one(family: str, bounds: ChargeBounds) -> Scored:
    return score(family, bounds, plain_grid(np.array([10.0]), np.array([0.5])))


TWO_DRAINS = ((8.0, "rr"), (10.1, 9 * "a" + "?rr"), (15.0, "rr"), (19.8, "rr"), (20.5, "aaa"))
"""What follows a first drain. The second one loses a response directly before its refusal."""


def limit_ranges(first_drain: str) -> set[tuple[int, int]]:
    verdict = fit_limiter(observed((1.0, "aaaa"), (5.0, first_drain), *TWO_DRAINS))
    assert "fixed_window" in verdict.families
    return {fit.limit_range for fit in verdict.consistent if fit.family == "fixed_window"}


def test_two_lost_responses_can_change_together_though_neither_can_alone() -> None:
    """Twice, nine are accepted and one is lost: both lost ones were refused, or both were accepted."""
    assert limit_ranges("aaaaa?rr") == {(9, 10)}


def test_an_outcome_that_contradicts_other_decisions_is_not_left_open() -> None:
    assert limit_ranges("aaaaaarr") == {(10, 10)}
    assert limit_ranges("aa?aaarr") == {(10, 10)}


def test_an_unknown_outcome_is_not_an_ambiguous_decision() -> None:
    """Three are accepted and one is lost, so limits of three and four fit at no cost."""
    found = score_one(
        "fixed_window", ChargeBounds(Observations(observed((1.0, "aaa?rr"))), count_refused=False)
    )
    assert (int(found.cost[0]), int(found.limit_min[0]), int(found.limit_max[0])) == (0, 3, 4)


def test_few_lost_responses_get_every_combination_of_outcomes() -> None:
    unassigned = np.array([ACCEPTED, UNKNOWN, REFUSED, UNKNOWN])
    own = np.array([ACCEPTED, REFUSED, REFUSED, REFUSED])
    found = {tuple(charges.tolist()) for charges in enumerate_assignments(unassigned, own)}
    assert found == {
        (ACCEPTED, first, REFUSED, second) for first in (ACCEPTED, REFUSED) for second in (ACCEPTED, REFUSED)
    }
    assert len(enumerate_assignments(np.full(10, UNKNOWN), np.full(10, REFUSED))) == 22


@pytest.mark.parametrize(
    ("family", "count_refused", "assumed", "misread"),
    [
        ("fixed_window", False, ACCEPTED, 0),
        ("fixed_window", False, REFUSED, 1),
        ("sliding_log", True, ACCEPTED, 0),
        ("sliding_log", True, REFUSED, 1),
    ],
)
def test_an_outcome_that_the_model_decides_otherwise_costs_a_misreading(
    family: str, count_refused: bool, assumed: int, misread: int
) -> None:
    """With room left the model accepts the lost request, and if refused requests count it charges any
    request."""
    observations = Observations(observed((1.0, "aa?rr") if count_refused else (1.0, "aa?aarr")))
    bounds = ChargeBounds(observations, count_refused=count_refused)
    charges = bounds.charges.copy()
    charges[observations.codes == UNKNOWN] = assumed
    bounds.charge(charges)
    bounds.select(bounds.every)
    found = score_one(family, bounds)
    assert int(found.cost[0]) == SCORING.misread_cost * misread
    assert int(found.contradictions[0]) == 0
