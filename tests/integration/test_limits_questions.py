"""The probe's experiments over sockets: concurrency, tokens, charges, and the scope of the limit."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from support_cli import bltybench
from support_locust import LOCUSTFILES, WITH_PAGE, finish, run_locust, start_locust
from support_probe import write_scenario
from support_sandbox import running_sandbox

from bltybench.runs.folder import RunFolder, list_runs
from bltybench.runs.store import read_attempts
from bltybench.sandbox.process import SandboxProcess
from bltybench.scenario.file.scenario_file import load_limits
from bltybench.scenario.target import Delay, RateLimit, SandboxKey, SandboxLimits

KEYS = (SandboxKey(name="one", key="sk-sandbox"), SandboxKey(name="two", key="sk-second"))
ENVIRONMENT = {"BLTYBENCH_TEST_KEY": "sk-sandbox", "BLTYBENCH_SECOND_KEY": "sk-second"}
SHORT_STREAMS = ("--probe-budget", "30", "--probe-tokens", "8000")
"""Budget for streams of a few seconds: long enough to hold, short enough to wait for."""
TOKEN_PERIODS_S = {"reserved": 1.5, "refunded": 1.5, "used": 3.0}
"""Period of the token limit, in seconds. If only used tokens count, 17 requests, one after the other, must
share a window to measure its size. On a busy machine they take more than a second."""

Answers = dict[str, dict[str, Any]]


def sandbox(**rules: Any) -> AbstractContextManager[SandboxProcess]:
    limits = SandboxLimits(**({"requests": None, "tokens": None, "concurrency": None} | rules))
    ttft, itl = Delay(median_ms=10, p95_ms=12), Delay(median_ms=20, p95_ms=21)
    return running_sandbox(limits=limits, keys=KEYS, ttft=ttft, itl=itl)


def probe(directory: Path, *args: str, page: bool = False, **rules: Any) -> tuple[Answers, RunFolder]:
    """Run the probe, and return its answers by question and its run."""
    with sandbox(**rules) as running:
        write_scenario(directory, running.base_url)
        changes = ENVIRONMENT | (WITH_PAGE if page else {})
        done = run_locust(LOCUSTFILES / "limits.py", *args, cwd=directory, **changes)
    assert done.code == 0, done.output
    document = json.loads((done.run.path / "limits.json").read_text())
    assert document["stopped"] is None, document["stopped"]
    return {answer["question"]: answer for answer in document["answers"]}, done.run


def values(answers: Answers) -> dict[str, Any]:
    return {name: answer["value"] for name, answer in answers.items()}


def test_refused_streams_charges_and_scope_are_measured_and_reported(tmp_path: Path) -> None:
    # On a busy machine, requests that should share a window can take two seconds.
    rule = RateLimit(limit=16, period_s=4.0, algorithm="fixed_window")
    asked = ("--probe-ask", "requests,concurrency,charges,401")
    answers, run = probe(
        tmp_path,
        *(*asked, "--probe-second-key-env", "BLTYBENCH_SECOND_KEY"),
        page=True,
        requests=rule,
        concurrency=4,
        charged_errors=(404,),
        charged_endpoints=("models",),
        per=("key", "model"),
    )
    found = values(answers)
    assert (found["concurrency_limit"], found["concurrency_excess"]) == (4, "refused")
    assert found["cancelled_frees_slot"] is True
    assert found["malformed_counts"] is not True  # unknown if the machine is busy
    assert found["unknown_model_counts"] is True
    assert found["models_endpoint_counts"] is True
    assert found["wrong_key_counts"] is False
    # Such a short period leaves hardly any time to retry.
    assert found["refused_counts"] in {False, None}
    assert (found["limit_per_key"], found["limit_per_model"]) == (True, True)
    assert found["limit_header"] == "honest"
    for answer in answers.values():
        complete = (
            answer["reason"] if answer["value"] is None else answer["confidence"] and answer["evidence"]
        )
        assert complete, answer
    # limits.toml describes the probed sandbox.
    written = load_limits(run.path / "limits.toml")
    assert (written.concurrency, written.charged_errors, written.per) == (4, (404,), ("key", "model"))
    assert written.charged_endpoints == ("models",)
    assert "sk-second" not in "".join(path.read_text(errors="ignore") for path in run.path.glob("*.json*"))
    command = bltybench("limits", "--json", cwd=tmp_path)
    assert command.returncode == 0, command.stderr
    again = {answer["question"]: answer["value"] for answer in json.loads(command.stdout)["answers"]}
    assert again["concurrency_limit"] == 4
    assert again["unknown_model_counts"] is True
    assert "Other questions" in (run.path / "report.html").read_text()


def test_queue_whose_cancelled_streams_keep_their_slots_is_measured(tmp_path: Path) -> None:
    answers, run = probe(
        tmp_path,
        *("--probe-ask", "concurrency", *SHORT_STREAMS),
        concurrency=3,
        concurrency_excess="queued",
        cancelled_keeps_slot=True,
    )
    found = values(answers)
    assert (found["concurrency_limit"], found["concurrency_excess"]) == (3, "queued")
    assert found["cancelled_frees_slot"] is False
    document = tomllib.loads((run.path / "limits.toml").read_text())
    assert document["concurrency_excess"] == "queued"
    assert document["cancelled_keeps_slot"] is True


@pytest.mark.parametrize("charged", ["reserved", "refunded", "used"])
def test_token_charging_and_limit_are_measured(charged: str, tmp_path: Path) -> None:
    actual_s = TOKEN_PERIODS_S[charged]
    rule = RateLimit(limit=4000, period_s=actual_s)
    options = ("--probe-ask", "tokens", "--probe-period", str(actual_s))
    answers, run = probe(tmp_path, *options, tokens=rule, tokens_charged=charged)
    found = values(answers)
    assert found["tokens_charged"] == charged, answers
    # A completion whose first word contains a stop string is empty, which is no failure.
    assert "no_answer" not in read_attempts(run).column("outcome").to_pylist()
    assert found["tokens_charged_at"] in {"end" if charged == "used" else "admission", None}
    low, high = answers["token_limit"]["range"]
    assert low <= 4000 <= high
    assert high - low <= 600
    period_s = found["token_period_s"]
    assert period_s is None or period_s == pytest.approx(actual_s, rel=0.03)


def test_resumed_probe_measures_only_what_is_missing(tmp_path: Path) -> None:
    rule = RateLimit(limit=10, period_s=1.5)
    options = ("--probe-ask", "requests,concurrency,charges")
    with sandbox(requests=rule) as running:
        write_scenario(tmp_path, running.base_url)
        locustfile = LOCUSTFILES / "limits.py"
        process = start_locust(locustfile, "--headless", *options, cwd=tmp_path, **ENVIRONMENT)
        assert process.stdout is not None
        for line in process.stdout:
            if "Now: charges" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        interrupted = finish(process, tmp_path)
        first = interrupted.run
        assert json.loads((first.path / "limits.json").read_text())["stopped"] == "it was interrupted"
        assert f"repeat the command with --probe-resume {first.path.name}" in interrupted.output
        # The interrupted run can be in another directory than that of the options' default.
        os.rename(tmp_path / "reports", tmp_path / "kept")
        resume = (*options, "--reports", "kept", "--probe-resume", first.path.name)
        done = run_locust(locustfile, *resume, cwd=tmp_path, **ENVIRONMENT)
    assert done.code == 0, done.output
    (resumed,) = [run for run in list_runs(tmp_path / "kept") if run.path.name != first.path.name]
    stages = set(read_attempts(resumed).column("stage").to_pylist())
    assert "probe: charges" in stages
    assert not stages & {None, "probe: concurrency"}
    document = json.loads((resumed.path / "limits.json").read_text())
    assert (document["observed"]["family"], document["observed"]["limit"]) == ("fixed_window", 10)
    found = {answer["question"]: answer["value"] for answer in document["answers"]}
    # Other work on the machine can spoil the count of such a small limit. It must then be unknown.
    assert found["malformed_counts"] in {False, None}
    assert "concurrency_limit" in found


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--probe-ask", "weather"), "unknown item 'weather'"),
        (("--probe-second-key-env", "BLTYBENCH_NO_SUCH"), "BLTYBENCH_NO_SUCH is not set"),
        (("--probe-resume", "nope"), "no such run: 'nope'"),
        (("--probe-budget", "0"), "must be more than 0"),
    ],
)
def test_invalid_option_fails_before_anything_is_sent(
    args: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    write_scenario(tmp_path, "http://127.0.0.1:9/v1")
    done = run_locust(LOCUSTFILES / "limits.py", *args, cwd=tmp_path, **ENVIRONMENT)
    assert done.code == 2
    assert message in done.output
    assert not list_runs(tmp_path / "reports")
