"""Properties of the limiter models, for every family and for each one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltybench.limits.models import FixedWindow, Model, SlidingCounter, SlidingLog, TokenBucket
from bltybench.limits.models.base import shortest_wait
from bltybench.limits.models.families import FAMILIES

# A slow machine must not fail a test.
untimed = settings(deadline=None)

Maker = Callable[[int, float], Model]

LIMITS = st.integers(1, 12)
PERIODS = st.sampled_from([0.1, 0.7, 1.0, 3.0, 60.0])
STARTS = st.sampled_from([0.0, 0.3, 1_234.567, 1_795_358_347.123])
# (gap in periods, cost): bursts, trickles, and long idle intervals.
SENDS = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(0, 2.5)), st.sampled_from([0.0, 1.0, 1.0, 2.0, 5.0])),
    min_size=1,
    max_size=60,
)

every_family = pytest.mark.parametrize("make", [family.model for family in FAMILIES.values()], ids=FAMILIES)


def replay(
    model: Model, start_s: float, period_s: float, sends: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Send requests and return (time, cost) of the accepted ones."""
    t_s, accepted = start_s, []
    for gap, cost in sends:
        t_s += gap * period_s
        if model.decide(t_s, cost).accepted:
            accepted.append((t_s, cost))
    return accepted


def after(start_s: float, period_s: float, sends: list[tuple[float, float]]) -> float:
    """Return a time shortly after the last request."""
    return start_s + (sum(gap for gap, _ in sends) + 1e-3) * period_s


@every_family
@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS, sends=SENDS, cost=st.sampled_from([1.0, 2.0, 7.0]))
def test_retry_after_is_the_shortest_sufficient_wait(
    *, make: Maker, limit: int, period_s: float, start_s: float, sends: list[tuple[float, float]], cost: float
) -> None:
    model = make(limit, period_s)
    replay(model, start_s, period_s, sends)
    t_s = after(start_s, period_s, sends)
    decision = model.decide(t_s, cost)
    if decision.accepted:
        assert decision.retry_after_s is None
        return
    wait_s = decision.retry_after_s
    assert wait_s is not None
    if cost > limit:
        assert wait_s == math.inf
        return
    margin_s = max(1e-6 * period_s, 16 * math.ulp(t_s))
    if wait_s > 2 * margin_s:
        assert not model.peek(t_s + wait_s - margin_s, cost).accepted
    assert model.decide(t_s + wait_s, cost).accepted


@every_family
@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS, sends=SENDS)
def test_remaining_is_the_largest_cost_that_fits(
    make: Maker, limit: int, period_s: float, start_s: float, sends: list[tuple[float, float]]
) -> None:
    model = make(limit, period_s)
    replay(model, start_s, period_s, sends)
    t_s = after(start_s, period_s, sends)
    remaining = model.peek(t_s, 0.0).remaining
    assert 0 <= remaining <= limit
    assert model.peek(t_s, max(0.0, remaining - 1e-4)).accepted
    assert not model.peek(t_s, math.floor(remaining) + 1.0).accepted


@every_family
@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS)
def test_remaining_counts_down_to_the_first_refusal(
    make: Maker, limit: int, period_s: float, start_s: float
) -> None:
    model = make(limit, period_s)
    # At an edge, so that no window ends during the test.
    t_s = (math.floor(start_s / period_s) + 1) * period_s
    remaining = [model.decide(t_s).remaining for _ in range(limit)]
    assert remaining == pytest.approx([limit - 1 - sent for sent in range(limit)], abs=1e-4)
    assert not model.decide(t_s).accepted


@every_family
@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS, sends=SENDS)
def test_the_full_limit_fits_after_two_idle_periods(
    make: Maker, limit: int, period_s: float, start_s: float, sends: list[tuple[float, float]]
) -> None:
    model = make(limit, period_s)
    replay(model, start_s, period_s, sends)
    t_s = start_s + (sum(gap for gap, _ in sends) + 2.01) * period_s
    assert model.decide(t_s, float(limit)).accepted


