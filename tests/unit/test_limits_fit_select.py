"""The fit and the probe plan in virtual time: right if the observations are sufficient, and undecided
otherwise."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from benchmarks.limit_cases import judge
from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from bltybench.limits.findings.limits_toml import limits_toml
from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.models import (
    FirstHitCounter,
    FirstHitWindow,
    FixedWindow,
    IntervalRefill,
    Limiter,
    Model,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)
from bltybench.limits.models.base import Admission
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import Burst, PlanOptions
from bltybench.limits.probe.thresholds import PLAN

START_S = 1_795_358_417.3
PERIOD_S = 10.0
LIMIT = 12

MODELS: dict[str, tuple[str, Callable[[], Model]]] = {
    "clock": ("fixed_window", lambda: FixedWindow(LIMIT, PERIOD_S)),
    "other phase": ("fixed_window", lambda: FixedWindow(LIMIT, PERIOD_S, 3.7)),
    "first hit": ("first_hit_window", lambda: FirstHitWindow(LIMIT, PERIOD_S)),
    "log": ("sliding_log", lambda: SlidingLog(LIMIT, PERIOD_S)),
    "log that counts refusals": ("sliding_log", lambda: SlidingLog(LIMIT, PERIOD_S, count_refused=True)),
    "counter": ("sliding_counter", lambda: SlidingCounter(LIMIT, PERIOD_S)),
    "first-hit counter": ("first_hit_counter", lambda: FirstHitCounter(LIMIT, PERIOD_S)),
    "bucket": ("token_bucket", lambda: TokenBucket(LIMIT, PERIOD_S)),
    "interval refill": ("interval_refill", lambda: IntervalRefill(LIMIT, PERIOD_S)),
}
QUICK = PlanOptions(quick=True, period_s=PERIOD_S, limit=LIMIT)
MIN_RIGHT_OF_4 = {
    "clock": 2,
    "other phase": 3,
    "log that counts refusals": 0,
    "bucket": 0,
    "interval refill": 0,
}
"""Right verdicts of the quick plan on four seeds, if fewer than four. In two periods, some families look
alike."""


def probe(
    limiter: Limiter,
    options: PlanOptions | None = None,
    noise: NetworkNoise | None = None,
    *,
    seed: int = 1,
    later_s: float = 0.0,
) -> Verdict:
    world = VirtualLimiter(limiter, noise or NetworkNoise(), seed)
    return world.play(plan(options or PlanOptions(), START_S + later_s))


def judged(name: str, seeds: Iterable[int], options: PlanOptions, noise: NetworkNoise) -> Counter[str]:
    """Count the verdicts on a model that are right, abstained, and wrong."""
    family, make = MODELS[name]
    verdicts = (probe(make(), options, noise, seed=seed, later_s=seed) for seed in seeds)
    return Counter(judge(verdict, family, LIMIT, PERIOD_S, by_class=options.quick) for verdict in verdicts)


@pytest.mark.parametrize("name", MODELS)
def test_the_full_plan_finds_each_family(name: str) -> None:
    assert judged(name, range(3), PlanOptions(), NetworkNoise()) == {"right": 3}


def test_the_full_plan_reports_a_family_with_high_confidence() -> None:
    verdict = probe(FixedWindow(LIMIT, PERIOD_S))
    assert verdict.status == "found"
    assert verdict.confidence is not None
    assert verdict.confidence > 0.9


@pytest.mark.parametrize(
    ("documented", "period_s"), [(LIMIT, PERIOD_S), (LIMIT + 7, PERIOD_S), (LIMIT, 3 * PERIOD_S)]
)
def test_a_documented_limit_sets_the_times_but_not_the_result(documented: int, period_s: float) -> None:
    verdict = probe(FixedWindow(LIMIT, PERIOD_S), PlanOptions(limit=documented, period_s=period_s))
    best = verdict.best
    assert best is not None
    assert (verdict.families, best.limit) == (("fixed_window",), LIMIT)
    assert best.period_s == pytest.approx(PERIOD_S, rel=0.02)


def test_a_documented_limit_that_is_true_saves_requests() -> None:
    model = FixedWindow(LIMIT, PERIOD_S)
    documented = probe(model, PlanOptions(limit=LIMIT, period_s=PERIOD_S))
    assert documented.attempts < 0.6 * probe(FixedWindow(LIMIT, PERIOD_S)).attempts


@pytest.mark.parametrize("name", MODELS)
def test_the_quick_plan_finds_the_kind_of_most_families_and_is_never_wrong(name: str) -> None:
    verdicts = judged(name, range(4), QUICK, NetworkNoise())
    assert verdicts["wrong"] == 0
    assert verdicts["right"] >= MIN_RIGHT_OF_4.get(name, 4)


@pytest.mark.parametrize("name", MODELS)
def test_the_quick_plan_stays_within_its_budget_and_two_periods(name: str) -> None:
    family, make = MODELS[name]
    world = VirtualLimiter(make(), NetworkNoise(), seed=1)
    verdict = world.play(plan(QUICK, START_S))
    # An interval refill takes more periods than the quick plan has, so the verdict can be unknown.
    assert family in verdict.families or (name == "interval refill" and verdict.status == "unknown")
    assert verdict.attempts <= PLAN.quick_budget
    assert world.busy_s <= 2 * PERIOD_S


def test_the_full_plan_distinguishes_a_fixed_phase_from_a_first_hit() -> None:
    """One round can't distinguish them. The full plan repeats it at another phase."""
    quick = probe(FixedWindow(LIMIT, PERIOD_S, 3.7), QUICK)
    assert quick.best is not None
    full = probe(FixedWindow(LIMIT, PERIOD_S, 3.7))
    assert full.families == ("fixed_window",)
    assert full.best is not None
    assert full.best.phase == "other"
    assert full.best.phase_s() == pytest.approx(3.7, abs=0.2)


