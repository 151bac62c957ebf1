"""The models compared with independent implementations and recurrences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from bltybench.limits.models import (
    FirstHitWindow,
    IntervalRefill,
    LeakyQueue,
    Model,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
    WholeTokenBucket,
)

untimed = settings(deadline=None)

PERIOD_S = 4
LIMITS = st.integers(1, 9)
# Gaps in sixteenths of a second, which floating point holds exactly.
GAPS = st.lists(st.one_of(st.just(0), st.integers(0, 8), st.integers(0, 12 * 16)), min_size=1, max_size=80)


class Clock(SimpleNamespace):
    """Replacement of the module ``time`` in the package ``limits``."""

    now_s: float

    def time(self) -> float:
        return self.now_s


@contextmanager
def patched_clock() -> Iterator[Clock]:
    clock = Clock(now_s=0.0)
    with (
        mock.patch("limits.storage.memory.time", clock),
        mock.patch("limits.strategies.time", clock),
        # A thread drops expired keys in real time. Without it they are dropped when they are read.
        mock.patch("limits.storage.memory.threading.Timer"),
    ):
        yield clock


PAIRS: dict[str, tuple[Callable[[MemoryStorage], RateLimiter], Callable[[int, float], Model]]] = {
    "fixed": (FixedWindowRateLimiter, FirstHitWindow),
    "moving": (MovingWindowRateLimiter, SlidingLog),
    "sliding counter": (SlidingWindowCounterRateLimiter, SlidingCounter),
}


def times(gaps: list[int]) -> list[float]:
    """Return times with these gaps, each with an offset of its own so that none lies on an edge."""
    at = 16_000 * 16
    sent_s: list[float] = []
    for gap in gaps:
        at += gap
        sent_s.append(at / 16 + (1 + len(sent_s)) / 2048)
    return sent_s


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@untimed
@given(limit=LIMITS, gaps=GAPS)
def test_the_models_decide_like_the_package_limits(
    pair: tuple[Callable[[MemoryStorage], RateLimiter], Callable[[int, float], Model]],
    limit: int,
    gaps: list[int],
) -> None:
    theirs, ours = pair
    item: RateLimitItem = RateLimitItemPerSecond(limit, PERIOD_S)
    model = ours(limit, PERIOD_S)
    with patched_clock() as clock:
        limiter = theirs(MemoryStorage())
        for at_s in times(gaps):
            clock.now_s = at_s
            assert limiter.hit(item, "key") == model.decide(at_s).accepted, at_s


@untimed
@given(limit=LIMITS, queue=st.integers(0, 6), gaps=GAPS)
def test_a_leaky_queue_decides_and_delays_like_nginx(limit: int, queue: int, gaps: list[int]) -> None:
    """nginx counts in 1/1000 requests: max(0, excess - rate * ms / 1000 + 1000), compared with burst."""
    model = LeakyQueue(limit, PERIOD_S, queue)
    rate = limit * 1000 / PERIOD_S
    excess, last_s = None, 0.0
    for at_s in times(gaps):
        decision = model.decide(at_s)
        found = 0.0 if excess is None else max(0.0, excess - rate * (at_s - last_s) + 1000)
        if abs(found - queue * 1000) < 1e-6 and found != queue * 1000:
            return  # rounding decides this close to the edge
        assert decision.accepted == (found <= queue * 1000)
        if decision.accepted:
            excess, last_s = found, at_s
            assert decision.delay_s == pytest.approx(found / rate, abs=1e-6)


@untimed
@given(limit=LIMITS, burst=st.integers(1, 6), gaps=GAPS)
def test_a_token_bucket_decides_like_gcra(limit: int, burst: int, gaps: list[int]) -> None:
    """ITU-T I.371: a cell at t conforms iff t >= TAT - tau; then TAT = max(t, TAT) + T."""
    model = TokenBucket(limit, PERIOD_S, burst)
    emission_s = PERIOD_S / limit
    tolerance_s = (burst - 1) * emission_s
    arrival_s = 0.0
    for at_s in times(gaps):
        early_s = arrival_s - tolerance_s - at_s
        if 0 < abs(early_s) < 1e-6:
            return  # rounding decides this close to the edge
        conforms = early_s <= 0
        assert model.decide(at_s).accepted == conforms
        if conforms:
            arrival_s = max(at_s, arrival_s) + emission_s


@untimed
@given(limit=LIMITS, gaps=GAPS)
def test_a_bucket_of_whole_tokens_decides_like_varnish(limit: int, gaps: list[int]) -> None:
    """vsthrottle adds (long)(delta / period * capacity), and notes the time of accepted requests only."""
    model = WholeTokenBucket(limit, PERIOD_S)
    tokens, last_s = limit, 0.0
    for at_s in times(gaps):
        gained = (at_s - last_s) / PERIOD_S * limit
        if abs(gained - round(gained)) < 1e-6:
            return  # rounding decides this close to the edge
        tokens = min(limit, tokens + int(gained))
        assert model.decide(at_s).accepted == (tokens > 0)
        if tokens > 0:
            tokens, last_s = tokens - 1, at_s


@untimed
@given(limit=LIMITS, gaps=GAPS)
def test_a_leaky_queue_without_delays_decides_like_a_token_bucket_with_one_more(
    limit: int, gaps: list[int]
) -> None:
    queue, bucket = LeakyQueue(limit, PERIOD_S, 3, delaying=False), TokenBucket(limit, PERIOD_S, 4)
    for at_s in times(gaps):
        if 0 < abs(bucket.peek(at_s).remaining - 1) < 1e-6:
            return  # rounding decides this close to the edge
        ours = queue.decide(at_s)
        assert ours.accepted == bucket.decide(at_s).accepted
        assert ours.delay_s == 0


def test_an_interval_refill_adds_tokens_at_its_ticks() -> None:
    model = IntervalRefill(10, 60.0, ticks=4)
    assert [model.decide(1.0).accepted for _ in range(11)] == [True] * 10 + [False]
    assert model.decide(14.9).retry_after_s == pytest.approx(0.1)
    assert [model.decide(15.0).accepted for _ in range(3)] == [True, True, False]
    # 0.5 tokens were left, so with the next 2.5 there are 3.
    assert [model.decide(30.0).accepted for _ in range(4)] == [True, True, True, False]


def test_a_first_hit_window_starts_at_its_first_request() -> None:
    model = FirstHitWindow(2, 10.0)
    assert [model.decide(t).accepted for t in (7.0, 8.0, 9.0, 16.9)] == [True, True, False, False]
    assert model.decide(17.5).accepted
    assert model.decide(27.4).reset_s == pytest.approx(0.1)


@pytest.mark.parametrize("family", [SlidingLog, SlidingCounter])
def test_a_client_that_keeps_retrying_is_refused_by_a_limiter_that_counts_refused_requests(
    family: Callable[..., Model],
) -> None:
    hammered = family(10, 10.0, count_refused=True)
    patient = family(10, 10.0, count_refused=True)
    for _ in range(10):
        hammered.decide(0.5)
        patient.decide(0.5)
    accepted = [hammered.decide(1.0 + i / 10).accepted for i in range(300)]
    assert sum(accepted) <= 10
    assert patient.decide(20.5).accepted


def test_count_refused_is_an_error_for_a_family_that_never_counts_refused_requests() -> None:
    with pytest.raises(TypeError):
        TokenBucket(5, 1.0, count_refused=True)  # type: ignore[call-arg]  # that there is none is tested
