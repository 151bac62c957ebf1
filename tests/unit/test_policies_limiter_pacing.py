from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_pacing import ONE, RNG, SECOND, SENT, SIZE, at_times, batch, limits, run, sent_s

from benchmarks.policies import CLOSE_PERCENT, measure, random_case, rows_of_all
from bltybench.policies.chosen_times import gains_by_waiting
from bltybench.policies.optimum import optimum
from bltybench.policies.pacing.limiter_pacer import LimiterPacer
from bltybench.policies.pacing.pacer import SentRequest, Share
from bltybench.policies.simulated_api import windows_start_s
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.target import RateLimit


def test_limiter_pacing_holds_requests_after_a_refusal_and_without_a_slot() -> None:
    pacer = LimiterPacer(limits(concurrency=1), ONE, start_s=0.0)
    pacer.send(0.0, SIZE)
    assert pacer.wait_s(0.0, SIZE, RNG) == inf
    pacer.answer(SENT, 1.0, 3.0, refused=True)
    assert pacer.wait_s(2.0, SIZE, RNG) == 2
    pacer.answer(SENT, 2.0, 86_400.0, refused=True)
    assert pacer.wait_s(2.0, SIZE, RNG) == 60


@given(
    algorithm=st.sampled_from([name for name in get_args(Algorithm) if not gains_by_waiting(name)]),
    limit=st.integers(1, 12),
    due_s=st.lists(st.floats(0, 20), min_size=1, max_size=40).map(sorted),
    concurrency=st.sampled_from([None, 2]),
)
@settings(max_examples=100, deadline=None)
def test_limiter_pacing_is_the_optimum_of_one_client(
    algorithm: Algorithm, limit: int, due_s: list[float], concurrency: int | None
) -> None:
    tokens = RateLimit(limit=60, period_s=5.0, algorithm="sliding_log")
    outputs = RateLimit(limit=25, period_s=6.0)
    limited = limits(limit, 4.0, algorithm, tokens=tokens, output_tokens=outputs, concurrency=concurrency)
    load = at_times(due_s)
    calls = run(load, limited, "limiter")
    best = optimum(load, limited, SECOND, windows_start_s(limited, seed=1))
    assert best is not None
    assert not any(call.refusals for call in calls)
    assert sent_s(calls) == pytest.approx(best.accepted_s, abs=1e-3)


@given(
    algorithm=st.sampled_from([name for name in get_args(Algorithm) if gains_by_waiting(name)]),
    limit=st.integers(1, 12),
    due_s=st.lists(st.floats(0, 20), min_size=1, max_size=40).map(sorted),
    concurrency=st.sampled_from([None, 2]),
)
@settings(max_examples=100, deadline=None)
def test_one_client_is_never_refused_if_waiting_helps(
    algorithm: Algorithm, limit: int, due_s: list[float], concurrency: int | None
) -> None:
    tokens = RateLimit(limit=60, period_s=5.0, algorithm="whole_token_bucket")
    limited = limits(limit, 4.0, algorithm, tokens=tokens, concurrency=concurrency)
    calls = run(at_times(due_s), limited, "limiter")
    assert all(call.ok for call in calls)
    assert not any(call.refusals for call in calls)


def test_client_waits_for_the_next_whole_token_unless_the_bucket_is_full() -> None:
    pacer = LimiterPacer(limits(4, 8.0, "whole_token_bucket"), ONE, start_s=0.0)
    for at_s in (1.0, 1.01):
        assert pacer.wait_s(at_s, SIZE, RNG) == 0
        pacer.send(at_s, SIZE)
    # Two tokens are left, but another request now would lose half of the next one. Ticks are 2.02 s apart.
    assert pacer.wait_s(2.0, SIZE, RNG) == pytest.approx(0.02)
    # A client that wakes late sends nevertheless, and others follow immediately.
    for at_s in (2.5, 2.51):
        assert pacer.wait_s(at_s, SIZE, RNG) == 0
        pacer.send(at_s, SIZE)
    assert pacer.wait_s(3.0, SIZE, RNG) == pytest.approx(1.04)
    assert pacer.wait_s(11.0, SIZE, RNG) == 0


