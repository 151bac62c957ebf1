"""The order of concurrent requests is unknown, except for requests with the same decision."""

from __future__ import annotations

import pytest

from bltybench.limits.observations.observation import Observation, Observations, with_decision_slack


def test_concurrent_requests_have_no_order() -> None:
    observations = Observations(
        [Observation(0.0, 1.0, True), Observation(0.5, 0.6, False), Observation(2.0, 2.1, True)]
    )
    assert observations.overtaken(observations.accepted).tolist() == [0, 1, 0]
    assert observations.overtaking(observations.accepted).tolist() == [0, 0, 0]


def test_requests_with_the_same_decision_can_change_places() -> None:
    observations = Observations(
        [Observation(0.0, 1.0, True), Observation(0.5, 0.6, True), Observation(2.0, 2.1, True)]
    )
    assert observations.hi.tolist() == [0.6, 1.0, 2.1]
    assert observations.overtaken(observations.accepted).tolist() == [0, 0, 0]


def test_a_later_refusal_dates_the_decisions_before_it() -> None:
    early = [Observation(0.0, 3.0, True, 3.0), Observation(0.5, 0.9, None, 0.9)]
    assert with_decision_slack(early) == early
    late = [*with_decision_slack(early), Observation(4.0, 4.1, False, 4.1)]
    assert [one.decided_s for one in with_decision_slack(late)] == pytest.approx([0.2, 0.9, 4.1])
