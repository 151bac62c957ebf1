"""Lost answers: either way is possible where neither contradicts anything, and then neither is left out."""

from __future__ import annotations

import numpy as np
import pytest

from bltybench.limits.fit.grid import Grid
from bltybench.limits.fit.missing import enumerate_assignments
from bltybench.limits.fit.occupancy import ChargeBounds
from bltybench.limits.fit.scoring import score
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.fit.thresholds import SCORING
from bltybench.limits.observations.observation import ACCEPTED, REFUSED, UNKNOWN, Observation, Observations

KINDS = {"a": True, "r": False, "?": None}


def played(*bursts: tuple[float, str], step_s: float = 0.02) -> list[Observation]:
    """One after the other: let in (a), refused (r), lost (?)."""
    return [
        Observation(at_s + i * step_s, at_s + (i + 0.8) * step_s, KINDS[kind])
        for at_s, kinds in bursts
        for i, kind in enumerate(kinds)
    ]


TWO_DRAINS = ((8.0, "rr"), (10.1, 9 * "a" + "?rr"), (15.0, "rr"), (19.8, "rr"), (20.5, "aaa"))
"""After a first: each ends with a refusal, the second with a lost answer just before."""


def limits_of(first: str) -> set[tuple[int, int]]:
    verdict = fit_limiter(played((1.0, "aaaa"), (5.0, first), *TWO_DRAINS))
    assert "fixed_window" in verdict.families
    return {each.limit_range for each in verdict.consistent if each.family == "fixed_window"}


def test_all_may_have_gone_otherwise_though_none_may_alone() -> None:
    """Nine were let in twice, and after each nine one was lost: both were refused, or both let in."""
    assert limits_of("aaaaa?rr") == {(9, 10)}


def test_what_one_reading_contradicts_is_not_left_open() -> None:
    assert limits_of("aaaaaarr") == {(10, 10)}
    assert limits_of("aa?aaarr") == {(10, 10)}


def test_what_is_open_is_no_doubt() -> None:
    """Three were let in and one lost: limits of three and of four explain all."""
    counted = ChargeBounds(Observations(played((1.0, "aaa?rr"))), count_refused=False)
    found = score("fixed_window", counted, Grid(np.array([10.0]), np.array([0.5]), np.array([0.0])))
    assert (int(found.cost[0]), int(found.limit_min[0]), int(found.limit_max[0])) == (0, 3, 4)


def test_few_lost_answers_are_read_in_every_way() -> None:
    unread, own = (
        np.array([ACCEPTED, UNKNOWN, REFUSED, UNKNOWN]),
        np.array([ACCEPTED, REFUSED, REFUSED, REFUSED]),
    )
    found = {tuple(each.tolist()) for each in enumerate_assignments(unread, own)}
    assert found == {
        (ACCEPTED, one, REFUSED, two) for one in (ACCEPTED, REFUSED) for two in (ACCEPTED, REFUSED)
    }
    many = np.full(10, UNKNOWN)
    assert len(enumerate_assignments(many, np.full(10, REFUSED))) == 22


@pytest.mark.parametrize(
    ("family", "count_refused", "read", "misread"),
    [
        ("fixed_window", False, ACCEPTED, 0),
        ("fixed_window", False, REFUSED, 1),
        ("sliding_log", True, ACCEPTED, 0),
        ("sliding_log", True, REFUSED, 1),
    ],
)
def test_a_lost_answer_went_as_the_model_decides(
    family: str, count_refused: bool, read: int, misread: int
) -> None:
    """Where it had room it let the request in, and where refusals count it has charged it in any case."""
    sights = Observations(played((1.0, "aa?rr") if count_refused else (1.0, "aa?aarr")))
    counted = ChargeBounds(sights, count_refused=count_refused)
    charged = counted.charges.copy()
    charged[sights.codes == UNKNOWN] = read
    counted.charge(charged)
    counted.select(counted.every)
    found = score(family, counted, Grid(np.array([10.0]), np.array([0.5]), np.array([0.0])))
    assert int(found.cost[0]) == SCORING.misread_cost * misread
    assert int(found.contradictions[0]) == 0