@every_family
@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS, sends=SENDS, cost=st.integers(1, 12))
def test_a_full_refund_undoes_a_charge(
    *, make: Maker, limit: int, period_s: float, start_s: float, sends: list[tuple[float, float]], cost: float
) -> None:
    charged, untouched = make(limit, period_s), make(limit, period_s)
    replay(charged, start_s, period_s, sends)
    replay(untouched, start_s, period_s, sends)
    t_s = after(start_s, period_s, sends)
    charged.charge(t_s, cost)
    charged.refund(t_s, t_s, cost)
    assert charged.peek(t_s, 0.0).remaining == pytest.approx(untouched.peek(t_s, 0.0).remaining, abs=1e-3)


@every_family
@untimed
@given(limit=LIMITS, period_s=PERIODS)
def test_a_late_refund_does_not_exceed_the_limit(make: Maker, limit: int, period_s: float) -> None:
    model = make(limit, period_s)
    model.charge(0.0, 1.0)
    model.refund(5 * period_s, 0.0, 1.0)
    assert model.peek(5 * period_s, 0.0).remaining == limit


@every_family
@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS, sends=SENDS)
def test_refused_requests_do_not_change_later_decisions(
    make: Maker, limit: int, period_s: float, start_s: float, sends: list[tuple[float, float]]
) -> None:
    hammered, calm = make(limit, period_s), make(limit, period_s)
    accepted = []
    t_s = start_s
    for gap, cost in sends:
        t_s += gap * period_s
        if hammered.decide(t_s, cost).accepted:
            accepted.append((t_s, cost))
    assert all(calm.decide(at_s, cost).accepted for at_s, cost in accepted)


@every_family
@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS, sends=SENDS)
def test_taking_decides_and_waits_as_the_hooks_of_the_model(
    make: Maker, limit: int, period_s: float, start_s: float, sends: list[tuple[float, float]]
) -> None:
    # Some families have a faster way of their own.
    own, plain, t_s = make(limit, period_s), make(limit, period_s), start_s
    for gap, cost in sends:
        t_s += gap * period_s
        accepted = own.take(t_s, cost)
        assert accepted == Model.take(plain, t_s, cost)
        if not accepted:
            assert own.wait_s(t_s, cost) == Model.wait_s(plain, t_s, cost)
        assert own.remaining(t_s) == plain.remaining(t_s)


@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS, sends=SENDS)
def test_a_sliding_log_keeps_its_limit_in_every_span(
    limit: int, period_s: float, start_s: float, sends: list[tuple[float, float]]
) -> None:
    accepted = replay(SlidingLog(limit, period_s), start_s, period_s, sends)
    for from_s, _ in accepted:
        assert sum(cost for at_s, cost in accepted if from_s <= at_s < from_s + period_s) <= limit


@untimed
@given(limit=LIMITS, period_s=PERIODS, start_s=STARTS, sends=SENDS, phase=st.floats(0, 1))
def test_a_fixed_window_keeps_its_limit_between_edges(
    limit: int, period_s: float, start_s: float, sends: list[tuple[float, float]], phase: float
) -> None:
    model = FixedWindow(limit, period_s, phase_s=phase * period_s)
    accepted = replay(model, start_s, period_s, sends)
    for window in {model.window_of(at_s) for at_s, _ in accepted}:
        assert sum(cost for at_s, cost in accepted if model.window_of(at_s) == window) <= limit


@untimed
@given(limit=LIMITS, period_s=PERIODS, sends=SENDS)
def test_a_sliding_counter_keeps_its_limit_between_edges(
    limit: int, period_s: float, sends: list[tuple[float, float]]
) -> None:
    accepted = replay(SlidingCounter(limit, period_s), 0.0, period_s, sends)
    edges = FixedWindow(limit, period_s)
    for window in {edges.window_of(at_s) for at_s, _ in accepted}:
        assert sum(cost for at_s, cost in accepted if edges.window_of(at_s) == window) <= limit


