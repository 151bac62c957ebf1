"""Bans are detected from the times at which refusals end, and only if these times agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.unmodeled_limiters import Ban
from bltybench.limits.fit.bans import detect_ban
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.models import FirstHitWindow, FixedWindow, SlidingLog
from bltybench.limits.models.base import Limiter
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


def hammered(limiter: Limiter, period_s: float, requests: int, periods: float) -> list[Observation]:
    """Return the decisions about requests that are sent at a constant rate."""
    times_s = [9.3 * period_s + periods * period_s * number / requests for number in range(requests)]
    return [Observation(at_s, at_s + 0.01, limiter.decide(at_s + 0.005).accepted) for at_s in times_s]


STARVING: dict[str, Callable[[int, float], Limiter]] = {
    "a log that counts refused requests": lambda limit, period_s: SlidingLog(
        limit, period_s, count_refused=True
    ),
    "a window that refusals restart": lambda limit, period_s: Ban(
        FirstHitWindow(limit, period_s), period_s, extends=True
    ),
    "a ban of many periods": lambda limit, period_s: Ban(SlidingLog(limit, period_s), 20 * period_s),
}


@pytest.mark.parametrize("documented", [False, True])
@pytest.mark.parametrize(("requests", "periods"), [(402, 9.0), (402, 3.0), (200, 2.0)])
@pytest.mark.parametrize("period_s", [7.0, 60.0])
@pytest.mark.parametrize("name", STARVING)
def test_client_that_starves_by_its_own_requests_is_told_to_stop_sending(
    *, name: str, period_s: float, requests: int, periods: float, documented: bool
) -> None:
    observations = hammered(STARVING[name](30, period_s), period_s, requests, periods)
    verdict = fit_limiter(observations, hints_s=(period_s,) if documented else ())
    assert verdict.accepted >= 30
    assert "refused requests count, or a refusal starts a ban" in verdict.reason
    assert verdict.starved_pause_s == pytest.approx(periods * period_s / requests, rel=0.01)
    assert not verdict.accepts_more


@pytest.mark.parametrize(("requests", "periods"), [(39, 0.1), (402, 0.9)])
def test_run_that_ends_within_the_documented_period_ends_too_soon(requests: int, periods: float) -> None:
    observations = hammered(FixedWindow(30, 60.0, 15.0), 60.0, requests, periods)
    verdict = fit_limiter(observations, hints_s=(60.0,))
    assert "end too soon" in verdict.reason
    assert verdict.starved_pause_s is None
    assert verdict.accepts_more
