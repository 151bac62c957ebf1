"""The fit and the plan, in virtual time: right where it can be told, silent where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from bltybench.limits.findings.limits_toml import limits_toml
from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.models import (
    FirstHitCounter,
    FirstHitWindow,
    FixedWindow,
    IntervalRefill,
    Model,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)
from bltybench.limits.models.base import Admission
from bltybench.limits.observations.observation import Observation, Observations
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
    "lumps": ("interval_refill", lambda: IntervalRefill(LIMIT, PERIOD_S)),
}


def probe(model: Model, aims: PlanOptions | None = None, noise: NetworkNoise | None = None) -> Verdict:
    return VirtualLimiter(model, noise or NetworkNoise(), seed=1).play(plan(aims or PlanOptions(), START_S))


@pytest.mark.parametrize("name", ["clock", "log that counts refusals", "first-hit counter", "bucket"])
def test_the_full_plan_finds_every_family(name: str) -> None:
    family, make = MODELS[name]
    verdict = probe(make())
    assert family in verdict.families
    best = next(each for each in verdict.consistent if each.family == family)
    if verdict.status == "found":
        assert verdict.families == (family,)
        assert best.limit_range[0] <= LIMIT <= best.limit_range[1]
        assert best.period_s == pytest.approx(PERIOD_S, rel=0.02)
        assert verdict.confidence is not None
        assert verdict.confidence > 0.9


@pytest.mark.parametrize("name", MODELS)
def test_the_quick_plan_keeps_to_its_cost(name: str) -> None:
    family, make = MODELS[name]
    world = VirtualLimiter(make(), NetworkNoise(), seed=1)
    verdict = world.play(plan(PlanOptions(quick=True, period_s=PERIOD_S, limit=LIMIT), START_S))
    # A refill in lumps takes more periods than the quick plan has: it may say so instead.
    assert family in verdict.families or (name == "lumps" and verdict.status == "unknown")
    assert verdict.attempts <= PLAN.quick_budget
    assert world.busy_s <= 2 * PERIOD_S


def test_an_edge_that_the_server_set_is_not_taken_for_the_first_hit() -> None:
    """One round cannot tell the two; the full plan repeats it at another phase."""
    quick = probe(FixedWindow(LIMIT, PERIOD_S, 3.7), PlanOptions(quick=True, period_s=PERIOD_S, limit=LIMIT))
    assert quick.best is not None
    full = probe(FixedWindow(LIMIT, PERIOD_S, 3.7))
    assert full.families == ("fixed_window",)
    assert full.best is not None
    assert full.best.phase == "other"
    assert full.best.phase_s() == pytest.approx(3.7, abs=0.2)


def test_a_small_burst_is_not_taken_for_a_short_window() -> None:
    verdict = probe(TokenBucket(60, 60.0, burst=5))
    assert verdict.families == ("token_bucket",)
    assert verdict.best is not None
    assert verdict.best.limit == 5
    assert verdict.best.rate_per_min == pytest.approx(60, rel=0.02)


def test_lost_answers_do_not_mislead() -> None:
    verdict = probe(SlidingLog(LIMIT, PERIOD_S), noise=NetworkNoise(lost=0.02, jitter=0.4))
    assert "sliding_log" in verdict.families or verdict.status == "unknown"


class Open(Model):
    """Lets everything in, or nothing."""

    def __init__(self, *, shut: bool) -> None:
        super().__init__(1, 1.0)
        self._shut = shut

    def _advance(self, t_s: float) -> None: ...

    def _fits(self, t_s: float, cost: float) -> bool:
        return not self._shut

    def _free_at(self, t_s: float, cost: float) -> float:
        return float("inf")

    def _charge(self, t_s: float, cost: float) -> None: ...

    def _refund(self, charged_s: float, cost: float) -> None: ...

    def remaining(self, t_s: float) -> float:
        return 0.0

    def reset_s(self, t_s: float) -> float:
        return 0.0


def test_a_server_that_never_refuses_stops_at_the_budget() -> None:
    verdict = probe(Open(shut=False), PlanOptions(budget=90))
    assert verdict.status == "never_refused"
    assert verdict.attempts <= 90


def test_a_server_that_always_refuses_is_given_up() -> None:
    verdict = probe(Open(shut=True), PlanOptions(budget=90, max_wait_s=30))
    assert verdict.status == "always_refused"
    assert verdict.attempts <= 90


class Shared(FixedWindow):
    """A window that others use too, as they please."""

    def __init__(self) -> None:
        super().__init__(LIMIT, PERIOD_S)
        self._others = iter(range(10**6))

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        for _ in range((next(self._others) * 7919) % 3):
            super().decide(t_s, cost)
        return super().decide(t_s, cost)


def test_a_quota_that_others_use_too_is_not_given_an_exact_limit() -> None:
    verdict = probe(Shared())
    assert verdict.status != "found" or verdict.best is None or verdict.best.limit != LIMIT


def test_nothing_sent_is_said() -> None:
    assert fit_limiter([]).status == "nothing_sent"


def test_an_end_at_the_first_refusal_is_not_enough() -> None:
    seen = [Observation(float(t), t + 0.01, t < 5) for t in range(6)]
    verdict = fit_limiter(seen)
    assert verdict.status == "unknown"
    assert "end too soon" in verdict.reason


def test_refusals_that_end_for_good_break_nothing() -> None:
    """No acceptance is before a refusal, so nothing shows what a full bucket would hold."""
    refused = [Observation(t * 0.01, t * 0.01 + 0.001, False) for t in range(60)]
    let_in = [Observation(2 + t * 0.01, 2 + t * 0.01 + 0.001, True) for t in range(30)]
    assert fit_limiter([*refused, *let_in]).status == "unknown"


def test_the_same_answers_give_the_same_plan() -> None:
    def bursts() -> list[Burst]:
        found: list[Burst] = []
        world, playing = (
            VirtualLimiter(TokenBucket(LIMIT, PERIOD_S), NetworkNoise(), seed=1),
            plan(PlanOptions(), START_S),
        )
        burst = next(playing)
        try:
            while True:
                found.append(burst)
                burst = playing.send(world.answer(burst))
        except StopIteration:
            return found

    assert bursts() == bursts()


def test_a_probe_goes_on_from_what_was_seen_before() -> None:
    model = FixedWindow(LIMIT, PERIOD_S)
    world, playing, seen = (
        VirtualLimiter(model, NetworkNoise(), seed=1),
        plan(PlanOptions(), START_S),
        list[Observation](),
    )
    burst = next(playing)
    for _ in range(25):
        got = world.answer(burst)
        seen += got
        burst = playing.send(got)
    resumed = PlanOptions(earlier=tuple(seen))
    verdict = VirtualLimiter(model, NetworkNoise(), seed=2).play(plan(resumed, seen[-1].decided_s + 100))
    assert verdict.families == ("fixed_window",)
    assert verdict.attempts > len(seen)


def test_what_was_found_is_written_in_the_sandboxs_own_words() -> None:
    verdict = probe(SlidingLog(LIMIT, PERIOD_S, count_refused=True))
    assert verdict.best is not None
    text = limits_toml(replace(verdict.best, period_s=10.0), "a-run")
    assert 'limit = 12\nperiod_s = 10.0\nalgorithm = "sliding_log"\ncount_refused = true\n' in text


def test_requests_in_flight_together_have_no_order() -> None:
    sights = Observations(
        [Observation(0.0, 1.0, True), Observation(0.5, 0.6, False), Observation(2.0, 2.1, True)]
    )
    before, after = sights.offsets(sights.accepted.astype("int64"))
    assert before.tolist() == [0, 1, 0]
    assert after.tolist() == [0, 0, 0]


def test_requests_decided_alike_can_change_places() -> None:
    sights = Observations(
        [Observation(0.0, 1.0, True), Observation(0.5, 0.6, True), Observation(2.0, 2.1, True)]
    )
    assert sights.hi.tolist() == [0.6, 1.0, 2.1]
    before, _ = sights.offsets(sights.accepted.astype("int64"))
    assert before.tolist() == [0, 0, 0]
