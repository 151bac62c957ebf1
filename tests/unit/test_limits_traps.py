"""What looks like something else, in virtual time: named rightly, or not at all."""

from __future__ import annotations

from itertools import cycle
from random import Random

import pytest

from benchmarks.limit_cases import play
from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from benchmarks.unmodeled_limiters import Ban, Forgetful
from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.search import FamilySearch
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.models import (
    FirstHitCounter,
    FirstHitWindow,
    FixedWindow,
    IntervalRefill,
    SlidingLog,
    TokenBucket,
)
from bltybench.limits.models.base import Admission, Model
from bltybench.limits.observations.observation import Observation, Observations
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions

START_S = 1_795_358_417.3
PERIOD_S = 10.0
LIMIT = 12


def quick(model: Model, period_s: float = PERIOD_S) -> Verdict:
    aims = PlanOptions(quick=True, period_s=period_s, limit=LIMIT)
    return VirtualLimiter(model, NetworkNoise(latency_s=0.005), seed=1).play(plan(aims, START_S))


class Nodes(FixedWindow):
    """Two nodes behind a balancer, each with a window of its own."""

    def __init__(self) -> None:
        super().__init__(LIMIT, PERIOD_S)
        self._nodes = cycle([FixedWindow(LIMIT, PERIOD_S), FixedWindow(LIMIT, PERIOD_S, 4.0)])

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        return next(self._nodes).decide(t_s, cost)


def test_a_limiter_on_several_nodes_is_not_given_the_limit_of_one() -> None:
    verdict = VirtualLimiter(Nodes(), NetworkNoise(), seed=1).play(
        plan(PlanOptions(budget=300, rounds=2), START_S)
    )
    assert verdict.status != "found" or verdict.best is None or verdict.best.limit != LIMIT


def test_a_ban_is_not_taken_for_a_window() -> None:
    """Used up at once after it has ended, it ends as regularly as a window turns; used up later, later."""
    for seed in range(4):
        model = Ban(FirstHitWindow(LIMIT, PERIOD_S), 2 * PERIOD_S)
        verdict = VirtualLimiter(model, NetworkNoise(), seed).play(plan(PlanOptions(), START_S + seed))
        assert verdict.status == "unknown", verdict.consistent


def test_a_ban_is_not_taken_for_a_longer_log() -> None:
    """Who asks too soon after the log has room again is banned anew, so that room seems to come later."""
    for seed in range(3):
        model = Ban(SlidingLog(3 * LIMIT, PERIOD_S), PERIOD_S / 2)
        verdict = VirtualLimiter(model, NetworkNoise(0.05, 0.25), seed).play(
            plan(PlanOptions(budget=800), START_S + seed)
        )
        assert verdict.status == "unknown", verdict.consistent


def test_a_bucket_that_forgets_is_not_taken_for_a_refill_in_lumps() -> None:
    """Lumps of one, of some period and phase, explain it for a while; but those are a bucket's."""
    reasons = []
    for seed, (limit, period_s) in enumerate(((10, 5.0), (15, 20.0), (30, 10.0))):
        verdict = VirtualLimiter(Forgetful(limit, period_s), NetworkNoise(), seed).play(
            plan(PlanOptions(), START_S + seed)
        )
        assert verdict.status != "found", verdict.consistent
        reasons.append(verdict.reason)
    assert any("discard" in reason for reason in reasons), reasons
    assert not any("ban" in reason for reason in reasons), reasons


@pytest.mark.parametrize(("limit", "period_s", "ticks"), [(20, 10.0, 10), (10, 5.0, 5), (60, 60.0, 4)])
def test_lumps_are_watched_for_as_long_as_it_takes_to_name_them(
    limit: int, period_s: float, ticks: int
) -> None:
    for seed in range(3):
        verdict = VirtualLimiter(IntervalRefill(limit, period_s, ticks), NetworkNoise(), seed).play(
            plan(PlanOptions(), START_S)
        )
        assert (verdict.status, verdict.families) == ("found", ("interval_refill",)), verdict.reason


def test_the_quick_plan_tells_a_log_from_a_window_though_no_limit_is_named() -> None:
    for seed in range(3):
        aims = PlanOptions(quick=True, period_s=PERIOD_S)
        verdict = VirtualLimiter(SlidingLog(20, PERIOD_S), NetworkNoise(latency_s=0.005), seed).play(
            plan(aims, START_S)
        )
        assert verdict.families == ("sliding_log",)
        assert verdict.consistent[0].limit == 20


