"""How a run ends (on time, by Ctrl-C, by its budget, by a kill), and what is kept of it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from support_cli import bltybench
from support_locust import (
    LOCUSTFILES,
    WITH_PAGE,
    Finished,
    environment,
    finish,
    free_port,
    run_locust,
    start_locust,
    truth_of,
    wait_for_page,
    write_scenarios,
)
from support_sandbox import running_sandbox

from bltybench.runs.folder import list_runs
from bltybench.scenario.target import SANDBOX_KEY, Delay

KEY = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY}

LONG = """
duration_s = 60
users = 8
arrivals = { kind = "closed", think_s = 0.1 }
"""


def wait_for_records(reports: Path, process: subprocess.Popen[str]) -> Path:
    """Wait until a run has written records, and return its directory."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        for run in list_runs(reports):
            if any(path.stat().st_size for path in run.attempts_spool.glob("*.jsonl")):
                return run.path
        time.sleep(0.1)
    raise AssertionError("no record was written within a minute")


@pytest.mark.parametrize(
    ("processes", "stop"), [((), signal.SIGINT), (("--processes", "2"), signal.SIGINT), ((), signal.SIGHUP)]
)
def test_interrupted_run_ends_with_a_report(
    tmp_path: Path, processes: tuple[str, ...], stop: signal.Signals
) -> None:
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log, ttft=Delay(median_ms=20, p95_ms=30)) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, LONG)
        process = start_locust(
            LOCUSTFILES / "mixed.py", "--headless", *processes, cwd=tmp_path, **(KEY | WITH_PAGE)
        )
        folder = wait_for_records(tmp_path / "reports", process)
        for run in ((), (folder.name,)):
            refused = bltybench("report", *run, cwd=tmp_path)
            assert refused.returncode == 2, refused.stdout
            assert refused.stderr.startswith(f"bltybench: reports/{folder.name}: the run is still active")
        os.killpg(process.pid, stop)
        done = finish(process, tmp_path, timeout_s=60)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    assert done.run.manifest().ended == "interrupted"
    assert done.run.report_html.is_file()
    assert f"Report reports/{done.run.path.name}/report.html" in done.output
    attempts = done.attempts
    assert {row["outcome"] for row in attempts} <= {"ok", "cancelled"}
    truth = truth_of(log)
    assert {row["request_id"] for row in attempts if row["outcome"] == "ok"} <= truth.keys()
    # The refused reports took no record away.
    assert len(truth) <= len(attempts)


def test_killed_run_can_be_reported(tmp_path: Path) -> None:
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, LONG)
        process = start_locust(LOCUSTFILES / "mixed.py", "--headless", cwd=tmp_path, **KEY)
        folder = wait_for_records(tmp_path / "reports", process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    reported = subprocess.run(
        [sys.executable, "-m", "bltybench", "report", str(folder)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert reported.returncode in (0, 1), reported.stderr
    assert "INVALID" in reported.stdout
    done = Finished(0, "", tmp_path / "reports")
    assert done.run.report_html.is_file()
    assert done.attempts
    assert done.run.manifest().ended is None


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_budget_ends_the_run_and_is_never_exceeded(tmp_path: Path, processes: tuple[str, ...]) -> None:
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, LONG, target="[targets.here.budget]\nrequests = 25\n")
        done = run_locust(LOCUSTFILES / "chat.py", *processes, cwd=tmp_path, **KEY)
    assert done.code == 0, done.output
    assert done.run.manifest().ended == "budget"
    assert len(truth_of(log)) == len(done.attempts) == 25


def test_failed_checks_set_the_exit_code(tmp_path: Path) -> None:
    with running_sandbox(error_rate=1.0) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, checks='"errors.share" = "<= 1%"')
        done = run_locust(LOCUSTFILES / "chat.py", "-t", "2s", cwd=tmp_path, **(KEY | WITH_PAGE))
    assert done.code == 1, done.output
    assert {row["outcome"] for row in done.attempts} == {"server_error"}
    assert 'failures="1"' in done.run.junit_xml.read_text()


def test_absent_sandbox_is_started_and_stopped_with_the_run(tmp_path: Path) -> None:
    port = free_port()
    table = """
[targets.here.sandbox]
ttft = { median_ms = 5, p95_ms = 8 }
itl = { median_ms = 1, p95_ms = 2 }
"""
    write_scenarios(tmp_path, f"http://127.0.0.1:{port}/v1", target=table)
    done = run_locust(LOCUSTFILES / "stream.py", "-t", "2s", cwd=tmp_path)
    assert done.code == 0, done.output
    assert {row["outcome"] for row in done.attempts} == {"ok"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_runs_from_the_web_page_are_reported(tmp_path: Path) -> None:
    port = free_port()
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, LONG)
        process = start_locust(
            LOCUSTFILES / "mixed.py",
            f"--web-port={port}",
            cwd=tmp_path,
            **(KEY | WITH_PAGE),
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as page:
            wait_for_page(page, process)
            listening = psutil.Process(process.pid).net_connections("tcp")
            assert {link.laddr.ip for link in listening if link.status == "LISTEN"} == {"127.0.0.1"}
            form = {"user_count": "3", "spawn_rate": "3", "host": sandbox.base_url}
            for _ in range(2):
                runs = len(list_runs(tmp_path / "reports"))
                assert page.post("/swarm", data=form).json()["success"]
                wait_for_run(tmp_path / "reports", runs + 1, process)
                time.sleep(1.5)
                assert page.post("/stop").json()["success"]
                wait_for_report(tmp_path / "reports", runs + 1, process)
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=30)[0]
    assert "Traceback" not in output
    newest, older = list_runs(tmp_path / "reports")
    for run in (newest, older):
        assert run.manifest().resolved["users"] == 3
        assert re.search("(VALID|INVALID)", run.report_html.read_text())


def wait_for_run(reports: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while len(list_runs(reports)) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no run started"
        time.sleep(0.1)


def wait_for_report(reports: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while sum(run.report_html.is_file() for run in list_runs(reports)) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no report was written"
        time.sleep(0.1)


STOPS_AT_FIRST = """
from bltybench.load import ScenarioUser
from locust import events
from locust.exception import StopUser

class Streams(ScenarioUser):
    stream = True

@events.request.add_listener
def stop(**_):
    raise StopUser
"""


def test_request_listener_can_stop_the_user(tmp_path: Path) -> None:
    users = tmp_path / "users.py"
    users.write_text(STOPS_AT_FIRST, encoding="utf-8")
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log, ttft=Delay(median_ms=20, p95_ms=30)) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, LONG.replace("60", "5"))
        done = run_locust(users, cwd=tmp_path, **KEY)
    assert done.code == 0, done.output
    assert len(done.attempts) == len(truth_of(log)) >= 8
    # A deferred record fires the listener later, and the user's next call raises its exception.
    assert max(row["sent_ns"] for row in done.attempts) < 3e9


def test_second_signal_of_another_kind_still_ends_with_a_report(tmp_path: Path) -> None:
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, LONG)
        process = start_locust(LOCUSTFILES / "mixed.py", "--headless", cwd=tmp_path, **KEY)
        wait_for_records(tmp_path / "reports", process)
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGHUP)
        done = finish(process, tmp_path, timeout_s=60)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    assert done.run.summary_json.is_file()