@pytest.mark.parametrize("period_s", [7.0, 13.0, 45.0])
@pytest.mark.parametrize("ahead_s", [-0.12, 0.09])
def test_windows_of_an_unusual_period_are_found_aligned_to_a_clock_that_differs(
    period_s: float, ahead_s: float
) -> None:
    noise = NetworkNoise(latency_s=0.003, jitter=0.3, clock_offset_s=ahead_s)
    best = probe(FixedWindow(9, period_s), PlanOptions(budget=300), noise, later_s=31.7).best
    assert best is not None
    assert (best.family, best.limit, best.period_s, best.phase) == ("fixed_window", 9, period_s, "clock")
    phase_s = best.phase_s()
    assert phase_s is not None
    assert min(phase_s, period_s - phase_s) <= 0.2
    other = probe(FixedWindow(9, period_s, 0.4 * period_s), PlanOptions(budget=300), noise, later_s=31.7).best
    assert other is not None
    assert (other.family, other.phase) == ("fixed_window", "other")


def test_a_small_burst_is_not_mistaken_for_a_short_window() -> None:
    verdict = probe(TokenBucket(60, 60.0, burst=5))
    assert verdict.families == ("token_bucket",)
    assert verdict.best is not None
    assert verdict.best.limit == 5
    assert verdict.best.rate_per_min == pytest.approx(60, rel=0.02)


@pytest.mark.parametrize("name", ["clock", "log", "first-hit counter", "bucket"])
def test_lost_responses_do_not_mislead(name: str) -> None:
    assert judged(name, range(3), PlanOptions(), NetworkNoise(lost=0.02, jitter=0.4)) == {"right": 3}


class Constant:
    """A server that accepts everything, or nothing."""

    def __init__(self, *, accepts: bool) -> None:
        self._accepts = accepts

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        del t_s, cost
        return Admission(self._accepts, None, 1, 0.0, 0.0)


def test_a_server_that_never_refuses_is_probed_up_to_the_budget() -> None:
    verdict = probe(Constant(accepts=True), PlanOptions(budget=90))
    assert verdict.status == "never_refused"
    assert verdict.attempts <= 90


def test_the_plan_gives_up_on_a_server_that_always_refuses() -> None:
    verdict = probe(Constant(accepts=False), PlanOptions(budget=90, max_wait_s=30))
    assert verdict.status == "always_refused"
    assert verdict.attempts <= 90


