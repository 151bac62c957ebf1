"""From the attempts of a run to observations of its request limit."""

from __future__ import annotations

import pytest
from support_runs import S, attempt_at

from bltybench.limits.observations.classify import refusal_statuses
from bltybench.limits.observations.extract import observations_of
from bltybench.limits.observations.observation import Observation, busiest_period, most_informative
from bltybench.runs.attempt import Attempt


def accepted(*attempts: Attempt) -> list[bool | None]:
    return [one.accepted for one in observations_of(attempts)]


def test_a_429_is_a_refusal_and_a_lost_response_is_unknown() -> None:
    lost = attempt_at(2, "timeout", status=None, headers_ns=None)
    assert accepted(attempt_at(0), attempt_at(1, "rate_limited"), lost) == [True, False, None]


def test_an_attempt_that_was_never_sent_is_no_observation() -> None:
    assert accepted(attempt_at(0), attempt_at(1, "transport_error", sent_ns=None)) == [True]


def test_a_client_error_or_an_unpaid_bill_is_no_observation() -> None:
    bill = attempt_at(2, "client_error", status=429, error_code="insufficient_quota")
    assert accepted(attempt_at(0), attempt_at(1, "client_error"), bill) == [True]


@pytest.mark.parametrize(
    "error",
    [
        {"error_type": "overloaded_error"},
        {"error_code": "engine_overloaded"},
        {"error_message": "The engine is currently overloaded, please try again later"},
    ],
)
@pytest.mark.parametrize(("outcome", "status"), [("rate_limited", 429), ("server_error", 503)])
def test_overload_is_no_observation(outcome: str, status: int, error: dict[str, str]) -> None:
    busy = attempt_at(1, outcome, status=status, **error)
    assert accepted(attempt_at(0), busy, attempt_at(2)) == [True, True]
    assert not refusal_statuses([attempt_at(0), busy])
    assert accepted(attempt_at(0), busy, attempt_at(2, "rate_limited")) == [True, False]


@pytest.mark.parametrize("status", [503, 403])
def test_a_503_or_403_is_a_refusal_if_the_run_has_no_429(status: int) -> None:
    outcome = "server_error" if status == 503 else "client_error"
    attempts = [attempt_at(0), attempt_at(1, outcome, status=status)]
    assert next(iter(refusal_statuses(attempts))) == status
    assert accepted(*attempts) == [True, False]


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_in_a_run_with_429s_may_have_been_accepted(status: int) -> None:
    failed = attempt_at(2, "server_error", status=status)
    assert accepted(attempt_at(0), attempt_at(1, "rate_limited"), failed) == [True, False, None]


def test_overload_in_a_run_with_429s_is_no_observation() -> None:
    overloaded = attempt_at(2, "server_error", status=529)
    assert accepted(attempt_at(0), attempt_at(1, "rate_limited"), overloaded) == [True, False]


@pytest.mark.parametrize("code", ["token_limit_exceeded", "concurrency_limit_exceeded"])
def test_a_refusal_by_another_limit_is_no_observation(code: str) -> None:
    assert accepted(attempt_at(0), attempt_at(1, "rate_limited", error_code=code)) == [True]


def test_a_slow_response_was_decided_on_admission() -> None:
    slow = attempt_at(0, headers_ns=5 * S, end_ns=5 * S)
    (first, _) = observations_of([slow, attempt_at(1, "rate_limited")])
    assert first.decided_s == pytest.approx(0.05)


def test_busiest_period_counts_the_accepted_only() -> None:
    observations = [Observation(t, t, True) for t in (0.0, 50.0, 55.0, 70.0, 111.0)]
    assert busiest_period(observations) == (3, 0.0)
    assert busiest_period([]) == (0, 0.0)


def test_most_informative_returns_the_part_with_the_most_ends_of_refusals() -> None:
    observations = [Observation(float(t), float(t), t < 50 or t % 5 > 0) for t in range(100)]
    chosen = most_informative(observations, count=40)
    # Unknown requests before them may have caused the first refusal.
    assert len(chosen) == 39
    assert chosen[0].sent_s >= 45
    assert next(one.sent_s for one in chosen if not one.accepted) == 55
    assert most_informative(observations) == observations


def test_part_of_a_long_run_has_its_only_refusal_even_if_it_is_the_last_request() -> None:
    observations = [Observation(float(t), float(t), t < 99) for t in range(100)]
    assert [one.accepted for one in most_informative(observations, count=40)].count(False) == 1
