"""Limiters that make requests wait their turn: told from outside, and not taken for slow servers."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.limit_cases import play
from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from bltybench.limits.findings.limits_toml import limits_toml
from bltybench.limits.fit.grid import plain_grid
from bltybench.limits.fit.occupancy import ChargeBounds, token_bucket
from bltybench.limits.fit.queueing import detect_queue
from bltybench.limits.fit.result import Verdict
from bltybench.limits.models import FixedWindow, LeakyQueue
from bltybench.limits.observations.observation import Observation, Observations
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions
from bltybench.limits.probe.thresholds import PLAN

START_S = 1_795_358_417.3


def probe(model: LeakyQueue, *, quick: bool = False, latency_s: float = 0.01) -> Verdict:
    aims = PlanOptions(quick=quick, period_s=60.0 if quick else None, limit=60 if quick else None)
    return VirtualLimiter(model, NetworkNoise(latency_s), seed=1).play(plan(aims, START_S))


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(("per_min", "queue", "free"), [(60, 5, 0), (300, 20, 0), (300, 20, 8), (600, 3, 0)])
def test_a_queue_is_found_with_its_rate_and_what_may_wait(
    per_min: int, queue: int, free: int, quick: bool
) -> None:
    verdict = probe(LeakyQueue(per_min, 60.0, queue, free=free), quick=quick)
    best = verdict.best
    assert verdict.status == "found"
    assert best is not None
    assert (best.family, best.free) == ("leaky_queue", free)
    assert best.limit_range[0] <= queue + 1 <= best.limit_range[1]
    assert best.rate_per_min == pytest.approx(per_min, rel=0.02)
    assert not quick or verdict.attempts <= PLAN.quick_budget


@pytest.mark.parametrize("seed", range(3))
def test_lost_answers_have_taken_their_turns(seed: int) -> None:
    """In a long row of waiting requests each lost one puts off all that come after it."""
    noise = NetworkNoise(0.005, jitter=0.4, lost=0.02)
    verdict = VirtualLimiter(LeakyQueue(19, 7.255, 7, free=4), noise, seed).play(
        plan(PlanOptions(budget=800), START_S)
    )
    assert verdict.families == ("leaky_queue",)
    assert verdict.best is not None
    assert verdict.best.limit_range[0] <= 8 <= verdict.best.limit_range[1]
    assert verdict.best.rate_per_min == pytest.approx(60 * 19 / 7.255, rel=0.02)


def test_a_queue_that_refuses_nothing_is_told_by_its_spacing() -> None:
    verdict = probe(LeakyQueue(600, 60.0, 500))
    assert verdict.status == "never_refused"
    assert verdict.queue is not None
    assert verdict.queue.rate_per_min == pytest.approx(600, rel=0.02)


def test_what_was_found_of_a_queue_is_written_for_the_sandbox() -> None:
    best = probe(LeakyQueue(300, 60.0, 20, free=8)).best
    text = limits_toml(best, "a-run")
    assert 'algorithm = "leaky_queue"' in text
    assert "free = 8" in text


def one_by_one(times_s: list[float], pauses: tuple[int, ...] = (20, 30)) -> list[Observation]:
    """Requests of these durations, one after the other, with silences before some."""
    seen, at_s = [], START_S
    for number, took_s in enumerate(times_s):
        at_s += 10.0 if number in pauses else 0.0
        seen.append(Observation(at_s, at_s + took_s, True, at_s + took_s))
        at_s += took_s
    return seen


def test_a_slow_server_is_not_taken_for_a_queue() -> None:
    rng = random.Random(1)
    assert detect_queue(one_by_one([0.5] * 40)) is None
    assert detect_queue(one_by_one([0.5 * rng.lognormvariate(0, 0.3) for _ in range(40)])) is None
    assert detect_queue(one_by_one([0.05, *[0.5] * 39])) is None, "only the first was quick"
    assert detect_queue(one_by_one([0.05 if number % 3 else 0.5 for number in range(40)])) is None


@settings(deadline=None)
@given(seed=st.integers(0, 1000), places=st.integers(1, 8), jitter=st.sampled_from([0.0, 0.1, 0.5]))
@example(seed=535, places=4, jitter=0.5)
@example(seed=752, places=8, jitter=0.5)
def test_a_server_with_few_places_is_not_taken_for_a_queue(seed: int, places: int, jitter: float) -> None:
    rng = random.Random(seed)
    free, seen, at_s = [START_S] * places, [], START_S
    for _ in range(120):
        at_s += rng.expovariate(8.0) if rng.random() > 0.05 else 10.0
        start_s = max(at_s, min(free))
        end_s = start_s + 0.2 * rng.lognormvariate(0, jitter)
        free[free.index(min(free))] = end_s
        seen.append(Observation(at_s, end_s, True, end_s))
    assert detect_queue(seen) is None


@given(seed=st.integers(0, 1000), queue=st.integers(8, 40), free=st.integers(0, 3), rate=st.floats(1.0, 30.0))
def test_ordinary_traffic_through_a_queue_is_explained(seed: int, queue: int, free: int, rate: float) -> None:
    rng, model, seen, at_s = random.Random(seed), LeakyQueue(60, 60 / rate, queue, free=free), [], START_S
    for number in range(200):
        at_s += 20 / rate if number % 40 == 39 else rng.expovariate(1.5 * rate)
        decision = model.decide(at_s)
        seen.append(
            Observation(at_s, at_s + 0.01 / rate, decision.accepted, at_s + 0.01 / rate + decision.delay_s)
        )
    held = detect_queue(seen)
    assert held is not None
    assert held.interval_range_s[0] <= 1 / rate <= held.interval_range_s[1]
    assert held.free == free


def test_polls_at_even_intervals_are_not_taken_for_a_queue() -> None:
    rng = random.Random(1)
    seen = [
        Observation(START_S + number, START_S + number + took_s, True, START_S + number + took_s)
        for number, took_s in enumerate(0.01 * rng.lognormvariate(0, 0.8) for _ in range(60))
    ]
    assert detect_queue(seen) is None


def test_a_limiter_that_refuses_at_once_delays_nothing() -> None:
    verdict = VirtualLimiter(FixedWindow(12, 10.0), NetworkNoise(), seed=1).play(plan(PlanOptions(), START_S))
    assert verdict.queue is None


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (5_002_156, "the first answer is lost, and no other is quick"),
        (5_017_347, "it is kept nearly full, where doubts tell nothing of its limit"),
        (5_017_879, "the quickest answer is far quicker than usual, which put off all turns"),
        (5_002_283, "an answer is lost when it is filled, so it is filled again"),
        (5_019_979, "what did not wait was taken for spaced"),
        (5_022_345, "what was lost after a refusal had taken a turn"),
        (5_031_304, "sixteen would wait longer than a client does, so fewer are sent"),
    ],
)
def test_queues_that_were_missed(number: int, why: str) -> None:
    (case,) = play(number, "full")
    assert case.judged == "right", (why, case.said)


def row(*kinds: bool | None, begins_s: float = START_S) -> list[Observation]:
    """Requests that are sent at once, of which those that are not refused wait their turns of a second."""
    found, turns = [], 0
    for kind in kinds:
        answered_s = begins_s + 0.01 + (0 if kind is False else turns)
        found.append(Observation(begins_s, begins_s + 0.01, kind, answered_s))
        turns += kind is not False
    return found


def test_what_was_lost_beside_a_refusal_is_read_as_what_explains_more() -> None:
    first = row(True, True, True, True, True, False)
    seen = [*first, *row(True, True, True, True, True, False, begins_s=START_S + 20)]
    lost = row(None, True, True, True, True, False, begins_s=START_S + 40)
    held = detect_queue([*seen, *lost])
    assert held is not None
    assert held.explained == held.answers == 14
    assert held.interval_s == pytest.approx(1.0, rel=0.01)


def test_what_overlaps_gives_nothing_back_to_a_bucket() -> None:
    """One that was sent before cannot have been decided on later than the one that is asked about."""
    seen = [Observation(0.0, 0.5, True), Observation(0.0, 0.6, True), Observation(0.1, 0.7, False)]
    counted = ChargeBounds(Observations(seen), count_refused=False)
    _, most = token_bucket(counted, plain_grid(np.array([1.0])))
    assert most[0].tolist() == [0.0, 1.0, 2.0]
