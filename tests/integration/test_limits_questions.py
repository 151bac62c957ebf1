"""The probe's other questions over sockets: what is in flight, tokens, what counts, and whose limit it is."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support_cli import bltybench
from support_locust import LOCUSTFILES, WITH_PAGE, finish, run_locust, start_locust
from support_probe import write_scenario
from support_sandbox import running_sandbox

from bltybench.runs.folder import RunFolder, list_runs
from bltybench.runs.store import read_attempts
from bltybench.scenario.file.limits_file import load_limits
from bltybench.scenario.target import Delay, RateLimit, SandboxKey, SandboxLimits

KEYS = (SandboxKey(name="one", key="sk-sandbox"), SandboxKey(name="two", key="sk-second"))
ENVIRONMENT = {"BLTYBENCH_TEST_KEY": "sk-sandbox", "BLTYBENCH_SECOND_KEY": "sk-second"}
# Streams of some seconds: long enough to be held, short enough to be waited for.
SHORT_STREAMS = ("--probe-budget", "30", "--probe-tokens", "8000")


def sandbox(**rules: Any) -> Any:
    limits = SandboxLimits(**({"requests": None, "tokens": None, "concurrency": None} | rules))
    ttft, itl = Delay(median_ms=10, p95_ms=12), Delay(median_ms=20, p95_ms=21)
    return running_sandbox(limits=limits, keys=KEYS, ttft=ttft, itl=itl)


def ask(folder: Path, *args: str, page: bool = False, **rules: Any) -> tuple[dict[str, Any], RunFolder]:
    """Return the answers by question, and the run."""
    with sandbox(**rules) as running:
        write_scenario(folder, running.base_url)
        changes = ENVIRONMENT | (WITH_PAGE if page else {})
        done = run_locust(LOCUSTFILES / "limits.py", *args, cwd=folder, **changes)
    assert done.code == 0, done.output
    return answers_of(done.run), done.run


def answers_of(run: RunFolder) -> dict[str, Any]:
    found = json.loads((run.path / "limits.json").read_text())
    assert found["stopped"] is None, found["stopped"]
    return {each["question"]: each for each in found["answers"]}


def values(answers: dict[str, Any]) -> dict[str, Any]:
    return {name: each["value"] for name, each in answers.items()}


def test_what_is_refused_in_flight_what_counts_and_whose_limit_it_is(tmp_path: Path) -> None:
    # On a busy machine what is to lie in one window may take two seconds.
    rule = RateLimit(limit=16, period_s=4.0, algorithm="fixed_window")
    found, run = ask(
        tmp_path,
        *(
            "--probe-ask",
            "requests,concurrency,charges,401",
            "--probe-second-key-env",
            "BLTYBENCH_SECOND_KEY",
        ),
        page=True,
        requests=rule,
        concurrency=4,
        charged_errors=(404,),
        charged_endpoints=("models",),
        per=("key", "model"),
    )
    told = values(found)
    assert (told["concurrency_limit"], told["concurrency_excess"]) == (4, "refused")
    assert told["cancelled_frees_slot"] is True
    assert told["malformed_counts"] is not True  # where the machine is busy it may abstain
    assert told["unknown_model_counts"] is True
    assert told["models_endpoint_counts"] is True
    assert told["wrong_key_counts"] is False
    # Within such a short period there is hardly time to ask.
    assert told["refused_counts"] in {False, None}
    assert (told["limit_per_key"], told["limit_per_model"]) == (True, True)
    assert told["limit_header"] == "honest"
    assert all(
        each["confidence"] and each["evidence"] for each in found.values() if each["value"] is not None
    )
    assert all(each["reason"] for each in found.values() if each["value"] is None)
    # The sandbox that this makes is the one that was asked.
    written = load_limits(run.path / "limits.toml")
    assert (written.concurrency, written.charged_errors, written.per) == (4, (404,), ("key", "model"))
    assert written.charged_endpoints == ("models",)
    assert "sk-second" not in "".join(path.read_text(errors="ignore") for path in run.path.glob("*.json*"))
    verb = bltybench("limits", "--json", cwd=tmp_path)
    assert verb.returncode == 0, verb.stderr
    again = {each["question"]: each["value"] for each in json.loads(verb.stdout)["answers"]}
    assert again["concurrency_limit"] == 4
    assert again["unknown_model_counts"] is True
    assert "Further questions" in (run.path / "report.html").read_text()


def test_a_queue_whose_cancelled_streams_keep_their_slots(tmp_path: Path) -> None:
    found, run = ask(
        tmp_path,
        *("--probe-ask", "concurrency", *SHORT_STREAMS),
        concurrency=3,
        concurrency_excess="queued",
        cancelled_keeps_slot=True,
    )
    told = values(found)
    assert (told["concurrency_limit"], told["concurrency_excess"]) == (3, "queued")
    assert told["cancelled_frees_slot"] is False
    document = tomllib.loads((run.path / "limits.toml").read_text())
    assert document["concurrency_excess"] == "queued"
    assert document["cancelled_keeps_slot"] is True


@pytest.mark.parametrize("charged", ["reserved", "refunded", "used"])
def test_how_tokens_are_charged(charged: str, tmp_path: Path) -> None:
    rule = RateLimit(limit=4000, period_s=1.5)
    found, _ = ask(
        tmp_path, "--probe-ask", "tokens", "--probe-period", "1.5", tokens=rule, tokens_charged=charged
    )
    if charged == "used" and found["tokens_charged"]["value"] is None:
        assert found["tokens_charged"]["reason"]  # so short a period may pass on a busy machine
        return
    told = values(found)
    assert told["tokens_charged"] == charged, found
    assert told["tokens_charged_at"] in {"end" if charged == "used" else "admission", None}
    least, most = found["token_limit"]["range"]
    assert least <= 4000 <= most
    assert most - least <= 600
    period_s = told["token_period_s"]
    assert period_s is None or period_s == pytest.approx(1.5, rel=0.03)


def test_an_interrupted_probe_goes_on_with_what_it_had_not_asked(tmp_path: Path) -> None:
    rule = RateLimit(limit=10, period_s=1.5)
    questions = ("--headless", "--probe-ask", "requests,concurrency,charges")
    with sandbox(requests=rule) as running:
        write_scenario(tmp_path, running.base_url)
        process = start_locust(LOCUSTFILES / "limits.py", *questions, cwd=tmp_path, **ENVIRONMENT)
        assert process.stdout is not None
        for line in process.stdout:
            if "Now: charges" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        first = finish(process, tmp_path).run
        done = run_locust(
            LOCUSTFILES / "limits.py",
            *(*questions[1:], "--probe-resume", str(first.path)),
            cwd=tmp_path,
            **ENVIRONMENT,
        )
    assert done.code == 0, done.output
    (resumed,) = [run for run in list_runs(tmp_path / "reports") if run.path != first.path]
    stages = set(read_attempts(resumed).column("stage").to_pylist())
    assert "probe: charges" in stages
    assert not stages & {None, "probe: concurrency"}
    found = json.loads((resumed.path / "limits.json").read_text())
    assert (found["observed"]["family"], found["observed"]["limit"]) == ("fixed_window", 10)
    told = {each["question"]: each["value"] for each in found["answers"]}
    # Of so small a limit the machine's other work can spoil the count: then it must say so.
    assert told["malformed_counts"] in {False, None}
    assert "concurrency_limit" in told


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--probe-ask", "weather"), "unknown item 'weather'"),
        (("--probe-second-key-env", "BLTYBENCH_NO_SUCH"), "BLTYBENCH_NO_SUCH is not set"),
        (("--probe-budget", "0"), "must be more than 0"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_sent(
    args: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    write_scenario(tmp_path, "http://127.0.0.1:9/v1")
    done = run_locust(LOCUSTFILES / "limits.py", *args, cwd=tmp_path, **ENVIRONMENT)
    assert done.code == 2
    assert said in done.output
    assert not list_runs(tmp_path / "reports")
