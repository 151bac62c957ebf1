"""Locustfiles of users, with the features of Locust that they use."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support_locust import Finished, finish, run_locust, start_locust, write_scenarios
from support_sandbox import read_truth, running_sandbox

from bltybench.scenario.target import SANDBOX_KEY

KEY = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY}
OPEN_LOOP = """
duration_s = 60
users = 100
arrivals = { kind = "constant", rate_per_min = 900 }
"""
IMPORTS = """
from locust import HttpUser, LoadTestShape, TaskSet, constant, tag, task
from bltybench.load import ChatUser, ScenarioUser

HI = [{"role": "user", "content": "Hi"}]
"""
TWO_CLASSES = """
class QuickReader(ChatUser):
    '''Reads short answers.

    As fast as it can.
    '''

    weight = 3
    wait_time = constant(0.1)

    def on_start(self):
        assert self.environment.runner.user_count > 0
        assert self.client.chat(HI, max_tokens=1, name="hello").ok

    def on_stop(self):
        print("the reader's on_stop")

    @tag("short")
    @task
    class Reading(TaskSet):
        @task
        def read(self):
            self.client.chat(HI, max_tokens=2, name="read")

    @tag("long")
    @task
    def study(self):
        self.client.chat(HI, max_tokens=50, name="study")


class Writer(ChatUser):
    fixed_count = 1
    wait_time = constant(0.2)

    @tag("short")
    @task
    def write(self):
        self.client.chat(HI, max_tokens=3, name="write")


class Health(HttpUser):
    fixed_count = 1
    host = "HEALTH_HOST"
    wait_time = constant(0.5)

    @tag("short")
    @task
    def get(self):
        self.client.get("/v1/models", headers={"Authorization": "Bearer HEALTH_KEY"})
"""
SHAPE = """
class Steps(LoadTestShape):
    def tick(self):
        elapsed_s = self.get_run_time()
        return None if elapsed_s > 3.5 else (1 if elapsed_s < 1.5 else 4, 10)
"""


def manifest(done: Finished) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(done.run.manifest_json.read_bytes())
    return loaded


def summary(done: Finished) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(done.run.summary_json.read_bytes())
    return loaded


def test_own_classes_run_at_their_own_pace_next_to_an_http_user(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    with running_sandbox() as sandbox:
        # The file's default scenario has 900 calls per minute, 100 users, and a check that can't hold.
        write_scenarios(tmp_path, sandbox.base_url, OPEN_LOOP, checks='"ttft.p50" = "< 0.001 ms"')
        classes = TWO_CLASSES.replace("HEALTH_HOST", sandbox.base_url.removesuffix("/v1"))
        own.write_text(IMPORTS + classes.replace("HEALTH_KEY", SANDBOX_KEY))
        done = run_locust(own, "-u", "6", "-r", "6", "-t", "3s", "--tags", "short", cwd=tmp_path, **KEY)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    assert done.output.count("the reader's on_stop") == 4
    assert {row["name"] for row in done.attempts} == {"hello", "read", "write"}
    assert len({row["user"] for row in done.attempts}) == 5
    assert sum(row["name"] == "hello" for row in done.attempts) == 4
    ran = manifest(done)
    assert (ran["ended"], ran["unrecorded"], ran["scenario"]) == (
        "completed",
        ["Health"],
        "quick-reader-and-writer",
    )
    resolved = ran["resolved"]
    assert (resolved["title"], resolved["answers"]) == (
        "QuickReader and Writer",
        "QuickReader: Reads short answers",
    )
    assert (resolved["users"], resolved["duration_s"], resolved["mix"]) == (6, 3, [])
    # Nothing was due, so nothing was late.
    assert ran["planned_calls"] is None
    result = summary(done)
    assert (result["checks"], result["unrecorded"]) == ([], ["Health"])
    assert "No run time limit set" not in done.output
    # Locust's table holds the requests of all classes.
    assert "Not recorded, because they don't derive from ChatUser: Health" in done.output
    assert "GET      /v1/models" in done.output
    assert "401" not in done.output


def test_one_user_runs_until_it_is_stopped_without_options(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        IMPORTS
        + """
class CuriousUser(ChatUser):
    "Asks what it wants to know."
    wait_time = constant(0.2)

    @task
    def ask(self):
        print("asked:", self.client.chat(HI, max_tokens=1).ok, flush=True)