class Shared(FixedWindow):
    """A window that another client also uses: 0, 2, or 1 requests before each of ours, in turn."""

    def __init__(self) -> None:
        super().__init__(LIMIT, PERIOD_S)
        self._requests = 0

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        for _ in range((self._requests * 7919) % 3):
            super().decide(t_s, cost)
        self._requests += 1
        return super().decide(t_s, cost)


def test_a_shared_quota_is_found_as_the_own_share_of_it() -> None:
    for seed in range(3):
        verdict = probe(Shared(), seed=seed)
        assert verdict.families == ("fixed_window",)
        assert verdict.best is not None
        assert verdict.best.limit == LIMIT // 2


@pytest.mark.parametrize(
    ("per_s", "burst", "load", "seed"), [(3, 20, 1.6, 0), (2, 8, 1.6, 1), (2, 8, 2.5, 1), (0.7, 5, 1.6, 1)]
)
def test_a_bucket_that_is_hardly_ever_full_is_found_in_a_long_run(
    per_s: float, burst: int, load: float, seed: int
) -> None:
    """An error of the rate adds up over the run, so a grid with fixed steps can miss every good rate."""
    rng, at_s, observed = random.Random(seed), START_S, []
    model = TokenBucket(burst, burst / per_s)
    for _ in range(350):
        at_s += rng.expovariate(per_s * load)
        observed.append(Observation(at_s, at_s + 0.01, model.decide(at_s + 0.005).accepted))
    verdict = fit_limiter(observed)
    assert verdict.families == ("token_bucket",), verdict.reason
    assert verdict.best is not None
    assert verdict.best.limit == burst
    assert verdict.best.rate_per_min == pytest.approx(60 * per_s, rel=0.01)


def test_no_observations_give_nothing_sent() -> None:
    assert fit_limiter([]).status == "nothing_sent"


def test_a_run_that_ends_at_its_first_refusal_is_undecided() -> None:
    verdict = fit_limiter([Observation(float(t), t + 0.01, t < 5) for t in range(6)])
    assert verdict.status == "unknown"
    assert "end too soon" in verdict.reason


def test_refusals_without_an_earlier_acceptance_are_undecided() -> None:
    """No acceptance precedes a refusal, so nothing shows what a full bucket holds."""
    refused = [Observation(t * 0.01, t * 0.01 + 0.001, False) for t in range(60)]
    accepted = [Observation(2 + t * 0.01, 2 + t * 0.01 + 0.001, True) for t in range(30)]
    assert fit_limiter([*refused, *accepted]).status == "unknown"


def test_the_same_observations_give_the_same_plan() -> None:
    def bursts() -> list[Burst]:
        sent: list[Burst] = []
        world = VirtualLimiter(TokenBucket(LIMIT, PERIOD_S), NetworkNoise(), seed=1)
        steps = plan(PlanOptions(), START_S)
        burst = next(steps)
        try:
            while True:
                sent.append(burst)
                burst = steps.send(world.answer(burst))
        except StopIteration:
            return sent

    assert bursts() == bursts()


def test_a_probe_resumes_from_earlier_observations() -> None:
    model = FixedWindow(LIMIT, PERIOD_S)
    world, steps = VirtualLimiter(model, NetworkNoise(), seed=1), plan(PlanOptions(), START_S)
    earlier: list[Observation] = []
    burst = next(steps)
    for _ in range(25):
        observed = world.answer(burst)
        earlier += observed
        burst = steps.send(observed)
    resumed = plan(PlanOptions(earlier=tuple(earlier)), earlier[-1].decided_s + 100)
    verdict = VirtualLimiter(model, NetworkNoise(), seed=2).play(resumed)
    assert verdict.families == ("fixed_window",)
    assert verdict.attempts > len(earlier)


def test_limits_toml_configures_the_fit_for_the_sandbox() -> None:
    verdict = probe(SlidingLog(LIMIT, PERIOD_S, count_refused=True))
    assert verdict.best is not None
    text = limits_toml(replace(verdict.best, period_s=10.0), "a-run")
    assert 'limit = 12\nperiod_s = 10.0\nalgorithm = "sliding_log"\ncount_refused = true\n' in text
