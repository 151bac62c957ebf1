"""The capacity search on synthetic servers: its result, its confidence, and that it ends."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bltybench.scenario.trials.bracket import Bracket
from bltybench.scenario.trials.capacity import CapacitySearch, TrialAttempt, cannot_pass, measure


def search(
    capacity: float, start: float, maximum: float, *, whole: bool = False, precision: float = 0.05
) -> Bracket:
    """Search a server whose capacity is exactly ``capacity``."""
    return play(Bracket(start, maximum, precision=precision, confirm=2, whole=whole), capacity)[0]


def play(bracket: Bracket, capacity: float) -> tuple[Bracket, list[float]]:
    """Search to the end. Return the bracket and the loads tried."""
    tried: list[float] = []
    while not bracket.done:
        tried.append(bracket.level)
        assert len(tried) < 100, "the search did not end"
        bracket.add(bracket.level <= capacity)
    return bracket, tried


@settings(deadline=None)
@given(st.floats(5, 50_000), st.floats(1, 10_000), st.floats(0.01, 0.2))
def test_small_interval_contains_the_capacity(capacity: float, start: float, precision: float) -> None:
    found = search(capacity, start, 1e5, precision=precision)
    if capacity < start / 64:
        assert found.holds is None
        return
    assert found.holds is not None
    assert found.fails is not None
    assert found.holds <= capacity < found.fails
    assert found.fails <= found.holds * (1 + precision) * 1.0001


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 60))
def test_number_of_users_is_found_exactly(capacity: int, start: int) -> None:
    found = search(capacity, start, 1000, whole=True, precision=0.001)
    assert (found.holds, found.fails) == (capacity, capacity + 1)


def test_missing_end_if_every_load_holds_or_none_does() -> None:
    found = search(1e9, 10, 100)
    assert (found.holds, found.fails) == (100, None)
    found = search(0, 64, 100)
    assert (found.holds, found.fails) == (None, 1)


@pytest.mark.parametrize("step", [1.05, 1.5, 2.0])
def test_occasional_wrong_trials_are_outvoted(step: float) -> None:
    right = trials = 0
    for seed in range(200):
        rng = Random(seed)
        bracket = Bracket(60, 1e4, precision=0.05, confirm=3, whole=False, step=step)
        while not bracket.done:
            bracket.add((bracket.level <= 700) != (rng.random() < 0.05))
            trials += 1
        low, high = bracket.holds or 0, bracket.fails or math.inf
        right += low * 0.95 <= 700 <= high * 1.05
    # Each of the two ends is wrong if two of its trials are wrong before three are right: once in 140 times.
    assert right >= 195
    assert trials / 200 < 22


def test_search_that_starts_near_the_capacity_is_short() -> None:
    bracket = Bracket(57, 240, precision=0.05, confirm=2, whole=False, step=1.1)
    middle = math.sqrt(57 * 57 * 1.1)
    found, tried = play(bracket, 60)
    assert tried == pytest.approx([57, 62.7, middle, 62.7, middle])
    assert (found.holds, found.fails) == pytest.approx((middle, 62.7))


def test_steps_grow_until_they_double() -> None:
    _, tried = play(Bracket(100, 1500, precision=0.05, confirm=1, whole=False, step=1.1), 1e9)
    factors = [after / before for before, after in pairwise(tried)]
    assert factors == pytest.approx([1.1, 1.21, 1.4641, 2.0, 2.0, 1500 / (100 * 1.1 * 1.21 * 1.4641 * 4)])
    _, tried = play(Bracket(100, 1500, precision=0.05, confirm=1, whole=False, step=1.1), 0)
    assert tried[:4] == pytest.approx([100, 100 / 1.1, 100 / 1.1**3, 100 / 1.1**7])
    assert tried[-1] == 100 / 64


def test_outvoted_end_reopens_the_interval() -> None:
    bracket = Bracket(100, 1000, precision=0.5, confirm=2, whole=False)
    for held in (True, False, False):  # 100 holds, 200 and 141 fail, so 141 has to be confirmed
        bracket.add(held)
    assert bracket.holds == 100
    assert bracket.fails == pytest.approx(141.42, rel=1e-4)
    bracket.add(True)
    assert bracket.level == pytest.approx(141.42, rel=1e-4)
    bracket.add(True)  # it is outvoted
    assert bracket.holds == pytest.approx(141.42, rel=1e-4)
    assert bracket.fails == 200
    assert not bracket.done


def test_latency_that_rises_with_load_gives_the_load_at_its_bound() -> None:
    # TTFT p95 of a queue, 100 ms / (1 − load/1000), crosses 400 ms at 750 per minute.
    bracket = Bracket(100, 2000, precision=0.02, confirm=2, whole=False)
    while not bracket.done:
        rate = bracket.level
        bracket.add(rate < 1000 and 100 / (1 - rate / 1000) <= 400)
    assert bracket.holds == pytest.approx(750, rel=0.02)


def attempts_of(count: int, outcome: str = "ok", **fields: float) -> list[TrialAttempt]:
    return [TrialAttempt(call_id=f"{outcome}{n}", outcome=outcome, **fields) for n in range(count)]  # type: ignore[arg-type] # from the tests below


def test_metrics_of_a_trial() -> None:
    mixed = [*attempts_of(8, "ok"), *attempts_of(1, "refused"), *attempts_of(1, "error")]
    assert measure(mixed, "refused.share") == measure(mixed, "errors.share") == 0.1
    assert measure(mixed, "calls.ok_share") == 0.8
    assert measure([], "refused.share") is None
    assert measure([], "calls.ok_share") is None
    rising = [TrialAttempt(f"c{n}", "ok", ttft=float(n)) for n in range(1, 101)]
    assert measure(rising, "ttft.p50") == 50
    assert measure(rising, "ttft.p95") == 95
    assert measure(rising, "ttft.max") == 100
    assert measure(rising[:19], "ttft.p95") is None
    assert measure(rising[:20], "ttft.p95") == 19
    assert measure(rising, "latency.p50") is None


def fails_early(
    objective: dict[str, str], attempts: list[TrialAttempt], calls: int, max_attempts: int = 1
) -> bool:
    checks = CapacitySearch.model_validate(FIELDS | {"objectives": objective}).checks
    return cannot_pass(attempts, checks, calls, max_attempts)


def test_trial_is_cut_when_it_cannot_pass_any_more() -> None:
    share = {"refused.share": "<= 1%"}
    assert not fails_early(share, attempts_of(2, "refused"), 200)
    assert fails_early(share, attempts_of(3, "refused"), 200)
    # With retries, there can be more attempts to divide by.
    assert not fails_early(share, attempts_of(3, "refused"), 200, max_attempts=3)
    assert fails_early(share, attempts_of(7, "refused"), 200, max_attempts=3)
    assert not fails_early({"errors.share": "<= 1%"}, attempts_of(9, "refused"), 200)
    late = {"ttft.p95": "< 800 ms"}
    assert not fails_early(late, attempts_of(5, ttft=800.0), 100)
    assert fails_early(late, attempts_of(6, ttft=800.0), 100)
    assert not fails_early(late, attempts_of(90, ttft=799.0), 100)
    # Lower bounds can still be met until the end.
    assert not fails_early({"calls.ok_share": ">= 99%"}, attempts_of(50, "error"), 100)
    assert not fails_early({"refused.share": ">= 50%"}, attempts_of(1), 100)


@given(
    st.lists(
        st.tuples(st.sampled_from(["ok", "refused", "error"]), st.floats(1, 2000)), min_size=1, max_size=80
    ),
    st.integers(0, 80),
    st.sampled_from([{"refused.share": "<= 10%"}, {"errors.share": "< 5%"}, {"ttft.p90": "<= 1 s"}]),
)
def test_trial_that_was_cut_would_have_failed(
    outcomes: list[tuple[str, float]], cut: int, objective: dict[str, str]
) -> None:
    whole = [
        TrialAttempt(str(n), outcome, ttft=ttft if outcome == "ok" else None)  # type: ignore[arg-type] # of three strings
        for n, (outcome, ttft) in enumerate(outcomes)
    ]
    if fails_early(objective, whole[:cut], len(whole)):
        (check,) = CapacitySearch.model_validate(FIELDS | {"objectives": objective}).checks
        value = measure(whole, check.metric)
        assert value is None or not check.holds(value)


FIELDS = {
    "kind": "search",
    "start": 60,
    "max": 600,
    "stage_s": 10,
    "requests": 1000,
    "objectives": {"ttft.p95": "< 800 ms"},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max": 30}, "max must not be below start"),
        ({"objectives": {}}, "at least 1 item"),
        ({"objectives": {"ttft.p59": "< 1 s"}}, "objectives: ttft.p59: no such metric"),
        ({"objectives": {"ttft.p95": "fast"}}, "objectives: ttft.p95: must be a comparison"),
        ({"objectives": {"accepted.rpm": ">= 5"}}, "accepted.rpm is not measured in a single trial"),
        ({"load": "users", "start": 1.5}, "so they must be whole"),
        ({"requests": 0}, "greater than 0"),
        ({"precision": 0}, "greater than or equal to 0.001"),
        ({"step": 1}, "greater than or equal to 1.01"),
    ],
)
def test_invalid_search_is_refused(change: dict[str, object], message: str) -> None:
    CapacitySearch.model_validate(FIELDS)
    with pytest.raises(ValidationError, match=message):
        CapacitySearch.model_validate(FIELDS | change)