"""
    )
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, OPEN_LOOP)
        process = start_locust(own, "--headless", cwd=tmp_path, **KEY)
        assert process.stdout is not None
        lines: list[str] = []
        while sum("asked: True" in line for line in lines) < 5:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        process.send_signal(signal.SIGINT)
        done = finish(process, tmp_path)
    assert done.code == 0, done.output
    assert any("No run time limit set" in line for line in lines)
    assert {row["user"] for row in done.attempts} == {0}
    ran = manifest(done)
    assert (ran["ended"], ran["scenario"], ran["resolved"]["users"]) == ("completed", "curious-user", 1)
    assert ran["resolved"]["title"] == "CuriousUser: Asks what it wants to know"
    assert ran["resolved"]["arrivals"]["kind"] == "closed"


@pytest.mark.parametrize(("end", "more"), [("quit", ()), ("stop", ("-s", "5"))])
def test_user_ends_the_run_from_its_task(tmp_path: Path, end: str, more: tuple[str, ...]) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        IMPORTS
        + f"""
class Judge(ChatUser):
    fixed_count = 1
    wait_time = constant(0.1)

    @task
    def ask(self):
        assert all([self.client.chat(HI, max_tokens=1).ok for _ in range(5)])
        self.environment.runner.{end}()
        raise AssertionError("the user goes on")

    def on_stop(self):
        print("the judge's on_stop")


class Other(ChatUser):
    fixed_count = 3
    wait_time = constant(0.1)

    @task
    def ask(self):
        self.client.chat(HI, max_tokens=1)
"""
    )
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, OPEN_LOOP)
        done = run_locust(own, "-u", "4", "-r", "4", "-t", "60s", *more, cwd=tmp_path, **KEY)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    assert done.output.count("the judge's on_stop") == 1
    assert len(done.attempts) == sum(row.path.endswith("/chat/completions") for row in read_truth(log))
    ran = manifest(done)
    assert ran["ended"] == "completed"
    assert ran["ended_ns"] < 20e9


def test_load_test_shape_replaces_the_arrivals_of_the_scenario(tmp_path: Path) -> None:
    own = tmp_path / "shaped.py"
    own.write_text(IMPORTS + SHAPE + '\nclass Shaped(ScenarioUser):\n    scenario = "quickstart"\n')
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, OPEN_LOOP)
        done = run_locust(own, "--processes", "2", cwd=tmp_path, **KEY)
    assert done.code == 0, done.output
    ran = manifest(done)
    assert (ran["ended"], ran["load_test_shape"]) == ("completed", "Steps")
    assert ran["resolved"]["arrivals"] == {"kind": "closed", "think_s": 0.0}
    assert ran["ended_ns"] < 10e9
    assert {row["name"] for row in done.attempts} == {"plain", "streamed"}
    assert len({row["user"] for row in done.attempts}) == 4
    early = {row["user"] for row in done.attempts if row["sent_ns"] and row["sent_ns"] < 0.9e9}
    assert len(early) == 1


def test_scenario_of_an_own_class_needs_no_mix_and_sets_users_duration_and_checks(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    # The report, started in this folder, imported it instead of Python's.
    (tmp_path / "http.py").write_text("raise ImportError")
    own.write_text(
        IMPORTS
        + """
class Own(ChatUser):
    scenario = "mine"
    wait_time = constant(0.2)

    @task
    def ask(self):
        self.client.chat(HI, max_tokens=1)
"""
    )
    with running_sandbox() as sandbox:
        book = write_scenarios(tmp_path, sandbox.base_url)
        mine = (
            '[scenarios.mine]\ntitle = "Mine"\nmodel = "deepseek-chat"\ntarget = "here"\nduration_s = 2\n'
            'users = 3\narrivals = { kind = "closed" }\n[scenarios.mine.checks]\n"errors.share" = "<= 0%"\n'
        )
        book.write_text(book.read_text() + mine)
        done = run_locust(own, cwd=tmp_path, **KEY)
        refused = run_locust(
            Path(__file__).parents[2] / "locustfiles" / "mixed.py", "--scenario", "mine", cwd=tmp_path, **KEY
        )
    assert done.code == 0, done.output
    assert len({row["user"] for row in done.attempts}) == 3
    assert manifest(done)["resolved"]["title"] == "Mine"
    assert [check["passed"] for check in summary(done)["checks"]] == [True]
    assert refused.code == 2
    assert "the scenario has no mix, so there is nothing to replay" in refused.output


def test_locustfile_without_recorded_classes_is_left_to_locust(tmp_path: Path) -> None:
    plain = tmp_path / "plain.py"
    plain.write_text(
        IMPORTS
        + """
class Plain(HttpUser):
    host = "http://127.0.0.1:9"
    wait_time = constant(0.2)

    @task
    def get(self):
        self.client.get("/")
"""
    )
    done = run_locust(plain, "-t", "4s", cwd=tmp_path)
    assert done.code == 1, done.output  # Locust's own: a request failed
    assert "Traceback" not in done.output
    assert not done.reports.exists()
