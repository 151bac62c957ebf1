from __future__ import annotations

import itertools
from pathlib import Path
from typing import cast

import gevent
import pytest
from support_runs import attempt_at

from bltybench.load.client_policy import ClientPolicy
from bltybench.load.run.live import Live
from bltybench.load.trials.owner import LEAD_S
from bltybench.load.trials.tournament import PAUSE_MARGIN_S, UNKNOWN_PAUSE_S, TournamentOwner, refill_s
from bltybench.load.trials.tournament_worker import TournamentWorker
from bltybench.load.trials.worker import TrialOrder, TrialReport
from bltybench.runs.folder import RunFolder
from bltybench.runs.trials.tournament import TournamentCourse, read_tournament
from bltybench.scenario.pacing import Pacing
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import RateLimit, SandboxLimits
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Scenario

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
    now_s, live = [100.0], Live()

    def start(order: TrialOrder) -> None:
        assert live.activity == f"{order.stage}, policy {order.number} of 2"
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
        show=live.show,
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


class _Policy:
    """Notes the policies that begin."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, float]] = []
        self.holding = False

    def use(self, retry: Retry, pacing: Pacing, *, begin_s: float) -> None:
        self.begun.append((retry.policy, pacing.policy, begin_s))


def worker(policy: _Policy, *, index: int = 0, now_s: float = 0.0) -> TournamentWorker:
    arrivals = {
        "kind": "tournament",
        "policies": ["none", "openai + even"],
        "calls": {"kind": "constant", "rate_per_min": 60},
        "stage_s": 4,
        "max_drain_s": 1e-6,
    }
    document = {"title": "t", "model": "m", "duration_s": 60, "users": 9, "mix": [{"name": "chat"}]}
    scenario = Scenario.model_validate(document | {"arrivals": arrivals})
    assert isinstance(scenario.arrivals, Tournament)
    return TournamentWorker(
        scenario.arrivals,
        scenario,
        cast(ClientPolicy, policy),
        Path(),
        index=index,
        workers=2,
        now_s=lambda: now_s,
        budget_exhausted=lambda: False,
    )


def order(stage: str) -> TrialOrder:
    return TrialOrder(number=1, stage=stage, begin_s=10.0, end_s=14.0)


def test_each_worker_sends_its_part_of_the_same_calls_with_every_policy() -> None:
    policy = _Policy()
    first, second = worker(policy), worker(policy, index=1)
    for stage in ("none", "openai + even"):
        ours, theirs = (list(one._begin(order(stage))) for one in (first, second))
        assert [(one.index, one.at_s, one.stage) for one in ours] == [(0, 10.0, stage), (2, 12.0, stage)]
        assert [one.index for one in theirs] == [1, 3]
    assert policy.begun == [("none", "none", 10.0)] * 2 + [("openai", "even", 10.0)] * 2


def test_calls_that_do_not_end_in_time_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bltybench.load.trials.tournament_worker.MAX_SETTLE_S", 0.0)
    seconds = itertools.count(14)
    one = worker(_Policy())
    monkeypatch.setattr(one, "_now_s", lambda: float(next(seconds)))
    reports: list[TrialReport] = []
    one.run_trial(order("none"), reports.append)
    assert one.ended.is_set()
    (last,) = reports
    assert (last.done, last.settled, last.shortfall) == (True, False, None)
    one.stop()
    assert one.next_arrival() is None


def test_late_arrival_lacks_a_user_only_if_pacing_holds_nothing() -> None:
    policy = _Policy()
    one = worker(policy, now_s=99.0)
    one._queue.extend(one._begin(order("none")))
    assert one.next_arrival() is not None
    policy.holding = True
    assert one.next_arrival() is not None
    assert one._take_report().late == 1


def test_report_has_the_latest_announced_refill() -> None:
    one = worker(_Policy())
    one.note(attempt_at(5.0, reset_requests_s=30.0, reset_tokens_s=2.0))
    one.note(attempt_at(6.0, "rate_limited", retry_after_s=7.0))
    assert one._take_report().refills_s == pytest.approx(35.02)