@untimed
@given(limit=LIMITS, burst=st.integers(1, 12), period_s=PERIODS, start_s=STARTS, sends=SENDS)
def test_a_token_bucket_accepts_at_most_its_burst_plus_its_rate(
    limit: int, burst: int, period_s: float, start_s: float, sends: list[tuple[float, float]]
) -> None:
    accepted = replay(TokenBucket(limit, period_s, burst=burst), start_s, period_s, sends)
    for first, (from_s, _) in enumerate(accepted):
        total = 0.0
        for at_s, cost in accepted[first:]:
            total += cost
            assert total <= burst + (at_s - from_s) * limit / period_s + 1e-3


def test_a_fixed_window_accepts_twice_its_limit_around_an_edge() -> None:
    model = FixedWindow(3, 60.0)
    assert [model.decide(59.9).accepted for _ in range(4)] == [True, True, True, False]
    assert [model.decide(60.0).accepted for _ in range(4)] == [True, True, True, False]


def test_the_phase_of_a_fixed_window_moves_its_edge() -> None:
    model = FixedWindow(1, 60.0, phase_s=12.0)
    assert model.decide(70.0).accepted
    refused = model.decide(71.0)
    assert (refused.retry_after_s, refused.reset_s) == (1.0, 1.0)
    assert model.decide(72.0).accepted


def test_a_sliding_log_drops_entries_after_one_period() -> None:
    model = SlidingLog(2, 10.0)
    assert model.decide(0.0).accepted
    assert model.decide(4.0).accepted
    refused = model.decide(5.0)
    assert (refused.retry_after_s, refused.reset_s) == (5.0, 9.0)
    assert model.decide(10.0).accepted
    assert model.decide(10.0).retry_after_s == 4.0


def test_a_sliding_counter_trickles_after_the_window_ends() -> None:
    model = SlidingCounter(10, 10.0)
    assert all(model.decide(9.0).accepted for _ in range(10))
    # At 10 + s the estimate is floor(10 - s): nothing immediately, then one per second.
    assert model.decide(10.0).retry_after_s == pytest.approx(0.0, abs=1e-9)
    assert model.decide(10.5).accepted
    refused = model.decide(10.6)
    assert refused.retry_after_s == pytest.approx(0.4, abs=1e-9)
    assert model.decide(11.1).accepted


def test_a_token_bucket_with_a_burst_of_one_spaces_requests() -> None:
    model = TokenBucket(60, 60.0, burst=1)
    assert model.decide(0.0).accepted
    refused = model.decide(0.25)
    assert (refused.retry_after_s, refused.reset_s) == (0.75, 0.75)
    assert refused.remaining == 0.25
    assert model.decide(1.0).accepted


def test_a_cost_above_the_burst_never_fits_a_token_bucket() -> None:
    assert TokenBucket(60, 60.0, burst=5).decide(0.0, 6.0).retry_after_s == math.inf


@every_family
def test_time_must_not_go_back(make: Maker) -> None:
    model = make(5, 1.0)
    model.decide(10.0)
    model.decide(10.0)
    with pytest.raises(ValueError, match="time must not go back"):
        model.decide(9.999)


@every_family
@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf])
def test_a_negative_or_infinite_cost_is_an_error(make: Maker, cost: float) -> None:
    with pytest.raises(ValueError, match="cost"):
        make(5, 1.0).decide(0.0, cost)


@every_family
@pytest.mark.parametrize(("limit", "period_s"), [(0, 1.0), (1, 0.0), (1, math.inf), (1, math.nan)])
def test_a_limit_or_period_that_is_not_positive_is_an_error(make: Maker, limit: int, period_s: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        make(limit, period_s)


def test_shortest_wait_corrects_rounding() -> None:
    free_at = 1_795_358_400.0
    t_s = math.nextafter(free_at, 0) - 1e-7
    wait_s = shortest_wait(t_s, 0.0, lambda at_s: at_s >= free_at)
    assert t_s + wait_s >= free_at
    assert wait_s < 5e-6
