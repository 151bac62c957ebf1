"""The rate-limit headers compared with the decisions."""

from __future__ import annotations

import pytest
from support_runs import attempt_at

from bltybench.limits.headers.honesty import honesty
from bltybench.limits.observations.proportion import Proportion


def test_a_remaining_that_never_falls_takes_no_steps() -> None:
    found = honesty([attempt_at(t / 10, remaining_requests=60) for t in range(5)])
    assert found.remaining_steps == Proportion(0, 4)
    assert honesty(
        [attempt_at(t / 10, remaining_requests=60 - t) for t in range(5)]
    ).remaining_steps == Proportion(4, 4)


def test_a_refusal_after_the_wait_makes_retry_after_too_short() -> None:
    attempts = [
        attempt_at(0),
        attempt_at(1, "rate_limited", retry_after_s=2.0),
        attempt_at(3.1, "rate_limited", retry_after_s=2.0),
    ]
    assert honesty(attempts).retry_enough == Proportion(0, 1)
    assert honesty([*attempts[:2], attempt_at(3.1)]).retry_enough == Proportion(1, 1)


def test_an_acceptance_during_the_wait_makes_retry_after_too_long() -> None:
    attempts = [attempt_at(0), attempt_at(1, "rate_limited", retry_after_s=60.0), attempt_at(3)]
    assert honesty(attempts).retry_early == Proportion(1, 1)


def test_the_interval_of_a_proportion_is_wider_for_a_smaller_sample() -> None:
    assert Proportion(0, 0).interval() is None
    few, many = Proportion(5, 5).interval(), Proportion(500, 500).interval()
    assert few is not None
    assert many is not None
    assert few[0] == pytest.approx(0.566, abs=0.01)
    assert many[0] > 0.99
