"""Limiters that queue requests are detected from outside, and slow servers are not mistaken for them."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.limit_cases import play
from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from bltybench.limits.findings.cautious import unless_delayed
from bltybench.limits.findings.limits_toml import limits_toml, request_limit
from bltybench.limits.findings.replay import agreement
from bltybench.limits.fit.charges import ChargeBounds, Side
from bltybench.limits.fit.grid import plain_grid
from bltybench.limits.fit.occupancy import token_bucket
from bltybench.limits.fit.queueing import detect_queue, detect_waiting_room
from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.models import (
    FirstHitWindow,
    FixedWindow,
    LeakyQueue,
    SlidingLog,
    TokenBucket,
    Waiting,
)
from bltybench.limits.models.families import model_of
from bltybench.limits.observations.observation import Observation, Observations
from bltybench.limits.observations.waits import waits_of
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions
from bltybench.limits.probe.thresholds import PLAN

START_S = 1_795_358_417.3


def probe(model: LeakyQueue, *, quick: bool = False, latency_s: float = 0.01) -> Verdict:
    aims = PlanOptions(quick=quick, period_s=60.0 if quick else None, limit=60 if quick else None)
    return VirtualLimiter(model, NetworkNoise(latency_s), seed=1).play(plan(aims, START_S))


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(("per_min", "queue", "free"), [(60, 5, 0), (300, 20, 0), (300, 20, 8), (600, 3, 0)])
def test_a_queue_is_found_with_its_rate_and_size(per_min: int, queue: int, free: int, quick: bool) -> None:
    verdict = probe(LeakyQueue(per_min, 60.0, queue, free=free), quick=quick)
    best = verdict.best
    assert verdict.status == "found"
    assert best is not None
    assert (best.family, best.free) == ("leaky_queue", free)
    assert best.limit_range[0] <= queue + 1 <= best.limit_range[1]
    assert best.rate_per_min == pytest.approx(per_min, rel=0.02)
    assert not quick or verdict.attempts <= PLAN.quick_budget


@pytest.mark.parametrize("seed", range(3))
def test_lost_responses_take_their_turns_in_a_queue(seed: int) -> None:
    """Each lost request in a long queue delays all that follow."""
    noise = NetworkNoise(0.005, jitter=0.4, lost=0.02)
    verdict = VirtualLimiter(LeakyQueue(19, 7.255, 7, free=4), noise, seed).play(
        plan(PlanOptions(budget=800), START_S)
    )
    assert verdict.families == ("leaky_queue",)
    assert verdict.best is not None
    assert verdict.best.limit_range[0] <= 8 <= verdict.best.limit_range[1]
    assert verdict.best.rate_per_min == pytest.approx(60 * 19 / 7.255, rel=0.02)


def test_a_queue_that_refuses_nothing_is_detected_from_its_spacing() -> None:
    verdict = probe(LeakyQueue(600, 60.0, 500))
    assert verdict.status == "never_refused"
    assert verdict.queue is not None
    assert verdict.queue.rate_per_min == pytest.approx(600, rel=0.02)


def test_limits_toml_of_a_queue_has_its_options() -> None:
    best = probe(LeakyQueue(300, 60.0, 20, free=8)).best
    text = limits_toml(best, "a-run")
    assert 'algorithm = "leaky_queue"' in text
    assert "free = 8" in text


def one_by_one(times_s: list[float], pauses: tuple[int, ...] = (20, 30)) -> list[Observation]:
    """Sequential requests of these durations, with idle intervals before some."""
    observed, at_s = [], START_S
    for number, took_s in enumerate(times_s):
        at_s += 10.0 if number in pauses else 0.0
        observed.append(Observation(at_s, at_s + took_s, True, at_s + took_s))
        at_s += took_s
    return observed


def test_a_slow_server_is_not_mistaken_for_a_queue() -> None:
    rng = random.Random(1)
    assert detect_queue(one_by_one([0.5] * 40)) is None
    assert detect_queue(one_by_one([0.5 * rng.lognormvariate(0, 0.3) for _ in range(40)])) is None
    assert detect_queue(one_by_one([0.05, *[0.5] * 39])) is None, "only the first was quick"
    assert detect_queue(one_by_one([0.05 if number % 3 else 0.5 for number in range(40)])) is None


@settings(deadline=None)
@given(seed=st.integers(0, 1000), slots=st.integers(1, 8), jitter=st.sampled_from([0.0, 0.1, 0.5]))
@example(seed=535, slots=4, jitter=0.5)
@example(seed=752, slots=8, jitter=0.5)
def test_a_server_with_few_slots_is_not_mistaken_for_a_queue(seed: int, slots: int, jitter: float) -> None:
    rng = random.Random(seed)
    free, observed, at_s = [START_S] * slots, [], START_S
    for _ in range(120):
        at_s += rng.expovariate(8.0) if rng.random() > 0.05 else 10.0
        start_s = max(at_s, min(free))
        end_s = start_s + 0.2 * rng.lognormvariate(0, jitter)
        free[free.index(min(free))] = end_s
        observed.append(Observation(at_s, end_s, True, end_s))
    assert detect_queue(observed) is None


@given(seed=st.integers(0, 1000), queue=st.integers(8, 40), free=st.integers(0, 3), rate=st.floats(1.0, 30.0))
def test_a_queue_is_measured_from_ordinary_traffic(seed: int, queue: int, free: int, rate: float) -> None:
    rng, model, observed, at_s = random.Random(seed), LeakyQueue(60, 60 / rate, queue, free=free), [], START_S
    for number in range(200):
        at_s += 20 / rate if number % 40 == 39 else rng.expovariate(1.5 * rate)
        decision = model.decide(at_s)
        observed.append(
            Observation(at_s, at_s + 0.01 / rate, decision.accepted, at_s + 0.01 / rate + decision.delay_s)
        )
    timing = detect_queue(observed)
    assert timing is not None
    assert timing.interval_range_s[0] <= 1 / rate <= timing.interval_range_s[1]
    assert timing.free == free


def test_polling_at_even_intervals_is_not_mistaken_for_a_queue() -> None:
    rng = random.Random(1)
    observed = [
        Observation(START_S + number, START_S + number + took_s, True, START_S + number + took_s)
        for number, took_s in enumerate(0.01 * rng.lognormvariate(0, 0.8) for _ in range(60))
    ]
    assert detect_queue(observed) is None


def test_a_limiter_that_only_refuses_has_no_queue() -> None:
    verdict = VirtualLimiter(FixedWindow(12, 10.0), NetworkNoise(), seed=1).play(plan(PlanOptions(), START_S))
    assert verdict.queue is None


@pytest.mark.parametrize(
    ("number", "kind", "why"),
    [
        (5_002_156, "leaky queue", "the first response is lost, and no other is quick"),
        (5_017_347, "leaky queue, burst", "it is kept nearly full, so most decisions are ambiguous"),
        (
            5_017_879,
            "leaky queue, burst",
            "the quickest response is far quicker than usual, so all turns seem late",
        ),
        (
            5_002_283,
            "leaky queue, burst",
            "a response is lost while filling the queue, so it is filled again",
        ),
        (5_019_979, "leaky queue, burst", "responses that did not wait were mistaken for spaced ones"),
        (5_022_345, "leaky queue, burst", "a request lost after a refusal had taken a turn"),
        (5_031_304, "leaky queue", "sixteen would wait longer than a client does, so fewer are sent"),
    ],
)
def test_queues_that_were_once_missed_are_found(number: int, kind: str, why: str) -> None:
    (case,) = play(number, "full", kind)
    assert case.judged == "right", (why, case.said)


def burst(*kinds: bool | None, begins_s: float = START_S) -> list[Observation]:
    """Concurrent requests, of which those that are not refused take turns of a second."""
    found, turns = [], 0
    for kind in kinds:
        answered_s = begins_s + 0.01 + (0 if kind is False else turns)
        found.append(Observation(begins_s, begins_s + 0.01, kind, answered_s))
        turns += kind is not False
    return found


def test_a_response_lost_next_to_a_refusal_takes_a_turn_if_that_fits_better() -> None:
    first = burst(True, True, True, True, True, False)
    observed = [*first, *burst(True, True, True, True, True, False, begins_s=START_S + 20)]
    lost = burst(None, True, True, True, True, False, begins_s=START_S + 40)
    timing = detect_queue([*observed, *lost])
    assert timing is not None
    assert timing.explained == timing.answers == 14
    assert timing.interval_s == pytest.approx(1.0, rel=0.01)


def test_a_bucket_refills_nothing_between_overlapping_requests() -> None:
    """A request that was sent earlier was not decided on later."""
    observed = [Observation(0.0, 0.5, True), Observation(0.0, 0.6, True), Observation(0.1, 0.7, False)]
    bounds = ChargeBounds(Observations(observed), count_refused=False)
    most = token_bucket(Side(bounds, bounds.every, least=False), plain_grid(np.array([1.0])))
    assert most[0].tolist() == [0.0, 1.0, 2.0]


def waiting_window(rng: random.Random, apart_s: float = 0.015) -> list[Observation]:
    """Send bursts to a window of 8 requests per 4 s with two seats, whose requests may wait."""
    limiter, at_s = Waiting(FixedWindow(8, 4.0), 2), START_S
    observed: list[Observation] = []
    for _ in range(14):
        at_s += rng.choice((0.3, 0.9, 2.6))
        for number in range(12):
            sent_s = at_s + apart_s * number
            admission = limiter.decide(sent_s + 0.005)
            answered_s = sent_s + 0.01 + admission.delay_s
            decided_s = sent_s + 0.01 if not admission.delay_s else sent_s + 0.02
            observed.append(Observation(sent_s, decided_s, admission.accepted, answered_s))
    return observed


def test_a_window_with_a_waiting_room_is_found() -> None:
    observed = waiting_window(random.Random(1))
    verdict = unless_delayed(fit_limiter(observed), waits_of(observed), observed)
    best = verdict.best
    assert best is not None, verdict.reason
    assert (verdict.status, best.family, best.limit, best.seats) == ("found", "fixed_window", 8, 2)
    assert best.period_s == pytest.approx(4.0, rel=0.01)
    assert agreement(observed, best.model).count >= 0.97 * len(observed)
    rule = request_limit(limits_toml(best, ""))
    assert (rule.waiting, rule.limit) == (2, 8)
    assert isinstance(model_of(rule), Waiting)


def test_requests_that_waited_count_in_the_window_of_their_turn() -> None:
    observed = waiting_window(random.Random(1), apart_s=0.004)
    waited = [one.accepted and (one.answered_s or 0.0) - one.sent_s > 0.1 for one in observed]
    first = [i for i in range(1, len(observed)) if waited[i] and not waited[i - 1]]
    for i in first[::2]:
        sent_s = observed[i].sent_s
        observed[i] = Observation(sent_s, sent_s + 0.01, None)
    room = detect_waiting_room(observed)
    assert room is not None
    counted = [one for one in room.decisions if one.accepted is not False]
    assert all(one.sent_s // 4.0 == one.decided_s // 4.0 for one in counted)
    assert max(Counter(one.sent_s // 4.0 for one in counted).values()) == 8


def test_delays_of_a_busy_server_are_no_waiting_room() -> None:
    rng, log, at_s = random.Random(2), SlidingLog(8, 4.0), START_S
    observed: list[Observation] = []
    for number in range(150):
        at_s += rng.choice((0.02, 0.02, 0.5))
        answered_s = at_s + 0.01 * (rng.choice((30, 60)) if number % 5 == 0 else 1)
        observed.append(Observation(at_s, at_s + 0.01, log.decide(at_s + 0.005).accepted, answered_s))
    best = unless_delayed(fit_limiter(observed), waits_of(observed), observed).best
    assert best is not None
    assert (best.family, best.seats) == ("sliding_log", None)


@given(
    limit=st.integers(1, 6),
    seats=st.integers(1, 5),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_a_waiting_room_is_served_in_order_within_the_limit(
    limit: int, seats: int, gaps: list[float]
) -> None:
    model, at_s = Waiting(SlidingLog(limit, 5.0), seats), 0.0
    turns_s: list[float] = []
    for gap_s in gaps:
        at_s += gap_s
        waiting = sum(turn_s > at_s for turn_s in turns_s)
        decision = model.decide(at_s)
        assert decision.accepted or waiting == seats
        if decision.accepted:
            turns_s.append(at_s + decision.delay_s)
        else:
            assert decision.retry_after_s is not None
            assert model.peek(at_s + decision.retry_after_s).accepted
            return
    assert turns_s == sorted(turns_s)
    for n, turn_s in enumerate(turns_s[limit:]):
        assert turn_s >= turns_s[n] + 5.0 - 1e-6


def test_a_window_delays_requests_by_the_time_left_for_those_that_may_follow() -> None:
    window = FirstHitWindow(5, 10.0, spread=True)
    delays_s = [window.decide(at_s).delay_s for at_s in (0.0, 0.0, 0.0, 4.0, 9.0)]
    assert delays_s == pytest.approx([0.0, 10 / 5, 10 / 4, 6 / 3, 5 * 2.0])
    assert not window.peek(9.5).accepted
    assert window.decide(10.0).delay_s == 0.0


def test_a_window_that_spreads_requests_out_is_found() -> None:
    limiter = VirtualLimiter(FirstHitWindow(12, 30.0, spread=True), NetworkNoise(), seed=4)
    verdict = limiter.play(plan(PlanOptions(), START_S))
    best = unless_delayed(verdict, waits_of(limiter.observations), limiter.observations).best
    assert best is not None
    assert (best.family, best.limit, best.spread) == ("first_hit_window", 12, True)
    assert request_limit(limits_toml(best, "")).spread


def test_a_window_behind_a_server_with_random_delays_is_not_said_to_spread_requests_out() -> None:
    rng, window, at_s = random.Random(3), FirstHitWindow(12, 30.0), START_S
    observed: list[Observation] = []
    for _ in range(12):
        at_s += rng.choice((4.0, 13.0, 31.0))
        for number in range(14):
            sent_s = at_s + 0.03 * number
            accepted = window.decide(sent_s + 0.01).accepted
            answered_s = sent_s + 0.02 + (rng.uniform(0, 8) if accepted and number else 0.0)
            observed.append(Observation(sent_s, sent_s + 0.02, accepted, answered_s))
    verdict = unless_delayed(fit_limiter(observed), waits_of(observed), observed)
    best = verdict.best
    assert best is not None
    assert (best.family, best.spread) == ("first_hit_window", False)


@pytest.mark.parametrize(
    ("wait_s", "every", "family"), [(0.6, 4, None), (0.6, 30, "token_bucket"), (3.0, 30, "token_bucket")]
)
def test_a_bucket_that_refills_while_many_requests_wait_is_not_reported(
    wait_s: float, every: int, family: str | None
) -> None:
    bucket, observed, accepted = TokenBucket(10, 8.0), list[Observation](), 0
    for number in range(120):
        sent_s = 100.0 + number * 0.4 + 5.0 * (number // 30)
        fits = bucket.decide(sent_s + 0.005).accepted
        accepted += fits
        answered_s = sent_s + (wait_s if fits and accepted % every == 0 else 0.01)
        observed.append(Observation(sent_s, sent_s + 0.01, fits, answered_s))
    best = unless_delayed(fit_limiter(observed), waits_of(observed), observed).best
    assert (best and best.family) == family