def test_slow_answers_that_break_a_burst_are_sent_more_at_a_time() -> None:
    """One after another, 0.4 s each, never reach 4 a second."""
    model = TokenBucket(LIMIT, 3.0)
    verdict = VirtualLimiter(model, NetworkNoise(latency_s=0.4, jitter=0.05), seed=1).play(
        plan(PlanOptions(budget=400), START_S)
    )
    assert verdict.refused
    assert verdict.status in {"ambiguous", "unknown"} or verdict.families == ("token_bucket",)


def test_the_quick_plan_tells_a_first_hit_window_from_a_counter() -> None:
    # That a window of the server's own began just with the first request is not ruled out by two periods.
    assert set(quick(FirstHitWindow(LIMIT, PERIOD_S)).families) <= {"first_hit_window", "fixed_window"}
    assert "first_hit_counter" in quick(FirstHitCounter(LIMIT, PERIOD_S)).families


def test_a_counter_that_begins_with_the_first_request_is_found_though_another_period_is_documented() -> None:
    """A hundredth beside its period, nothing fits any more."""
    aims = PlanOptions(quick=True, period_s=96.204, limit=49)
    verdict = VirtualLimiter(FirstHitCounter(49, 48.102), NetworkNoise(0.05, 0.1), seed=1).play(
        plan(aims, START_S)
    )
    found = [each for each in verdict.consistent if each.family == "first_hit_counter"]
    assert found
    assert found[0].limit_range[0] <= 49 <= found[0].limit_range[1]
    assert found[0].period_s == pytest.approx(48.102, rel=0.01)


def test_two_periods_do_not_tell_the_limit_of_a_refill_in_lumps() -> None:
    (case,) = play(5_100_001, "quick")
    assert case.kind == "interval refill, four ticks"
    assert (case.named, case.judged) == ("unknown", "abstained")
    assert "interval refill" in case.said


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (
            4_000_147,
            "simpler families contradict so much of it that it was taken for chance, and lumps not tried",
        ),
        (4_000_343, "another tick happens to suit on the grid, with lost answers read for it"),
    ],
)
def test_lumps_that_were_missed(number: int, why: str) -> None:
    (case,) = play(number, "full")
    assert (case.named, case.judged) == ("interval_refill", "right"), (why, case.said)


def test_a_false_documented_period_is_not_believed() -> None:
    verdict = quick(FixedWindow(LIMIT, PERIOD_S), period_s=2 * PERIOD_S)
    fixed = [each for each in verdict.consistent if each.family == "fixed_window"]
    assert fixed
    assert fixed[0].period_range_s[0] <= 1.02 * PERIOD_S


def test_who_hammers_once_a_second_is_not_told_of_a_counter_of_one() -> None:
    """A window of a second would explain each decision by doubt alone."""
    model = FixedWindow(10, 60.0)
    seen = [Observation(t, t + 0.01, model.decide(t).accepted) for t in (50.0 + each for each in range(200))]
    verdict = fit_limiter(seen, hints_s=(60.0,))
    assert verdict.families == ("fixed_window",)
    assert verdict.best is not None
    assert verdict.best.limit == 10


def test_refusals_by_chance_are_explained_by_nothing() -> None:
    draw = Random(4)
    seen = [
        Observation(at / 50, at / 50 + 0.01, draw.random() > 0.3)
        for at in sorted(draw.uniform(0, 3000) for _ in range(1200))
    ]
    verdict = fit_limiter(seen)
    assert verdict.status == "unknown"
    # A part of them was enough to see it, and what contradicts is counted among that part.
    assert "no family fits" in verdict.reason
    assert f"of {verdict.attempts} decisions" in verdict.reason
    assert verdict.attempts < len(seen)
    # No lump that suits what was seen gives such a rate: then one is judged all the same.
    assert FamilySearch("interval_refill", Observations(seen), rates_per_s=(1e6, 2e6)).cost > 0


def test_refusals_that_end_only_with_lost_answers_between_do_not_end_the_fit() -> None:
    """No stretch of a long run then holds an acceptance right after a refusal."""
    kinds = [*[True] * 700, *[False] * 700, None, *[True] * 700]
    verdict = fit_limiter([Observation(float(at), at + 0.01, kind) for at, kind in enumerate(kinds)])
    assert verdict.attempts == len(kinds)
