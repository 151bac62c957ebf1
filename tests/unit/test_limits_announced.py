"""The period that rate-limit headers announce: a hypothesis of the quick plan, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from benchmarks.limit_cases import judge, play
from benchmarks.simulation.virtual_api import VirtualApi, virtual_limits
from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from benchmarks.simulation.virtual_probe import probe
from bltybench.limits.fit.result import Verdict
from bltybench.limits.models.base import Admission
from bltybench.limits.models.families import FAMILIES
from bltybench.limits.observations.announcement import Announcement, announced_window_s
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.announced_period import announced_period_s
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions
from bltybench.limits.session import ProbeTask
from bltybench.scenario.target import RateLimit

START_S = 1_795_358_417.3
LIMIT, PERIOD_S = 20, 7.0
Announce = Callable[[Admission], Announcement]


def window(ratio: float) -> Announce:
    return lambda admission: Announcement(LIMIT, int(admission.remaining), window_s=ratio * PERIOD_S)


def whole_reset(ratio: float) -> Announce:
    return lambda admission: Announcement(
        LIMIT, int(admission.remaining), float(math.ceil(ratio * admission.reset_s))
    )


def quick(family: str, announce: Announce | None, seed: int = 1) -> tuple[Verdict, float]:
    """Return the verdict of the quick plan that knows no period, and the seconds it took."""
    model = FAMILIES[family].model(LIMIT, PERIOD_S)
    server = VirtualLimiter(model, NetworkNoise(latency_s=0.01), seed, announce)
    return server.play(plan(PlanOptions(quick=True), START_S + seed)), server.busy_s


@pytest.mark.parametrize(
    ("header", "value", "limit", "window_s"),
    [
        ("ratelimit-policy", "100;w=60", 100, 60.0),
        ("RateLimit-Policy", '"minute";q=100;w=60', 100, 60.0),
        ("ratelimit-policy", '"second";q=10;w=1, "minute";q=100;w=60', 100, 60.0),
        ("ratelimit-limit", "10, 10;w=1, 100;w=60", 10, 1.0),
        ("x-ratelimit-policy", '"a"; q=5; w="30"', None, 30.0),
        ("x-acme-rate-limit-policy", "5;w=30", 7, 30.0),
        ("ratelimit-policy", '"tokens";q=1000;w=60, 5;w=10', 1000, 10.0),
        ("ratelimit-policy", 'a;q=1000;w=60;qu="content-bytes"', 1000, None),
        ("ratelimit-policy", "100;w=0", 100, None),
        ("ratelimit-policy", "100;w=nonsense", 100, None),
        ("ratelimit-limit", "100", 100, None),
        ("cache-policy", "100;w=60", 100, None),
    ],
)
def test_the_window_of_a_policy_is_read(
    header: str, value: str, limit: int | None, window_s: float | None
) -> None:
    assert announced_window_s([("date", "w=5"), (header, value)], limit) == window_s


@pytest.mark.parametrize(
    ("resets", "period_s"),
    [
        (((19, 7.0), (18, 6.9)), 7.0),
        (((19, 0.35), (18, 0.7)), 7.0),
        (((19, 43.0), (18, 43.0)), 60.0),
        (((19, 30.0), (18, 29.0)), 30.0),
        (((19, 119.0), (18, 118.0)), 120.0),
        (((19, 0.0), (18, 0.0)), None),
        ((), None),
    ],
    ids=["window", "bucket", "rest of a minute", "half a minute", "two minutes", "zero", "nothing"],
)
def test_resets_suggest_a_period(resets: tuple[tuple[int, float], ...], period_s: float | None) -> None:
    observations = [
        Observation(at_s, at_s, True, announced=Announcement(LIMIT, remaining, reset_s))
        for at_s, (remaining, reset_s) in enumerate(resets)
    ]
    assert announced_period_s(observations) == (None if period_s is None else pytest.approx(period_s))


@pytest.mark.parametrize("family", ["fixed_window", "sliding_log"])
def test_the_quick_plan_leaves_few_families_in_half_the_time_if_the_period_is_announced(family: str) -> None:
    _, slow_s = quick(family, None)
    for announce, max_s in ((window(1), 3.1 * PERIOD_S), (whole_reset(1), 0.5 * slow_s)):
        verdict, busy_s = quick(family, announce)
        assert busy_s <= max_s
        assert family in verdict.families
        assert len(verdict.families) <= 3


@pytest.mark.parametrize(
    ("family", "announce"),
    [
        ("fixed_window", window(0.5)),
        ("sliding_log", window(0.1)),
        ("token_bucket", whole_reset(0.5)),
    ],
)
def test_a_false_announced_period_is_refuted(family: str, announce: Announce) -> None:
    verdict, _ = quick(family, announce)
    assert judge(verdict, family, LIMIT, PERIOD_S, by_class=True) != "wrong", verdict.consistent


def test_a_log_that_counts_refused_requests_is_found_if_the_run_takes_hundreds_of_periods() -> None:
    (case,) = play(7_700_004, "announced", "sliding log, counts refused")
    assert case.judged != "wrong", case.said


def test_a_day_is_no_period_that_the_quick_plan_waits_for() -> None:
    _, busy_s = quick("fixed_window", lambda _: Announcement(LIMIT, 1, window_s=86_400.0))
    assert busy_s < 200


def test_a_quick_probe_reads_the_reset_of_an_api() -> None:
    rule = RateLimit.model_validate({"limit": 20, "period_s": 10.0, "algorithm": "sliding_log"})
    api = VirtualApi(virtual_limits(requests=rule), ttft_s=0.005, latency_s=0.005)
    start_s = api.now_s
    findings = probe(api, ProbeTask(questions=("requests",), quick=True))
    assert api.now_s - start_s < 50
    assert "sliding_log" in findings.verdict.families
    assert len(findings.verdict.families) <= 2
