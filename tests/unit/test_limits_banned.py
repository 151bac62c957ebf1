"""Bans: seen by when refusals end, and only where these ends agree."""

from __future__ import annotations

import pytest

from bltybench.limits.fit.bans import detect_ban
from bltybench.limits.observations.observation import Observation, Observations


def asked(times: list[tuple[float, bool]]) -> Observations:
    return Observations(Observation(at_s, at_s + 0.01, accepted) for at_s, accepted in times)


def banned(ban: float, used_up: list[float], step_s: float = 0.2) -> list[tuple[float, bool]]:
    """One who asks each ``step_s`` while he is banned, and is refused again so long after each acceptance."""
    times, at_s = [(0.0, True)], 0.0
    for pause_s in used_up:
        refused_s = at_s + pause_s
        steps = int(ban / step_s) + 1
        times += [(refused_s + step_s * step, step_s * step >= ban) for step in range(steps + 1)]
        at_s = times[-1][0]
    return times


def test_refusals_that_end_after_the_same_time_are_a_ban() -> None:
    found = detect_ban(asked(banned(3.1, [0.5, 2.0, 0.1, 4.0])))
    assert found is not None
    low, high = found
    assert low <= 3.1 <= high
    assert (low, high) == pytest.approx((3.0, 3.2), abs=0.03)


def test_fewer_ends_than_that_tell_nothing() -> None:
    assert detect_ban(asked(banned(3.1, [0.5, 2.0, 0.1]))) is None


def test_refusals_that_end_when_a_window_turns_are_none() -> None:
    """They end at 10, 20, 30, …, whenever the window was used up."""
    times = [(0.0, True)]
    for window, used_up_s in enumerate((2.0, 7.0, 4.0, 9.0, 1.0)):
        times += [
            (10.0 * window + used_up_s, False),
            (10.0 * window + 9.8, False),
            (10.0 * window + 10.1, True),
        ]
    assert detect_ban(asked(times)) is None


def test_ends_that_nearly_any_ban_explains_are_none() -> None:
    """Nobody asked while it lasted."""
    times = [(10.0 * row + more_s, more_s == 0) for row in range(6) for more_s in (0.0, 1.0)]
    assert detect_ban(asked(times)) is None
