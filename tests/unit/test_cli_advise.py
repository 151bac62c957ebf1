"""``bltybench advise``: by a run, by limits.toml, and for a workload of choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from support_runs import S, attempt, write_run
from typer.testing import CliRunner

from bltybench.cli.advise import advise
from bltybench.errors import UserError
from bltybench.limits.models import FixedWindow
from bltybench.runs.attempt import Outcome

ROOT = Path(__file__).resolve().parents[2]
BY_DIRECTION = {"input_tokens": "unknown", "output_tokens": "unknown"}

app = typer.Typer()
app.command()(advise)


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def told(*arguments: str) -> Any:
    return json.loads(invoke(*arguments, "--json"))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: one against a limit that is half of the documented one, one below it, and a failed one."""
    folder = tmp_path_factory.mktemp("reports")
    window = FixedWindow(10, 20.0)
    usual: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 20, "max_tokens": 50}
    refused = {"outcome": Outcome.RATE_LIMITED, "status": 429, "retry_after_s": 5.0}
    attempts = []
    for n in range(80):
        about = usual if window.decide(1.5 * n).accepted else refused
        attempts.append(attempt(call_id=f"c{n}", sent_ns=n * S * 3 // 2, end_ns=n * S * 3 // 2 + S, **about))
    write_run(folder / "limited", attempts)
    few = [attempt(call_id=f"c{n}", sent_ns=n * 3 * S, end_ns=n * 3 * S + S, **usual) for n in range(20)]
    write_run(folder / "below", few)
    failed = {"outcome": Outcome.SERVER_ERROR, "status": 500}
    write_run(folder / "failed", [attempt(call_id=f"c{n}", sent_ns=n * S, **failed) for n in range(20)])
    return folder


def test_missing_file_is_not_taken_for_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.toml: limits file not found"):
        invoke(str(tmp_path / "absent.toml"))


def test_limit_that_a_run_shows_replaces_the_documented_one(reports: Path) -> None:
    found = told("limited", "--reports", str(reports))
    documented = dict.fromkeys(("tokens", "concurrency"), "documented")
    assert found["limits"] == {"requests": "measured", **documented, **BY_DIRECTION}
    assert 2 <= found["prescription"]["spacing_s"] <= 2.2
    assert found["prescription"]["in_flight"] == 50
    paced, unpaced = found["predicted"]
    assert paced["calls"] == unpaced["calls"] == 80
    assert paced["refused_by_requests"] < unpaced["refused_by_requests"]


def test_limits_that_a_run_does_not_show_are_as_documented(reports: Path) -> None:
    assert told("below", "--reports", str(reports))["limits"]["requests"] == "documented"
    out = invoke("below", "--reports", str(reports), "--clients", "4", "--keys", "2")
    assert "As documented, not measured: requests, tokens, concurrency." in out
    assert "Predicted for 2 clients that share one limit, the run's calls:" in out
    assert "pace = AsyncLimiter(1, 2)" in out
    assert "Rate: at most 30 requests in any 60 s" in out
    assert "rate=60r/m" in out


def test_batch_of_calls_replaces_the_due_times_of_the_run(reports: Path) -> None:
    paced, _ = told("below", "--reports", str(reports), "--calls", "30")["predicted"]
    assert (paced["calls"], paced["ok"]) == (30, 30)
    # A minute's 60 requests can be sent at the same time.
    assert (paced["makespan_s"], paced["refused_by_requests"]) == (1, 0)


def test_limits_toml_with_a_ban_is_enough_with_the_calls_of_a_scenario(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("concurrency = 8\ntokens = false\n[requests]\nlimit = 100\nperiod_s = 10\nban_s = 30\n")
    scenarios = str(ROOT / "scenarios.toml")
    found = told(str(file), "--scenario-file", scenarios, "--scenario", "chat", "--calls", "200")
    assert found["source"] == str(file)
    measured = dict.fromkeys(("requests", "concurrency"), "measured")
    assert found["limits"] == {"tokens": "unknown", **measured, **BY_DIRECTION}
    assert found["workload"] == "200 calls of scenario chat"
    assert 0.1 <= found["prescription"]["spacing_s"] < 0.12
    assert found["prescription"]["max_retries"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "no such run: 'nothing'"),
        (["failed"], "no call of this run succeeded"),
        (["limited", "--scenario", "nothing"], "no such scenario"),
    ],
)
def test_what_can_not_be_advised_is_said(reports: Path, arguments: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        invoke(*arguments, "--reports", str(reports), "--scenario-file", str(ROOT / "scenarios.toml"))


def test_the_key_is_in_no_setting(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    assert "sk-secret" not in invoke("limited", "--reports", str(reports))
