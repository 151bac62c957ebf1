"""The question of concurrency, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.simulation.virtual_api import START_S, VirtualApi, virtual_limits
from bltybench.limits.experiments.concurrency_analysis import judge
from bltybench.limits.experiments.concurrency_steps import ask
from bltybench.limits.observations.answer import Answer
from bltybench.limits.probe.context import ProbeContext
from bltybench.scenario.target import RateLimit


def asked(api: VirtualApi, **facts: Any) -> dict[str, Answer]:
    known = ProbeContext(**facts)
    return {answer.question: answer for answer in judge(api.play(ask(known, START_S)), known)}


@pytest.mark.parametrize("latency_s", [0.005, 0.1])
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("excess", ["refused", "queued"])
@pytest.mark.parametrize(("limit", "documented"), [(1, None), (5, None), (50, 50), (37, 50), (60, 50)])
def test_limit_excess_and_what_a_cancelled_stream_does(
    limit: int, documented: int | None, excess: str, keeps: bool, latency_s: float
) -> None:
    limits = virtual_limits(concurrency=limit, concurrency_excess=excess, cancelled_keeps_slot=keeps)
    # Without words on the refusals; and some servers answer nothing before the first token.
    api = VirtualApi(limits, early_headers=latency_s < 0.05, latency_s=latency_s, jitter=0.4, terse=limit > 5)
    found = asked(api, concurrency=documented, never_refused=True)
    assert found["concurrency_limit"].value == limit, found
    assert found["concurrency_excess"].value == excess
    assert found["cancelled_frees_slot"].value is not keeps
    assert all((each.confidence or 0) > 0.9 for each in found.values())


def test_none_within_the_limit_of_requests_is_at_least() -> None:
    limits = virtual_limits(requests=RateLimit(limit=30))
    found = asked(VirtualApi(limits), requests_per_min=30)
    limit = found["concurrency_limit"]
    assert limit.value is None
    assert limit.range is not None
    assert limit.range[0] == 22
    assert "allowed no more" in str(limit.reason)


def test_a_limit_of_requests_below_what_is_documented_is_not_taken_for_one_of_concurrency() -> None:
    limits = virtual_limits(requests=RateLimit(limit=20))
    found = asked(VirtualApi(limits, terse=True), requests_per_min=60)
    assert found["concurrency_limit"].value is None
    assert "another limit" in str(found["concurrency_limit"].reason)


def test_what_a_bucket_gives_back_is_not_taken_for_a_slot_that_was_freed() -> None:
    bucket = RateLimit(limit=31, period_s=5.0, algorithm="token_bucket")
    for seed in range(10):
        api = VirtualApi(virtual_limits(requests=bucket), latency_s=0.002, ttft_s=0.002, seed=seed)
        api.quotas.of("first", "a").admit(START_S - seed / 50, 0)
        found = asked(api, requests_per_min=372)
        assert found["concurrency_limit"].value is None, found
        assert "another limit" in str(found["concurrency_limit"].reason)


def test_a_window_that_turned_while_answers_ended_is_not_taken_for_slots_that_are_kept() -> None:
    window = RateLimit(limit=43, period_s=10.0, algorithm="first_hit_window")
    api = VirtualApi(virtual_limits(requests=window), latency_s=0.002, ttft_s=0.002, itl_s=0.03)
    found = asked(api, requests_per_min=258)
    assert found["concurrency_limit"].value is None, found
    assert "limit of requests" in str(found["concurrency_limit"].reason)


@pytest.mark.parametrize("terse", [True, False])
def test_overload_and_billing_are_no_limit_of_concurrency(terse: bool) -> None:
    def spoil(number: int) -> tuple[int, str] | None:
        return (503, "overloaded") if number > 12 else None

    found = asked(VirtualApi(virtual_limits(), spoil=spoil, terse=terse), never_refused=True)
    assert found["concurrency_limit"].value is None
    assert "503" in str(found["concurrency_limit"].reason)


def test_a_limit_of_tokens_that_refuses_first_is_named() -> None:
    limits = virtual_limits(tokens=RateLimit(limit=1000))
    found = asked(VirtualApi(limits), never_refused=True)
    assert found["concurrency_limit"].value is None
    assert "tokens" in str(found["concurrency_limit"].reason)


def test_a_server_that_is_slow_under_load_does_not_queue() -> None:
    found = asked(VirtualApi(virtual_limits(), slow=0.5), never_refused=True, requests_left=60)
    assert found["concurrency_excess"].value is None


def test_answers_that_end_too_soon_are_said() -> None:
    found = asked(VirtualApi(virtual_limits(concurrency=50), itl_s=0.0005), never_refused=True)
    assert found["concurrency_limit"].value is None
    assert "ended before" in str(found["concurrency_limit"].reason)


def test_nothing_is_sent_where_nothing_could_be_held() -> None:
    api = VirtualApi(virtual_limits())
    assert asked(api, requests_left=5)["concurrency_limit"].value is None
    assert not api.flights
