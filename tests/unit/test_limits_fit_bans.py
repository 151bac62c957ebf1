"""Bans are detected from the times at which refusals end, and only if these times agree."""

from __future__ import annotations

import pytest

from bltybench.limits.fit.bans import detect_ban
from bltybench.limits.observations.observation import Observation, Observations


def observed(decisions: list[tuple[float, bool]]) -> Observations:
    return Observations(Observation(at_s, at_s + 0.01, accepted) for at_s, accepted in decisions)


def banned(ban_s: float, pauses_s: list[float], step_s: float = 0.2) -> list[tuple[float, bool]]:
    """A client that retries every ``step_s`` while banned, and is refused after each of these pauses."""
    decisions, at_s = [(0.0, True)], 0.0
    for pause_s in pauses_s:
        refused_s = at_s + pause_s
        steps = int(ban_s / step_s) + 1
        decisions += [(refused_s + step_s * step, step_s * step >= ban_s) for step in range(steps + 1)]
        at_s = decisions[-1][0]
    return decisions


def test_recoveries_after_the_same_time_are_a_ban() -> None:
    found = detect_ban(observed(banned(3.1, [0.5, 2.0, 0.1, 4.0])))
    assert found is not None
    low, high = found
    assert low <= 3.1 <= high
    assert (low, high) == pytest.approx((3.0, 3.2), abs=0.03)


def test_three_recoveries_are_too_few_for_a_ban() -> None:
    assert detect_ban(observed(banned(3.1, [0.5, 2.0, 0.1]))) is None


def test_recoveries_when_a_window_resets_are_no_ban() -> None:
    decisions = [(0.0, True)]
    for window, exhausted_s in enumerate((2.0, 7.0, 4.0, 9.0, 1.0)):
        start_s = 10.0 * window
        decisions += [
            (start_s + exhausted_s, False),
            (start_s + 9.8, False),
            (start_s + 10.1, True),
        ]
    assert detect_ban(observed(decisions)) is None


def test_recoveries_that_almost_any_length_explains_are_no_ban() -> None:
    """The client never retried during the ban."""
    decisions = [(10.0 * row + more_s, more_s == 0) for row in range(6) for more_s in (0.0, 1.0)]
    assert detect_ban(observed(decisions)) is None
