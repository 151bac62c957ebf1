"""Two limits at once, as the probe meets them: a longer limit that is hit late, and lost responses."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from benchmarks.limit_pairs import Pair, judge
from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from bltybench.limits.fit.charges import ChargeBounds
from bltybench.limits.fit.result import Verdict
from bltybench.limits.fit.scoring import allowed_cost
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.models import FixedWindow, SlidingLog
from bltybench.limits.models.base import Model
from bltybench.limits.observations.observation import ACCEPTED, UNKNOWN, Observation, Observations
from bltybench.limits.pairs.one_sided import explained_by
from bltybench.limits.pairs.select import fit_limits
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions

START_S = 1_795_358_400.0


def probe(model: Model, noise: NetworkNoise, seed: int, start_s: float = START_S) -> Verdict:
    return VirtualLimiter(model, noise, seed).play(plan(PlanOptions(budget=800), start_s))


def test_probe_finds_a_longer_limit_that_is_hit_only_after_the_first_one_was_named() -> None:
    pair = Pair(SlidingLog(4, 0.5), SlidingLog(25, 5.0))
    verdict = probe(pair, NetworkNoise(0.005, 0.1, 0.1, 0.0), 8)
    assert judge(verdict, pair) == "right", verdict.reason


def test_probe_ends_only_when_the_last_refusals_end_as_predicted() -> None:
    """The longer limit is exhausted by the last burst that narrows the period of the shorter one."""
    pair = Pair(FixedWindow(5, 3.0), SlidingLog(33, 60.0))
    assert judge(probe(pair, NetworkNoise(0.02, 0.08, 0.1, 0.0), 0), pair) != "wrong"


def test_lost_response_next_to_a_removed_refusal_is_not_assumed_to_be_accepted() -> None:
    lost = Observation(START_S + 0.2, START_S + 0.21, None)
    accepted = [Observation(START_S + at, START_S + at + 0.01, accepted=True) for at in (0, 0.1, 0.3, 0.4)]
    for one, code in ((lost, ACCEPTED), (replace(lost, beside_removed=True), UNKNOWN)):
        bounds = ChargeBounds(Observations([*accepted, one]), count_refused=False)
        assert bounds.charges[2] == code


def test_a_window_can_have_made_the_refusals_that_any_equivalent_phase_explains() -> None:
    model, at_s = FixedWindow(14, 0.5), START_S
    observed: list[Observation] = []
    rng = random.Random(3)
    while len(observed) < 300:
        at_s += rng.choice((0.005, 0.005, 0.005, 0.3))
        observed.append(Observation(at_s, at_s + 0.004, model.decide(at_s + 0.012).accepted))
    best = fit_limiter(observed).best
    assert best is not None
    observations = Observations(observed)
    shifted = replace(best, edge_s=best.edge_s and best.edge_s + 0.2)
    assert np.array_equal(explained_by(shifted, observations), observations.refused)


def test_range_of_a_period_of_few_response_times_contains_the_actual_one() -> None:
    """Most decisions near the end of such a period are ambiguous, so the best period is too long."""
    verdict = probe(SlidingLog(2, 0.6), NetworkNoise(0.05, 0.1, 0.1, 0.02), 0)
    low_s, high_s = next(fit.period_range_s for fit in verdict.fits if fit.family == "sliding_log")
    assert low_s <= 0.6 <= high_s


def test_a_probe_allows_few_contradictions_however_many_requests_it_sent() -> None:
    observed = Observations([Observation(float(at), at + 0.1, at % 3 > 0) for at in range(900)])
    assert allowed_cost(observed, probed=True) < allowed_cost(observed)


def test_random_refusals_are_no_two_limits() -> None:
    rng = random.Random(7)
    times = sorted(rng.uniform(0, 60) for _ in range(300))
    verdict = fit_limits([Observation(at, at + 0.01, rng.random() > 0.4) for at in times])
    assert not verdict.consistent
