from __future__ import annotations

import random
from typing import Any

import pytest

from bltybench.limits.observations.classify import Decision
from bltybench.load.retry import wait_before_retry_s
from bltybench.scenario.workload import Retry

RNG = random.Random(1)


def wait_s(
    decision: Decision, *, attempt: int = 0, retry_after_s: float | None = None, **retry: Any
) -> float | None:
    return wait_before_retry_s(Retry(**retry), attempt, decision, retry_after_s, RNG)


def test_no_retry_without_a_policy() -> None:
    assert wait_s(Decision.REFUSED, policy="none", retry_after_s=1) is None


def test_retry_after_policy_waits_as_long_as_the_server_asks() -> None:
    assert wait_s(Decision.REFUSED, policy="retry_after", retry_after_s=7.5) == 7.5


def test_no_retry_if_the_server_asks_for_more_than_the_maximum_wait() -> None:
    assert wait_s(Decision.REFUSED, policy="retry_after", retry_after_s=9, max_wait_s=8) is None


@pytest.mark.parametrize("retry_after_s", [None, 0, -3])
def test_retry_after_policy_backs_off_without_a_usable_header(retry_after_s: float | None) -> None:
    waited = wait_s(Decision.REFUSED, policy="retry_after", retry_after_s=retry_after_s)
    assert waited is not None
    assert 0.375 < waited <= 0.5


def test_backoff_doubles_up_to_its_cap_and_ignores_retry_after() -> None:
    waits = [
        wait_s(Decision.SERVER_ERROR, attempt=n, policy="backoff", max_attempts=9, retry_after_s=60)
        for n in range(6)
    ]
    for waited, full in zip(waits, [0.5, 1, 2, 4, 8, 8], strict=True):
        assert waited is not None
        assert 0.75 * full < waited <= full


def test_no_retry_after_the_last_attempt() -> None:
    assert wait_s(Decision.LOST, attempt=1, policy="backoff", max_attempts=3) is not None
    assert wait_s(Decision.LOST, attempt=2, policy="backoff", max_attempts=3) is None


@pytest.mark.parametrize(
    "decision", [Decision.ACCEPTED, Decision.BILLING, Decision.CLIENT_ERROR, Decision.CANCELLED]
)
def test_no_retry_if_it_cannot_help(decision: Decision) -> None:
    assert wait_s(decision, policy="backoff") is None
