"""The knee, stages, and retries, compared with results computed by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from support_runs import S, attempt, frame, scenario

from bltybench.metrics.capacity import capacity
from bltybench.metrics.frame import calls_frame
from bltybench.metrics.goodput import good_calls
from bltybench.metrics.retries import retries
from bltybench.metrics.stages import COLUMNS, by_stage
from bltybench.runs.attempt import Outcome
from bltybench.scenario.workload import Objectives


def stages(*loads: tuple[float, float], users: bool = False) -> pd.DataFrame:
    """Make stages from pairs of load (offered per minute, or users) and accepted per minute."""
    rows = [
        {
            "stage": str(load),
            "begin_s": place,
            "offered_per_min": accepted if users else load,
            "users": load if users else None,
            "accepted_per_min": accepted,
            "refused_share": 0.0,
        }
        for place, (load, accepted) in enumerate(loads)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"users": "Int64"})


@pytest.mark.parametrize(
    ("loads", "knee", "beyond"),
    [
        ([(30, 30), (60, 60), (90, 61), (120, 60)], 60, 90),
        ([(30, 30), (60, 58)], 60, None),
        ([(30, 10), (60, 60)], None, 30),
        # A search repeats loads, in any order.
        ([(60, 60), (120, 61), (90, 90), (90.1, 80), (60, 60)], 60, 90.05),
    ],
)
def test_knee_is_the_highest_sustained_load(
    loads: list[tuple[float, float]], knee: float | None, beyond: float | None
) -> None:
    found = capacity(stages(*loads))
    assert found is not None
    assert found.unit == "rate"
    assert [found.knee, found.beyond] == pytest.approx([knee, beyond])
    assert found.points["load"].is_monotonic_increasing
    assert found.points["ideal_per_min"].tolist() == found.points["load"].tolist()


def test_ideal_rate_of_users_is_proportional_to_that_of_the_fewest() -> None:
    found = capacity(stages((2, 20), (4, 39), (8, 70), (16, 75), users=True))
    assert found is not None
    assert (found.unit, found.knee, found.beyond) == ("users", 8, 16)
    assert found.points["ideal_per_min"].tolist() == [20, 40, 80, 160]


def test_single_load_has_no_capacity() -> None:
    assert capacity(stages()) is None
    assert capacity(stages((60, 60))) is None
    assert capacity(stages((60, 60), (60.1, 60))) is None


def call(number: int, stage: str, due_s: float, *, accepted_s: float | None) -> list[Any]:
    """Make a call that is accepted immediately, later (after a refusal), or never."""
    common = {"call_id": f"c{number}", "stage": stage, "due_ns": int(due_s * S)}
    refused = attempt(
        **common, sent_ns=int(due_s * S), end_ns=int(due_s * S) + 1, outcome=Outcome.RATE_LIMITED, status=429,
        waited_s=None if accepted_s is None else accepted_s - due_s,
    )  # fmt: skip
    if accepted_s is None:
        return [refused]
    if accepted_s == due_s:
        return [attempt(**common, sent_ns=int(due_s * S))]
    return [
        refused,
        attempt(**common | {"due_ns": int(accepted_s * S)}, sent_ns=int(accepted_s * S), attempt=1),
    ]


def test_accepted_rate_counts_only_acceptances_during_the_stage() -> None:
    made = [item for i in range(10) for item in call(i, "low", i, accepted_s=i)]
    made += [item for i in range(10) for item in call(10 + i, "high", 10 + i / 2, accepted_s=10 + i / 2)]
    made += [item for i in range(10) for item in call(20 + i, "high", 15 + i / 2, accepted_s=21)]
    attempts = frame(*made)
    calls = calls_frame(attempts)
    stairs = scenario(duration_s=20.0, arrivals={"kind": "stairs", "rates_per_min": [60, 120]})
    rows = by_stage(attempts, calls, good_calls(attempts, calls, Objectives()), stairs)
    assert rows["offered_per_min"].tolist() == [60, 120]
    assert rows["accepted_per_min"].tolist() == [60, 60]
    assert rows["accepted"].tolist() == [10, 20]
    assert rows[["begin_s", "end_s"]].to_numpy().tolist() == [[0, 10], [10, 20]]


def test_trial_cut_short_has_the_rate_of_its_calls() -> None:
    whole = [item for i in range(10) for item in call(i, "trial 1: 60/min", i, accepted_s=i)]
    cut = [item for i in range(4) for item in call(10 + i, "trial 2: 120/min", 20 + i / 2, accepted_s=None)]
    attempts = frame(*whole, *cut)
    calls = calls_frame(attempts)
    search = {
        "kind": "search", "start": 60, "max": 120, "stage_s": 10.0, "requests": 100,
        "objectives": {"refused.share": "<= 5%"},
    }  # fmt: skip
    rows = by_stage(attempts, calls, good_calls(attempts, calls, Objectives()), scenario(arrivals=search))
    assert rows["offered_per_min"].tolist() == [60, 120]
    assert rows["accepted_per_min"].tolist() == [60, 0]


def test_retries_are_summarized_by_number_of_attempts() -> None:
    made = [*call(1, "s", 0, accepted_s=0), *call(2, "s", 1, accepted_s=4), *call(3, "s", 2, accepted_s=None)]
    found = retries(calls_frame(frame(*made)))
    assert (found.calls, found.attempts, found.retried, found.recovered, found.gave_up) == (3, 4, 1, 1, 1)
    assert found.attempts_per_call == pytest.approx(4 / 3)
    assert found.waited_s == 3.0
    rows = found.by_attempts[["attempts", "calls", "ok"]].to_numpy().tolist()
    assert rows == [["1", 2, 1], ["2", 1, 1]]
    assert retries(calls_frame(frame())).attempts_per_call is None
