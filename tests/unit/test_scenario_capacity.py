"""The search on synthetic servers: what it finds, how sure it is, and that it ends."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bltybench.scenario.capacity import Bracket, Search, Seen, measure


def search(capacity: float, start: float, most: float, *, whole: bool = False, **fields: float) -> Bracket:
    """Search a server that holds exactly up to ``capacity``."""
    bracket = Bracket(start, most, precision=fields.get("precision", 0.05), confirm=2, whole=whole)
    for _ in range(200):
        if bracket.done:
            return bracket
        bracket.add(bracket.level <= capacity)
    raise AssertionError("the search did not end")


@settings(deadline=None)
@given(st.floats(5, 50_000), st.floats(1, 10_000), st.floats(0.01, 0.2))
def test_the_capacity_lies_in_the_interval_and_the_interval_is_small(
    capacity: float, start: float, precision: float
) -> None:
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
def test_users_are_whole_and_found_to_the_precision(capacity: int, start: int) -> None:
    found = search(capacity, start, 1000, whole=True, precision=0.001)
    assert (found.holds, found.fails) == (capacity, capacity + 1)


def test_a_server_that_holds_everything_and_one_that_holds_nothing() -> None:
    found = search(1e9, 10, 100)
    assert (found.holds, found.fails) == (100, None)
    found = search(0, 64, 100)
    assert (found.holds, found.fails) == (None, 1)


def test_a_trial_that_lies_now_and_then_is_outvoted() -> None:
    right = 0
    for seed in range(200):
        rng = Random(seed)
        bracket = Bracket(60, 1e4, precision=0.05, confirm=3, whole=False)
        while not bracket.done:
            bracket.add((bracket.level <= 700) != (rng.random() < 0.05))
        low, high = bracket.holds or 0, bracket.fails or math.inf
        right += low * 0.95 <= 700 <= high * 1.05
    # One vote of 0.05 is outvoted but for 0.12% of levels, of which there are about ten.
    assert right >= 190


def test_a_server_whose_latency_rises_with_load() -> None:
    # TTFT p95 of a queue, 100 ms / (1 − load/1000), crosses 400 ms at 750 a minute.
    bracket = Bracket(100, 2000, precision=0.02, confirm=2, whole=False)
    while not bracket.done:
        rate = bracket.level
        bracket.add(rate < 1000 and 100 / (1 - rate / 1000) <= 400)
    assert bracket.holds == pytest.approx(750, rel=0.02)


def seen(count: int, outcome: str = "ok", **fields: float) -> list[Seen]:
    return [Seen(call_id=f"{outcome}{n}", outcome=outcome, **fields) for n in range(count)]  # type: ignore[arg-type] # from the tests below


def test_what_is_measured_of_a_trial() -> None:
    mixed = [*seen(8, "ok"), *seen(1, "refused"), *seen(1, "error")]
    assert measure(mixed, "refused.share") == measure(mixed, "errors.share") == 0.1
    assert measure(mixed, "calls.ok_share") == 0.8
    assert measure([], "refused.share") is None
    assert measure([], "calls.ok_share") is None
    rising = [Seen(f"c{n}", "ok", ttft=float(n)) for n in range(1, 101)]
    assert measure(rising, "ttft.p50") == 50
    assert measure(rising, "ttft.p95") == 95
    assert measure(rising, "ttft.max") == 100
    assert measure(rising[:19], "ttft.p95") is None
    assert measure(rising[:20], "ttft.p95") == 19
    assert measure(rising, "latency.p50") is None


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
        ({"objectives": {"accepted.rpm": ">= 5"}}, "accepted.rpm is not known of a single trial"),
        ({"load": "users", "start": 1.5}, "they must be whole"),
        ({"requests": 0}, "greater than 0"),
        ({"precision": 0}, "greater than or equal to 0.001"),
    ],
)
def test_a_search_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    Search.model_validate(FIELDS)
    with pytest.raises(ValidationError, match=message):
        Search.model_validate(FIELDS | change)
