"""The smallest request limit with which a policy meets an objective, by scenario and by run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from support_runs import S, attempt, write_run
from typer.testing import CliRunner

from bltybench.cli.simulate import simulate
from bltybench.errors import UserError
from bltybench.policies.advice.needed_limit import NeededLimit, needed_limit, read_objective
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.pacing import PacingName
from bltybench.scenario.retry import Retry
from bltybench.scenario.target import RateLimit, SandboxLimits

SECOND = ServiceTime(first_s=1.0, per_token_s=0.0)
BATCH = SimulatedLoad(1, 100, (0.0,) * 10, 0.0, None, (CallSize(10, 10),))
RETRY = Retry(policy="retry_after", max_attempts=20, max_wait_s=600)

app = typer.Typer()
app.command()(simulate)


def limits(limit: int = 1, **changes: Any) -> SandboxLimits:
    requests = RateLimit(limit=limit, period_s=10.0, algorithm="sliding_log")
    return SandboxLimits(**({"requests": requests, "tokens": None, "concurrency": None} | changes))


def needed(text: str, *, enforced: SandboxLimits | None = None, pacing: PacingName = "none") -> NeededLimit:
    objective = read_objective(text)
    return needed_limit(BATCH, enforced or limits(), RETRY, SECOND, objective, seed=1, pacing=pacing)


@pytest.mark.parametrize(
    ("objective", "limit"),
    [("p50 <= 1 s", 5), ("p50 <= 12 s", 3), ("p95 <= 1", 10), ("refused <= 0 %", 10), ("gave_up <= 0", 1)],
)
def test_limit_is_that_of_cases_worked_out_by_hand(objective: str, limit: int) -> None:
    assert needed(objective).limit == limit


def test_with_one_request_less_the_objective_does_not_hold() -> None:
    due_s = tuple(n * 0.7 + (n % 7) * 0.3 for n in range(120))
    load = SimulatedLoad(2, 100, due_s, 0.0, None, (CallSize(10, 10),))
    objective = read_objective("p95 <= 4 s")
    found = needed_limit(load, limits(), RETRY, SECOND, objective, seed=3)
    assert found.limit is not None
    assert found.value is not None
    assert found.value <= 4
    for limit, holds in ((found.limit, True), (found.limit - 1, False)):
        assert objective.holds(Simulation(load, limits(limit), RETRY, SECOND, seed=3).run()) is holds


def test_objective_that_no_limit_meets_has_none() -> None:
    found = needed("p50 <= 0.5 s")
    assert (found.limit, found.value) == (None, None)
    tokens = limits(tokens=RateLimit(limit=40, period_s=1000.0, algorithm="fixed_window"))
    assert needed("p95 <= 5 s", enforced=tokens).limit is None


@pytest.mark.parametrize(
    "text", ["p95", "p95 < 5", "p90 <= 5", "p95 <= 5 %", "refused <= 5 s", "p95 <= -1", ""]
)
def test_other_objectives_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="must be a metric and its maximum"):
        read_objective(text)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 calls of 2 s, one per second, below the documented 60 per minute."""
    folder = tmp_path_factory.mktemp("reports")
    usual = {"prompt_tokens": 10, "completion_tokens": 5}
    rows = [attempt(call_id=f"c{n}", sent_ns=n * S, end_ns=(n + 2) * S, **usual) for n in range(30)]
    write_run(folder / "run", rows)
    return folder


def invoke(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def test_run_gives_calls_response_time_and_limits(reports: Path) -> None:
    of_run = ["--run", "run", "--reports", str(reports), "--policy", "none"]
    found = invoke(*of_run)
    (limiter,) = found["limiters"]
    assert found["scenario"] == "run run"
    assert (limiter["requests"]["limit"], limiter["concurrency"]) == (60, 50)
    (row,) = limiter["results"]
    assert (row["calls"], row["ok"], row["success_p50_s"]) == (30, 30, 2.0)
    (smallest,) = invoke(*of_run, "--period-s", "10", "--limiter", "sliding_log", "--need", "gave_up <= 0 %")
    assert (smallest["limit"], smallest["period_s"]) == (10, 10.0)


@pytest.mark.parametrize("other", [["chat"], ["--users", "3"], ["--duration-s", "9"]])
def test_run_excludes_what_only_a_scenario_has(reports: Path, other: list[str]) -> None:
    with pytest.raises(UserError, match="can't be combined with a scenario"):
        invoke(*other, "--run", "run", "--reports", str(reports))
