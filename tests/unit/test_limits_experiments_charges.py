"""The charges experiment, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.simulation.virtual_api import START_S, VirtualApi, virtual_limits
from bltybench.limits.experiments.charges_analysis import analyze
from bltybench.limits.experiments.charges_steps import steps
from bltybench.limits.fit.result import Fit
from bltybench.limits.observations.answer import Answer
from bltybench.limits.probe.context import ProbeContext
from bltybench.scenario.target import RateLimit


def fitted(family: str, limit: int, period_s: float, *, count_refused: bool | None = None) -> Fit:
    phased = family in {"fixed_window", "sliding_counter"}
    return Fit(
        family=family,
        limit=limit,
        limit_range=(limit, limit),
        period_s=period_s,
        period_range_s=(0.995 * period_s, 1.005 * period_s),
        phase="clock" if phased else None,
        edge_s=START_S - START_S % period_s if phased else None,
        ticks=None,
        count_refused=count_refused,
        contradictions=0,
        cost=0,
    )


def run_experiment(api: VirtualApi, *fits: Fit, **facts: Any) -> dict[str, Answer]:
    defaults: dict[str, Any] = {"latency_s": 0.03, "second_key": True, "other_model": "b", "with_401": True}
    context = ProbeContext(fits=fits, **(defaults | facts))
    return {answer.question: answer for answer in analyze(api.play(steps(context, START_S)), context)}


@pytest.mark.parametrize(("charged", "models"), [((), ()), ((400,), ()), ((404,), ("models",))])
@pytest.mark.parametrize("limit", [3, 8, 60])
@pytest.mark.parametrize(
    "family", ["fixed_window", "first_hit_window", "sliding_log", "sliding_counter", "token_bucket"]
)
def test_kinds_of_requests_that_count_are_identified(
    family: str, limit: int, models: tuple[str, ...], charged: tuple[int, ...]
) -> None:
    rule = RateLimit.model_validate({"limit": limit, "period_s": 20.0, "algorithm": family})
    limits = virtual_limits(requests=rule, charged_errors=charged, charged_endpoints=models)
    answers = run_experiment(
        VirtualApi(limits, ttft_s=0.01, jitter=0.3), fitted(family, limit, 20.0, count_refused=False)
    )
    assert answers["malformed_counts"].value is (400 in charged)
    assert answers["unknown_model_counts"].value is (404 in charged)
    assert answers["models_endpoint_counts"].value is bool(models)
    assert answers["wrong_key_counts"].value is False
    assert answers["refused_counts"].value is False
    assert answers["models_endpoint_shares"].value is bool(models)


@pytest.mark.parametrize("short", ["fixed_window", "token_bucket"])
def test_what_counts_in_two_limits_is_identified(short: str) -> None:
    """The short limit ends each burst, and the long one would not bear several in one of its periods."""
    long = {"limit": 30, "period_s": 60.0, "algorithm": "sliding_log"}
    rule = RateLimit.model_validate({"limit": 12, "period_s": 5.0, "algorithm": short, "also": long})
    api = VirtualApi(virtual_limits(requests=rule, charged_errors=(400,), per=("model",)), ttft_s=0.01)
    fit = replace(fitted("sliding_log", 30, 60.0, count_refused=False), also=fitted(short, 12, 5.0))
    answers = run_experiment(api, fit)
    assert answers["malformed_counts"].value is True
    assert answers["unknown_model_counts"].value is False
    assert answers["models_endpoint_counts"].value is False
    # A bucket gains tokens faster than requests could be sent while it is exhausted.
    assert answers["refused_counts"].value is (None if short == "token_bucket" else False)
    assert answers["limit_per_key"].value is False
    assert answers["limit_per_model"].value is True


@pytest.mark.parametrize("per", [(), ("key",), ("model",), ("key", "model")])
def test_scope_of_the_limit_is_identified(per: tuple[str, ...]) -> None:
    limits = virtual_limits(requests=RateLimit(limit=20, period_s=10.0), per=per)
    answers = run_experiment(VirtualApi(limits, ttft_s=0.01), fitted("fixed_window", 20, 10.0))
    assert answers["limit_per_key"].value is ("key" in per)
    assert answers["limit_per_model"].value is ("model" in per)


@pytest.mark.parametrize("family", ["sliding_log", "sliding_counter", "first_hit_counter"])
def test_refused_requests_that_count_are_identified(family: str) -> None:
    rule = RateLimit.model_validate(
        {"limit": 20, "period_s": 10.0, "algorithm": family, "count_refused": True}
    )
    answers = run_experiment(
        VirtualApi(virtual_limits(requests=rule), ttft_s=0.01), fitted(family, 20, 10.0, count_refused=True)
    )
    assert answers["refused_counts"].value is True
    assert answers["malformed_counts"].value is False


def test_missing_key_and_model_are_given_as_reasons() -> None:
    limits = virtual_limits(requests=RateLimit(limit=20, period_s=10.0))
    api = VirtualApi(limits, ttft_s=0.01)
    answers = run_experiment(
        api, fitted("fixed_window", 20, 10.0), second_key=False, other_model=None, with_401=False
    )
    assert "--probe-second-key-env" in str(answers["limit_per_key"].reason)
    assert "--probe-model" in str(answers["limit_per_model"].reason)
    assert "wrong_key_counts" not in answers


def test_shared_quota_gives_no_answer_on_invalid_requests() -> None:
    limits = virtual_limits(requests=RateLimit(limit=60, period_s=20.0))
    api = VirtualApi(limits, ttft_s=0.01, others=lambda rng: int(rng.random() < 0.25))
    answers = run_experiment(api, fitted("fixed_window", 60, 20.0))
    assert answers["malformed_counts"].value is None
    assert answers["unknown_model_counts"].value is None


def test_small_budget_or_unknown_limit_sends_nothing() -> None:
    api = VirtualApi(virtual_limits())
    assert (
        run_experiment(api, fitted("fixed_window", 60, 60.0), requests_left=50)["malformed_counts"].value
        is None
    )
    assert run_experiment(api)["limit_per_key"].value is None
    assert not api.requests


def test_drain_that_contradicts_the_fitted_limit_gives_no_answer() -> None:
    limits = virtual_limits(requests=RateLimit(limit=60, period_s=20.0))
    wrong = replace(fitted("fixed_window", 60, 20.0), limit=57, limit_range=(57, 57))
    assert run_experiment(VirtualApi(limits, ttft_s=0.01), wrong)["malformed_counts"].value is None


def test_window_that_resets_later_than_predicted_does_not_count_refused_requests() -> None:
    rule = RateLimit.model_validate({"limit": 12, "period_s": 10.0, "algorithm": "fixed_window"})
    late = replace(fitted("fixed_window", 12, 10.0), phase="other", edge_s=START_S - START_S % 10.0 - 0.5)
    answers = run_experiment(
        VirtualApi(virtual_limits(requests=rule, headers="no_retry_after"), ttft_s=0.01), late
    )
    assert answers["refused_counts"].value is None
    assert "window resets" in str(answers["refused_counts"].reason)


def test_counter_is_tested_after_its_latest_possible_reset() -> None:
    rule = RateLimit.model_validate({"limit": 12, "period_s": 20.0, "algorithm": "sliding_counter"})
    true = replace(fitted("sliding_counter", 12, 20.0), phase="other")
    early = replace(true, edge_s=START_S - START_S % 20.0 - 0.9, variants=(true,))
    answers = run_experiment(VirtualApi(virtual_limits(requests=rule), ttft_s=0.01), early)
    assert answers["refused_counts"].value is False


def test_use_by_other_clients_is_not_mistaken_for_counting_refused_requests() -> None:
    for seed in range(5):
        limits = virtual_limits(requests=RateLimit(limit=20, period_s=10.0, algorithm="sliding_log"))
        api = VirtualApi(limits, ttft_s=0.01, seed=seed, others=lambda rng: int(rng.random() < 0.3))
        assert run_experiment(api, fitted("sliding_log", 20, 10.0))["refused_counts"].value is not True
