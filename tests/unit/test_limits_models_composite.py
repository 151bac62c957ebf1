"""Several limiters at once, and the concurrency limit."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltybench.limits.models import Admission, AllOf, Concurrency, FixedWindow, SlidingLog, TokenBucket

# A slow machine must not fail a test.
untimed = settings(deadline=None)


def decide(limiters: AllOf, t_s: float) -> Admission:
    """Return the refusal with the longest wait, or an acceptance."""
    decisions = limiters.decide_each(t_s, [1.0] * len(limiters.models))
    return max(decisions, key=lambda decision: (not decision.accepted, decision.retry_after_s or 0.0))


def test_a_request_that_one_model_refuses_is_charged_to_none() -> None:
    requests, tokens = FixedWindow(10, 60.0), FixedWindow(100, 60.0)
    both = AllOf([requests, tokens])
    assert all(decision.accepted for decision in both.decide_each(0.0, [1, 80]))
    first, second = both.decide_each(1.0, [1, 30])
    assert (first.accepted, second.accepted) == (True, False)
    assert requests.remaining(1.0) == 9
    assert tokens.remaining(1.0) == 20


def test_each_model_reports_its_own_wait() -> None:
    both = AllOf([FixedWindow(2, 60.0), TokenBucket(60, 60.0, burst=1)])
    assert decide(both, 0.0).accepted
    assert decide(both, 0.5).retry_after_s == 0.5
    assert decide(both, 1.0).accepted
    assert decide(both, 1.5).retry_after_s == 58.5


@untimed
@given(
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=40),
    limits=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
)
def test_the_longest_wait_is_the_shortest_sufficient_one(
    gaps: list[float], limits: tuple[int, int, int]
) -> None:
    every = AllOf([FixedWindow(limits[0], 7.0), SlidingLog(limits[1], 5.0), TokenBucket(limits[2], 3.0)])
    t_s = 0.0
    for gap in gaps:
        t_s += gap
        decision = decide(every, t_s)
        if not decision.accepted:
            assert decision.retry_after_s is not None
            assert math.isfinite(decision.retry_after_s)
            if decision.retry_after_s > 2e-6:
                assert not decide(every, t_s + decision.retry_after_s - 1e-6).accepted
            t_s += decision.retry_after_s
            assert decide(every, t_s).accepted


def test_no_models_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        AllOf([])


def test_concurrency_accepts_as_many_requests_as_there_are_slots() -> None:
    slots = Concurrency(2)
    assert [slots.acquire().accepted for _ in range(3)] == [True, True, False]
    assert slots.acquire().retry_after_s is None
    slots.release()
    assert slots.acquire().remaining == 0


def test_releasing_a_slot_twice_is_an_error() -> None:
    slots = Concurrency(1)
    slots.acquire()
    slots.release()
    with pytest.raises(RuntimeError, match="more often"):
        slots.release()


def test_waits_without_admissions_are_the_same() -> None:
    def pair() -> AllOf:
        return AllOf([FixedWindow(3, 10.0, count_refused=True), SlidingLog(40, 15.0)])

    rng, slow, fast = Random(1), pair(), pair()
    for t_s in sorted(rng.uniform(0, 200) for _ in range(300)):
        costs = (1.0, float(rng.randrange(1, 45)))
        decisions = slow.decide_each(t_s, costs)
        waits_s = [None if one.accepted else one.retry_after_s for one in decisions]
        assert fast.take_each(t_s, costs) == waits_s
