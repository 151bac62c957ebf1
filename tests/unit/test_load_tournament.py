from __future__ import annotations

from pathlib import Path

import gevent
import pytest

from bltybench.load.trials.owner import LEAD_S
from bltybench.load.trials.tournament import PAUSE_MARGIN_S, UNKNOWN_PAUSE_S, TournamentOwner, refill_s
from bltybench.load.trials.worker import TrialOrder, TrialReport
from bltybench.runs.folder import RunFolder
from bltybench.runs.trials.tournament import TournamentCourse, read_tournament
from bltybench.scenario.target import RateLimit, SandboxLimits
from bltybench.scenario.trials.tournament import Tournament

UNLIMITED = SandboxLimits(requests=None, tokens=None, concurrency=None)
PERIOD_10 = UNLIMITED.model_copy(update={"requests": RateLimit(limit=5, period_s=10)})


def course(
    path: Path,
    limits: SandboxLimits,
    *,
    exact: bool = True,
    max_pause_s: float = 300.0,
    report: TrialReport | None = None,
) -> TournamentCourse:
    """Run a tournament of two policies whose stages take no time. Nothing sleeps."""
    settings = Tournament.model_validate(
        {
            "kind": "tournament",
            "policies": ["none", "openai"],
            "calls": {"kind": "constant", "rate_per_min": 60},
            "stage_s": 3,
            "max_pause_s": max_pause_s,
        }
    )
    now_s = [100.0]

    def start(order: TrialOrder) -> None:
        now_s[0] = order.end_s
        answered = report or TrialReport(0)
        answered.number, answered.done, answered.settled = order.number, True, True
        owner.take(answered)

    owner = TournamentOwner(
        settings,
        {"here": limits},
        RunFolder(path),
        exact=exact,
        workers=1,
        now_s=lambda: now_s[0],
        start_trial=start,
    )
    owner.ready.set()
    owner.run()
    found = read_tournament(RunFolder(path))
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent, "sleep", lambda seconds=0: None)


def test_policies_have_their_turns_with_the_same_phase_of_the_period(tmp_path: Path) -> None:
    found = course(tmp_path, PERIOD_10)
    assert (found.ended, found.shortfall) == ("completed", None)
    assert [stage.stage for stage in found.stages] == ["none", "openai"]
    first, second = found.stages
    # Nothing slept, so the second stage began at once; the wait would have put it a whole period later.
    waited_s = second.begin_s + second.pause_s - first.begin_s
    assert waited_s % 10 == pytest.approx(0, abs=1e-6) or waited_s % 10 == pytest.approx(10, abs=1e-6)
    assert second.pause_s >= 10
    assert second.pause_reason == "the known limits have refilled by then"
    assert found.limits == PERIOD_10.model_dump(mode="json")


def test_documented_limits_set_the_wait_but_no_optimum(tmp_path: Path) -> None:
    found = course(tmp_path, PERIOD_10, exact=False)
    assert found.stages[1].pause_s >= 10
    assert found.limits is None


def test_limits_of_a_day_are_not_awaited(tmp_path: Path) -> None:
    day = RateLimit(limit=9, period_s=86_400)
    requests = RateLimit(limit=5, period_s=10, also=RateLimit(limit=8, period_s=30, also=day))
    found = course(tmp_path, UNLIMITED.model_copy(update={"requests": requests}))
    assert 30 <= found.stages[1].pause_s < 70
    assert found.period_s == 30


def test_unknown_limits_wait_for_the_announced_reset_or_a_minute(tmp_path: Path) -> None:
    unknown = course(tmp_path, UNLIMITED, exact=False)
    assert unknown.stages[1].pause_s == UNKNOWN_PAUSE_S + PAUSE_MARGIN_S
    announced = course(tmp_path, UNLIMITED, exact=False, report=TrialReport(0, refills_s=125.0))
    stage = announced.stages[1]
    assert stage.pause_s == pytest.approx(125 - (103 + LEAD_S) + PAUSE_MARGIN_S)
    assert stage.pause_reason == "a response announced that a limit refills then"


def test_no_limit_needs_no_wait(tmp_path: Path) -> None:
    assert course(tmp_path, UNLIMITED).stages[1].pause_s == 0


def test_absurd_reset_is_bounded(tmp_path: Path) -> None:
    found = course(tmp_path, UNLIMITED, exact=False, report=TrialReport(0, refills_s=86_400.0))
    assert found.stages[1].pause_s == 300
    assert found.stages[1].pause_reason.startswith("max_pause_s, although a response announced")


def test_exhausted_budget_ends_the_tournament(tmp_path: Path) -> None:
    found = course(tmp_path, UNLIMITED, report=TrialReport(0, shortfall="budget"))
    assert (found.ended, found.stages) == ("budget", [])
    assert found.shortfall == "0 of 2 policies had their turn: the target's budget was exhausted"


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        (RateLimit(limit=6, period_s=3), 3),
        (RateLimit(limit=6, period_s=3, algorithm="sliding_counter"), 6),
        (RateLimit(limit=6, period_s=3, algorithm="token_bucket", burst=12), 6),
        (RateLimit(limit=6, period_s=3, ban_s=5), 8),
    ],
)
def test_refill_depends_on_the_algorithm(limit: RateLimit, seconds: float) -> None:
    assert refill_s(limit) == seconds
