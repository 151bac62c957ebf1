"""Exit codes and output of runs in which nothing, or not everything, succeeds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support_locust import LOCUST, LOCUSTFILES, environment, free_port, run_locust, write_scenarios
from support_sandbox import running_sandbox

from bltybench.scenario.target import SANDBOX_KEY

KEY = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY}
UNPACED = 'duration_s = 2\nusers = 4\narrivals = { kind = "closed" }'
OWN = """
from locust import constant, task
from bltybench.load import ChatUser

class Own(ChatUser):
    wait_time = constant(0.2)

    @task
    def ask(self):
        self.client.chat([{{"role": "user", "content": "Hi"}}], {limit})
"""


@pytest.mark.parametrize(
    ("args", "code"),
    [((), 1), (("--processes", "2", "--exit-code-on-error", "7"), 7)],
)
def test_dead_port_fails_the_run_and_users_do_not_spin(
    tmp_path: Path, args: tuple[str, ...], code: int
) -> None:
    # Nothing listens: the run ended VALID with 0, or INVALID with the advice to add workers.
    write_scenarios(tmp_path, f"http://127.0.0.1:{free_port()}/v1", UNPACED)
    done = run_locust(LOCUSTFILES / "mixed.py", "--no-preflight", *args, cwd=tmp_path, **KEY)
    assert done.code == code, done.output
    assert "Traceback" not in done.output
    count = len(done.attempts)
    assert f"NOTHING SUCCEEDED connection refused ({count} times): check that the server is running" in (
        done.output
    )
    assert "add workers" not in done.output
    # Each of 4 users tries at most every 0.5 s in 2 s.
    assert 4 <= count <= 4 * 5
    assert all(row["error_type"] == "connection_refused" for row in done.attempts)


def test_refusals_are_no_errors_for_the_exit_code(tmp_path: Path) -> None:
    with running_sandbox(limits={"requests": {"limit": 2}}) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, UNPACED)
        args = ("--exit-code-on-error", "7", "--label", f"after {SANDBOX_KEY}")
        done = run_locust(LOCUSTFILES / "mixed.py", *args, cwd=tmp_path, **KEY)
    assert done.run.manifest().label == "after ***"
    assert {"ok", "rate_limited"} == {row["outcome"] for row in done.attempts}
    assert done.code == 0, done.output


def test_json_is_alone_on_stdout(tmp_path: Path) -> None:
    # The verdict followed the JSON, so `locust --json | python -m json.tool` failed.
    with running_sandbox() as sandbox:
        write_scenarios(
            tmp_path,
            sandbox.base_url,
            'duration_s = 2\nusers = 2\narrivals = { kind = "closed", think_s = 0.3 }',
        )
        done = subprocess.run(
            [str(LOCUST), "-f", str(LOCUSTFILES / "mixed.py"), "--headless", "--json"],
            cwd=tmp_path,
            env=environment(**KEY),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert {row["name"] for row in json.loads(done.stdout)}
    assert "VALID" in done.stderr


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_call_that_the_budget_cannot_bound_ends_the_run_with_one_message(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    # Each call raised an exception, nothing was sent, and the exit code was 0.
    write_scenarios(
        tmp_path, "http://127.0.0.1:9/v1", UNPACED, target="[targets.here.budget]\ntokens = 100_000\n"
    )
    own = tmp_path / "own.py"
    own.write_text(OWN.format(limit="stream=True"))
    done = run_locust(own, "--no-preflight", *processes, "--scenario", "chat", cwd=tmp_path, **KEY)
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    assert done.output.count("bltybench: a call has no max_tokens or max_completion_tokens") == 1
    assert "NOTHING SUCCEEDED" not in done.output


def test_max_completion_tokens_bounds_a_call(tmp_path: Path) -> None:
    # OpenAI's reasoning models refuse max_tokens.
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, UNPACED, target="[targets.here.budget]\ntokens = 1000\n")
        own = tmp_path / "own.py"
        own.write_text(OWN.format(limit="max_completion_tokens=16"))
        done = run_locust(own, "--scenario", "chat", cwd=tmp_path, **KEY)
    assert done.code == 0, done.output
    assert {row["max_tokens"] for row in done.attempts} == {16}


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_an_unhandled_exception_exits_with_2_though_the_checks_pass(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    # Locust exits with 2 if an event listener, or the recording of an attempt, raises. The report's 0 hid it.
    own = tmp_path / "own.py"
    own.write_text(
        OWN.format(limit="max_tokens=4")
        + """
from locust import events

@events.request.add_listener
def broken(**_):
    raise ValueError("a broken listener")
"""
    )
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, UNPACED)
        done = run_locust(own, *processes, "-t", "2s", cwd=tmp_path, **KEY)
    assert "a broken listener" in done.output
    assert {"ok"} == {row["outcome"] for row in done.attempts}
    assert done.code == 2, done.output
