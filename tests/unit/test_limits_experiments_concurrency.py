"""The concurrency experiment, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.simulation.virtual_api import START_S, VirtualApi, virtual_limits
from bltybench.limits.experiments.concurrency_analysis import analyze
from bltybench.limits.experiments.concurrency_steps import steps
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import CancelStep, Experiment, SendStep
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import RateLimit


def run_experiment(api: VirtualApi, **facts: Any) -> dict[str, Answer]:
    context = ProbeContext(**facts)
    return {answer.question: answer for answer in analyze(api.play(steps(context, START_S)), context)}


def cut_short(experiment: Experiment, requests: int) -> Experiment:
    """Yield the steps of an experiment up to this many requests, then cancel what is in flight."""
    results: Sequence[ProbeResult] = ()
    step = next(experiment)
    while len(results) < requests:
        if isinstance(step, SendStep):
            step = replace(step, requests=step.requests[: requests - len(results)])
        results = yield step
        try:
            step = experiment.send(results)
        except StopIteration:
            return
    yield CancelStep()


@pytest.mark.parametrize("latency_s", [0.005, 0.1])
@pytest.mark.parametrize("keeps_slot", [False, True])
@pytest.mark.parametrize("excess", ["refused", "queued"])
@pytest.mark.parametrize(("limit", "documented"), [(1, None), (5, None), (50, 50), (37, 50), (60, 50)])
def test_limit_excess_and_cancellation_are_identified(
    limit: int, documented: int | None, excess: str, keeps_slot: bool, latency_s: float
) -> None:
    limits = virtual_limits(concurrency=limit, concurrency_excess=excess, cancelled_keeps_slot=keeps_slot)
    # Some refusals give no reason, and some servers send no headers before the first token.
    api = VirtualApi(limits, early_headers=latency_s < 0.05, latency_s=latency_s, jitter=0.4, terse=limit > 5)
    answers = run_experiment(api, concurrency=documented, never_refused=True)
    assert answers["concurrency_limit"].value == limit, answers
    assert answers["concurrency_excess"].value == excess
    assert answers["cancelled_frees_slot"].value is not keeps_slot
    assert all((answer.confidence or 0) > 0.9 for answer in answers.values())


def test_request_limit_below_the_concurrency_limit_gives_a_lower_bound() -> None:
    limits = virtual_limits(requests=RateLimit(limit=30))
    answers = run_experiment(VirtualApi(limits), requests_per_min=30)
    limit = answers["concurrency_limit"]
    assert limit.value is None
    assert limit.range is not None
    assert limit.range[0] == 22
    assert "allowed no more" in str(limit.reason)


def test_request_limit_below_the_documented_one_is_not_mistaken_for_concurrency() -> None:
    limits = virtual_limits(requests=RateLimit(limit=20))
    answers = run_experiment(VirtualApi(limits, terse=True), requests_per_min=60)
    assert answers["concurrency_limit"].value is None
    assert "another limit" in str(answers["concurrency_limit"].reason)


def test_bucket_refill_is_not_mistaken_for_a_freed_slot() -> None:
    bucket = RateLimit(limit=31, period_s=5.0, algorithm="token_bucket")
    for seed in range(10):
        api = VirtualApi(virtual_limits(requests=bucket), latency_s=0.002, ttft_s=0.002, seed=seed)
        api.quotas.of("first", "a").admit(START_S - seed / 50, CallSize(0, 0))
        answers = run_experiment(api, requests_per_min=372)
        assert answers["concurrency_limit"].value is None, answers
        assert "another limit" in str(answers["concurrency_limit"].reason)


def test_window_reset_while_streams_end_is_not_mistaken_for_kept_slots() -> None:
    window = RateLimit(limit=43, period_s=10.0, algorithm="first_hit_window")
    api = VirtualApi(virtual_limits(requests=window), latency_s=0.002, ttft_s=0.002, itl_s=0.03)
    answers = run_experiment(api, requests_per_min=258)
    assert answers["concurrency_limit"].value is None, answers
    assert "request limit" in str(answers["concurrency_limit"].reason)


@pytest.mark.parametrize(
    ("algorithm", "limit", "period_s"), [("first_hit_window", 7, 2.0), ("fixed_window", 10, 4.0)]
)
def test_streams_that_end_before_the_control_show_no_concurrency_limit(
    algorithm: str, limit: int, period_s: float
) -> None:
    """The window resets in the meantime, so the retry and the control are accepted."""
    rule = {"limit": limit, "period_s": period_s, "algorithm": algorithm}
    limits = virtual_limits(requests=RateLimit.model_validate(rule))
    api = VirtualApi(limits, terse=True, latency_s=0.002, ttft_s=0.002, itl_s=0.01)
    answers = run_experiment(api, requests_per_min=round(limit * 60 / period_s))
    assert answers["concurrency_limit"].value is None, answers
    assert "another limit" in str(answers["concurrency_limit"].reason)


@pytest.mark.parametrize("terse", [True, False])
def test_overload_is_not_a_concurrency_limit(terse: bool) -> None:
    def spoil(number: int) -> tuple[int, str] | None:
        return (503, "overloaded") if number > 12 else None

    answers = run_experiment(VirtualApi(virtual_limits(), spoil=spoil, terse=terse), never_refused=True)
    assert answers["concurrency_limit"].value is None
    assert "503" in str(answers["concurrency_limit"].reason)


def test_token_limit_that_refuses_first_is_named() -> None:
    limits = virtual_limits(tokens=RateLimit(limit=1000))
    answers = run_experiment(VirtualApi(limits), never_refused=True)
    assert answers["concurrency_limit"].value is None
    assert "tokens" in str(answers["concurrency_limit"].reason)


def test_server_that_slows_down_under_load_does_not_queue() -> None:
    answers = run_experiment(VirtualApi(virtual_limits(), slow=0.5), never_refused=True, requests_left=60)
    assert answers["concurrency_excess"].value is None


def test_streams_that_end_too_soon_are_reported() -> None:
    answers = run_experiment(VirtualApi(virtual_limits(concurrency=50), itl_s=0.0005), never_refused=True)
    assert answers["concurrency_limit"].value is None
    assert "ended before" in str(answers["concurrency_limit"].reason)


def test_budget_too_small_for_streams_sends_nothing() -> None:
    api = VirtualApi(virtual_limits())
    assert run_experiment(api, requests_left=5)["concurrency_limit"].value is None
    assert not api.requests


@pytest.mark.parametrize("terse", [False, True])
@pytest.mark.parametrize("itl_s", [0.002, 0.02])
@pytest.mark.parametrize(("cancel_delay_s", "keeps_slot"), [(0.1, False), (0.7, False), (0.0, True)])
@pytest.mark.parametrize("excess", ["refused", "queued"])
@pytest.mark.parametrize("limit", [1, 5])
def test_experiment_that_was_cut_short_gives_no_wrong_answer(
    *, limit: int, excess: str, cancel_delay_s: float, keeps_slot: bool, itl_s: float, terse: bool
) -> None:
    limits = virtual_limits(concurrency=limit, concurrency_excess=excess, cancelled_keeps_slot=keeps_slot)
    right = {
        "concurrency_limit": limit,
        "concurrency_excess": excess,
        "cancelled_frees_slot": not keeps_slot,
    }
    context = ProbeContext(never_refused=True)
    for requests in range(1, limit + 14):
        api = VirtualApi(limits, terse=terse, itl_s=itl_s, cancel_delay_s=cancel_delay_s)
        results = api.play(cut_short(steps(context, START_S), requests))
        for answer in analyze(results, context):
            assert answer.value in {None, right[answer.question]}, (requests, answer)


def test_slot_that_was_watched_too_briefly_says_for_how_long() -> None:
    context = ProbeContext(never_refused=True)
    api = VirtualApi(virtual_limits(concurrency=5), cancel_delay_s=0.1)
    results = api.play(cut_short(steps(context, START_S), 9))
    assert len(api.requests) == 9
    frees_slot = next(one for one in analyze(results, context) if one.question == "cancelled_frees_slot")
    assert "watched for only 0.05 s" in frees_slot.says
