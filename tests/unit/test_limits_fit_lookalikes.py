"""Limiters that resemble others, in virtual time: identified correctly, or not at all."""

from __future__ import annotations

from itertools import cycle
from random import Random

import pytest

from benchmarks.limit_cases import play
from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.search import FamilySearch
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.models import (
    Banned,
    FirstHitCounter,
    FirstHitWindow,
    FixedWindow,
    IntervalRefill,
    Limiter,
    SlidingLog,
    TokenBucket,
    WholeTokenBucket,
)
from bltybench.limits.models.base import Admission
from bltybench.limits.observations.observation import Observation, Observations
from bltybench.limits.pairs.select import fit_limits
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions

START_S = 1_795_358_417.3
PERIOD_S = 10.0
LIMIT = 12
FAST = NetworkNoise(latency_s=0.005)


def probe(
    limiter: Limiter, options: PlanOptions | None = None, noise: NetworkNoise | None = None, seed: int = 1
) -> Verdict:
    world = VirtualLimiter(limiter, noise or NetworkNoise(), seed)
    return world.play(plan(options or PlanOptions(), START_S + seed))


def quick(period_s: float = PERIOD_S, limit: int | None = LIMIT) -> PlanOptions:
    return PlanOptions(quick=True, period_s=period_s, limit=limit)


class Nodes(FixedWindow):
    """Two nodes behind a load balancer, each with its own window."""

    def __init__(self) -> None:
        super().__init__(LIMIT, PERIOD_S)
        self._nodes = cycle([FixedWindow(LIMIT, PERIOD_S), FixedWindow(LIMIT, PERIOD_S, 4.0)])

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        return next(self._nodes).decide(t_s, cost)


def test_no_family_is_reported_for_a_limiter_on_several_nodes() -> None:
    for seed in range(2):
        verdict = probe(Nodes(), PlanOptions(budget=300, rounds=2), seed=seed)
        assert verdict.status == "unknown", verdict.consistent


def test_a_ban_is_not_mistaken_for_a_window() -> None:
    """If the limit is exhausted directly after the ban, the ban ends as regularly as a window resets."""
    for seed in range(2):
        verdict = probe(Banned(FirstHitWindow(LIMIT, PERIOD_S), 2 * PERIOD_S), seed=seed)
        assert verdict.status == "unknown", verdict.consistent


def test_a_ban_is_not_mistaken_for_a_longer_log() -> None:
    """A client that retries too early is banned again, so the log seems to have a longer period."""
    for seed in range(2):
        limiter = Banned(SlidingLog(3 * LIMIT, PERIOD_S), PERIOD_S / 2)
        verdict = probe(limiter, PlanOptions(budget=800), NetworkNoise(0.05, 0.25), seed)
        assert verdict.status == "unknown", verdict.consistent


def test_a_bucket_of_whole_tokens_is_not_mistaken_for_a_token_bucket_or_an_interval_refill() -> None:
    """An interval refill of one token per tick fits it for a while, but acts like a token bucket."""
    verdict = probe(WholeTokenBucket(10, 5.0), seed=0)
    assert (verdict.status, verdict.families) == ("found", ("whole_token_bucket",)), verdict.reason
    best = verdict.consistent[0]
    assert best.limit == 10
    assert best.period_range_s[0] <= 5.0 <= best.period_range_s[1]


def test_a_bucket_of_whole_tokens_is_found_if_a_token_takes_few_response_times() -> None:
    """A token takes five response times, and the best period may fit better than the actual one."""
    noise = NetworkNoise(latency_s=0.018, jitter=0.35)
    verdict = probe(WholeTokenBucket(20, 1.769), noise=noise, seed=3)
    assert (verdict.status, verdict.families) == ("found", ("whole_token_bucket",)), verdict.reason
    best = verdict.consistent[0]
    assert best.period_range_s[0] <= 1.769 <= best.period_range_s[1]


@pytest.mark.parametrize(("limit", "period_s", "ticks", "seed"), [(20, 10.0, 10, 0), (10, 5.0, 5, 1)])
def test_the_full_plan_observes_enough_periods_of_an_interval_refill(
    limit: int, period_s: float, ticks: int, seed: int
) -> None:
    verdict = probe(IntervalRefill(limit, period_s, ticks), seed=seed)
    assert (verdict.status, verdict.families) == ("found", ("interval_refill",)), verdict.reason


def test_the_quick_plan_distinguishes_a_log_from_a_window_without_a_documented_limit() -> None:
    for seed in range(3):
        verdict = probe(SlidingLog(20, PERIOD_S), quick(limit=None), FAST, seed)
        assert verdict.families == ("sliding_log",)
        assert verdict.consistent[0].limit == 20


def test_a_bucket_that_outpaces_slow_sequential_requests_is_probed_concurrently() -> None:
    """Sequential requests of 0.4 s each never reach 4 per second."""
    for seed in range(2):
        options, noise = PlanOptions(budget=400), NetworkNoise(latency_s=0.4, jitter=0.05)
        verdict = probe(TokenBucket(LIMIT, 3.0), options, noise, seed)
        assert verdict.refused
        assert "token_bucket" in verdict.families


def test_the_quick_plan_distinguishes_a_first_hit_window_from_a_counter() -> None:
    for seed in range(3):
        # Two periods can't rule out that a window of a fixed phase started at the first request by chance.
        verdict = probe(FirstHitWindow(LIMIT, PERIOD_S), quick(), FAST, seed)
        assert set(verdict.families) == {"first_hit_window", "fixed_window"}
        assert "first_hit_counter" in probe(FirstHitCounter(LIMIT, PERIOD_S), quick(), FAST, seed).families


