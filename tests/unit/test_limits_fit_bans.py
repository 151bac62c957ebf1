"""Bans are detected from the times at which refusals end, and only if these times agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.simulation.virtual_limiter import NetworkNoise, VirtualLimiter
from bltybench.limits.fit.bans import detect_ban
from bltybench.limits.fit.select import fit_limiter
from bltybench.limits.models import Banned, FirstHitWindow, FixedWindow, SlidingLog
from bltybench.limits.models.base import Limiter, Model
from bltybench.limits.observations.observation import Observation, Observations
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import PlanOptions

START_S = 1_795_358_417.3


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
    low, high = found.length_range_s
    assert low <= 3.1 <= high
    assert (low, high) == pytest.approx((3.0, 3.2), abs=0.03)


def retried(*pauses_s: float, times: int = 6) -> list[tuple[float, bool]]:
    """A client that is refused, and retries after each of these pauses until the last retry is accepted."""
    decisions: list[tuple[float, bool]] = []
    for _ in range(times):
        start_s = decisions[-1][0] + 1.0 if decisions else 0.0
        for number in range(len(pauses_s) + 1):
            decisions.append((start_s + sum(pauses_s[:number]), number == len(pauses_s)))
    return decisions


def after(*clients: list[tuple[float, bool]]) -> list[tuple[float, bool]]:
    """Return the decisions on several clients, one after the other."""
    decisions: list[tuple[float, bool]] = []
    for client in clients:
        start_s = decisions[-1][0] + 1.0 if decisions else 0.0
        decisions += [(start_s + at_s, accepted) for at_s, accepted in client]
    return decisions


RESTARTED = after(retried(1.0, 2.0, 3.1, times=3), retried(2.9, 1.5, 2.0, 2.8, 3.2, times=3))
"""A ban of 3 s that each refusal restarts."""


def test_pauses_that_must_be_long_enough_show_a_ban_that_refusals_restart() -> None:
    found = detect_ban(observed(RESTARTED))
    assert found is not None
    assert found.restarts
    assert found.length_range_s == pytest.approx((2.9, 3.1), abs=0.03)


def test_pauses_of_one_length_show_no_ban() -> None:
    """The client polls, and others leave it a request now and then."""
    assert detect_ban(observed(after(*(retried(*[1.0] * count, times=2) for count in (2, 5, 9, 14))))) is None


def test_pauses_that_grow_in_the_same_way_leave_open_whether_refusals_restart_a_ban() -> None:
    found = detect_ban(observed(retried(1.0, 1.1, 1.2)))
    assert found is not None
    assert found.restarts is None


def test_a_lost_request_that_was_perhaps_refused_does_not_shorten_a_ban() -> None:
    """The pause of 3.5 s holds a lost request, which restarted the ban if it was refused."""
    decisions = after(RESTARTED, retried(3.5, 3.2, times=1))
    lost = Observation(decisions[-3][0] + 1.0, decisions[-3][0] + 1.01, None)
    found = detect_ban(
        Observations([*(Observation(at_s, at_s + 0.01, accepted) for at_s, accepted in decisions), lost])
    )
    assert found is not None
    assert found.length_range_s == pytest.approx((2.9, 3.1), abs=0.03)


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


@pytest.mark.parametrize(("family", "restarts"), [(SlidingLog, True), (FirstHitWindow, False)])
def test_probe_measures_a_ban_and_the_limit_that_starts_it(family: type[Model], *, restarts: bool) -> None:
    limiter = Banned(family(12, 10.0), 20.0, restarts=restarts)
    verdict = VirtualLimiter(limiter, NetworkNoise(lost=0.02), 1).play(plan(PlanOptions(), START_S))
    assert verdict.status == "unknown"
    ban = verdict.ban
    assert ban is not None, verdict.reason
    assert ban.restarts is restarts
    assert ban.length_range_s[0] <= 20.0 <= ban.length_range_s[1]
    assert ban.limit_range[0] <= 12 <= ban.limit_range[1]
    assert ban.period_range_s[0] <= 10.0 <= ban.period_range_s[1]
    assert ban.safe_rate_per_min <= 72.0


@pytest.mark.parametrize(("counts", "is_ban"), [((7,) * 8, True), ((2, 9, 4, 8, 1, 7, 3, 5), False)])
def test_refusals_that_last_equally_long_are_a_ban_only_if_a_limit_explains_the_rest(
    counts: tuple[int, ...], *, is_ban: bool
) -> None:
    """Other clients use the quota at times, so it is exhausted after a different number of requests."""
    decisions = [
        (10.0 * number + at_s, accepted)
        for number, count in enumerate(counts)
        for at_s, accepted in [
            *((0.3 * sent * (1 + number % 3) / 3, True) for sent in range(count)),
            *((2.6 + 0.3 * number + wait_s, False) for wait_s in (0.0, 1.0, 2.2, 2.9)),
            (5.7 + 0.3 * number, True),
        ]
    ]
    observations = [Observation(at_s, at_s + 0.01, accepted) for at_s, accepted in decisions]
    assert detect_ban(Observations(observations)) is not None
    assert (fit_limiter(observations).ban is not None) is is_ban


def hammered(limiter: Limiter, period_s: float, requests: int, periods: float) -> list[Observation]:
    """Return the decisions about requests that are sent at a constant rate."""
    times_s = [9.3 * period_s + periods * period_s * number / requests for number in range(requests)]
    return [Observation(at_s, at_s + 0.01, limiter.decide(at_s + 0.005).accepted) for at_s in times_s]


STARVING: dict[str, Callable[[int, float], Limiter]] = {
    "a log that counts refused requests": lambda limit, period_s: SlidingLog(
        limit, period_s, count_refused=True
    ),
    "a window that refusals restart": lambda limit, period_s: Banned(
        FirstHitWindow(limit, period_s), period_s, restarts=True
    ),
    "a ban of many periods": lambda limit, period_s: Banned(SlidingLog(limit, period_s), 20 * period_s),
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