@pytest.mark.parametrize(
    ("algorithm", "gap_s"), [("token_bucket", 1.0), ("leaky_queue", 1.0), ("whole_token_bucket", 1.01)]
)
def test_busy_clients_take_turns_at_the_rate_of_the_limit(algorithm: Algorithm, gap_s: float) -> None:
    calls = run(batch(20, clients=2), limits(8, 8.0, algorithm), "limiter")
    times_s = sent_s(calls)
    assert times_s[:8] == [0.0] * 8
    gaps_s = [later - earlier for earlier, later in pairwise(times_s[8:])]
    assert gaps_s == pytest.approx([gap_s] * 11, abs=1e-3)
    assert not any(call.refusals for call in calls)


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_busy_clients_that_pace_by_the_limiter_keep_to_their_shares(algorithm: Algorithm) -> None:
    calls = run(batch(400, clients=3), limits(40, algorithm=algorithm), "limiter")
    # The first client has the remainder of the limit.
    sent_first = [call for call in calls if call.accepted_s == 0]
    assert [sum(call.client == client for call in sent_first) for client in range(3)] == [14, 13, 13]
    # They are refused only when they try whether others leave something.
    assert sum(len(call.refusals) for call in calls) < 120


def test_clients_share_both_of_two_limits_at_once() -> None:
    second = RateLimit(limit=6, period_s=1.0, algorithm="sliding_log")
    both = RateLimit(limit=12, period_s=8.0, algorithm="sliding_log", also=second)
    pacer = LimiterPacer(limits(requests=both), Share(client=0, clients=3), start_s=0.0)
    waits_s = []
    for _ in range(3):
        waits_s.append(pacer.wait_s(0.0, SIZE, RNG))
        pacer.send(0.0, SIZE)
    assert waits_s[:2] == [0, 0]
    assert waits_s[2] > 0


def test_client_borrows_what_others_leave_until_it_is_refused() -> None:
    pacer = LimiterPacer(limits(120, 80.0, "token_bucket"), Share(client=0, clients=3), start_s=0.0)
    sent_s: list[float] = []
    now_s = 0.0
    for number in range(56):
        if wait_s := pacer.wait_s(now_s, SIZE, RNG):
            now_s += wait_s + 1e-6
        pacer.send(now_s, SIZE)
        refused = number >= 46
        pacer.answer(SentRequest(now_s, SIZE), now_s, 1.0 if refused else None, refused=refused)
        sent_s.append(now_s)
    # Its share is 40 2/3. Then it sends at half the rate of the whole limit, which is 1.5 per second.
    assert sent_s[:40] == [0] * 40
    gaps_s = [later - earlier for earlier, later in pairwise(sent_s[39:])]
    assert gaps_s[:7] == pytest.approx([2 / 3] + [4 / 3] * 6, abs=1e-3)
    # After some refusals, it sends at the rate of its share.
    assert gaps_s[-2:] == pytest.approx([2, 2], abs=1e-3)


@pytest.mark.parametrize("number", [405, 390, 316, 234, 69, 430, 479])
def test_clients_that_share_a_small_limit_are_close_to_the_optimum(number: int) -> None:
    # Cases in which clients that keep to their shares accept 5 to 17% less.
    rows = [row for row in rows_of_all() if row.pacing == "limiter"]
    measure([random_case(7_000_000 + number)], rows)
    assert rows[0].below[0] <= CLOSE_PERCENT
    assert rows[0].gave_up == [0]


def test_benchmark_measures_every_combination_and_the_limiter_has_no_refusals() -> None:
    rows = rows_of_all()
    cases = [case for case in map(random_case, range(10)) if case.load.clients == 1][:2]
    assert measure(cases, rows) > 100
    assert all(len(row.gave_up) == 2 for row in rows)
    (limiter,) = (row for row in rows if row.pacing == "limiter")
    assert limiter.refusals == limiter.gave_up == [0.0, 0.0]
    assert limiter.markdown().startswith("| `retry_after_jitter` | `limiter` | 0.0 |")