def test_a_first_hit_counter_is_found_though_another_period_is_documented() -> None:
    """At a period that is 1% off, nothing fits any more."""
    options = quick(96.204, 49)
    verdict = probe(FirstHitCounter(49, 48.102), options, NetworkNoise(0.05, 0.1), seed=1)
    found = [fit for fit in verdict.consistent if fit.family == "first_hit_counter"]
    assert found
    assert found[0].limit_range[0] <= 49 <= found[0].limit_range[1]
    assert found[0].period_s == pytest.approx(48.102, rel=0.01)


def test_two_periods_are_too_few_for_an_interval_refill() -> None:
    (case,) = play(5_100_001, "quick", "interval refill, four ticks")
    assert (case.named, case.judged) == ("unknown", "abstained")
    assert "interval refill" in case.said


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (4_000_147, "simpler families fit no better than chance, so it was not tried"),
        (4_000_343, "wrong ticks fit by chance on the grid, with lost responses assigned to fit them"),
    ],
)
def test_interval_refills_that_were_once_missed_are_found(number: int, why: str) -> None:
    (case,) = play(number, "full", "interval refill, four ticks")
    assert (case.named, case.judged) == ("interval_refill", "right"), (why, case.said)


def test_a_wrong_documented_period_is_not_believed() -> None:
    verdict = probe(FixedWindow(LIMIT, PERIOD_S), quick(2 * PERIOD_S), FAST)
    fixed = [fit for fit in verdict.consistent if fit.family == "fixed_window"]
    assert fixed
    assert fixed[0].period_range_s[0] <= 1.02 * PERIOD_S


def test_polling_each_second_does_not_imply_one_per_second() -> None:
    """A window of a second would explain each decision by timing uncertainty alone."""
    model = FixedWindow(10, 60.0)
    times = [50.0 + number for number in range(200)]
    observed = [Observation(t, t + 0.01, model.decide(t).accepted) for t in times]
    verdict = fit_limiter(observed, hints_s=(60.0,))
    assert verdict.families == ("fixed_window",)
    assert verdict.best is not None
    assert verdict.best.limit == 10


def test_no_family_fits_random_refusals() -> None:
    rng = Random(4)
    observed = [
        Observation(at / 50, at / 50 + 0.01, rng.random() > 0.3)
        for at in sorted(rng.uniform(0, 3000) for _ in range(1200))
    ]
    verdict = fit_limiter(observed)
    assert verdict.status == "unknown"
    # A part of the run is enough to see it, and the reason counts the decisions of that part.
    assert "no family fits" in verdict.reason
    assert "of 300 decisions" in verdict.reason
    assert verdict.attempts == len(observed)
    assert verdict.is_random
    assert fit_limits(observed) == verdict
    # No interval refill has such a rate, but one candidate is scored all the same.
    assert FamilySearch("interval_refill", Observations(observed), rates_per_s=(1e6, 2e6)).cost > 0


def test_part_of_a_run_shows_random_refusals_that_a_bucket_of_whole_tokens_fits_better_than_chance() -> None:
    rng = Random(5)
    times = sorted(rng.uniform(0, 500) for _ in range(1000))
    verdict = fit_limits([Observation(at, at + 0.1, rng.random() > 0.5) for at in times])
    assert verdict.status == "unknown"
    assert "of 300 decisions" in verdict.reason
    assert verdict.attempts == len(times)


def test_a_run_that_recovers_only_after_a_lost_response_is_fitted_completely() -> None:
    """No part of the long run contains an acceptance directly after a refusal."""
    outcomes = [*[True] * 700, *[False] * 700, None, *[True] * 700]
    verdict = fit_limiter(
        [Observation(float(at), at + 0.01, accepted) for at, accepted in enumerate(outcomes)]
    )
    assert verdict.attempts == len(outcomes)


@pytest.mark.parametrize("seed", range(7))
def test_a_window_whose_edges_fall_into_decisions_is_not_mistaken_for_an_interval_refill(seed: int) -> None:
    """A request that may have been decided on before or after an edge makes all later refusals ambiguous."""
    limiter, rng, observed = FixedWindow(3, 3.0, 1.3), Random(seed), list[Observation]()

    def send(sent_s: float) -> float:
        answered_s = sent_s + rng.uniform(0.015, 0.07)
        decision = limiter.decide(rng.uniform(sent_s, answered_s))
        observed.append(Observation(sent_s, answered_s, decision.accepted, unit=True))
        return answered_s

    def next_edge_s(now_s: float) -> float:
        return 1.3 + 3.0 * ((now_s - 1.3) // 3.0 + 1)

    now_s = 18.0
    for number in range(7):
        now_s = send(now_s)
        while not observed[-1].accepted:
            now_s = send(now_s)
        for _ in range(6):
            now_s = send(now_s)
        if number % 2:  # what a log would accept: two units 1.2 s after the first of their window
            now_s = send(next_edge_s(now_s) + 3.9) + 1.2
            for _ in range(4):
                now_s = send(now_s)
        now_s = max(now_s, next_edge_s(now_s) - rng.uniform(0.0, 0.06))
    families = fit_limiter(observed, hints_s=(3.0,)).families
    assert families in {("fixed_window",), ("fixed_window", "first_hit_window")}
