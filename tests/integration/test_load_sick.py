"""Load generators that can't keep up, each for another reason: the run must be INVALID and report why."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support_locust import LOCUSTFILES, Finished, finish, run_locust, start_locust, write_scenarios
from support_sandbox import running_sandbox

from benchmarks.bench import ServerProcess
from bltybench.runs.store import read_generator
from bltybench.scenario.target import SANDBOX_KEY, Delay

STALL = "event loop, longest stall"
CPU = "CPU of the generator"
DELAY = "schedule delay, p99"
RATE = "achieved rate"

GENTLE = """
duration_s = 4
users = 4
arrivals = { kind = "closed", think_s = 0.2 }
"""


def findings(done: Finished) -> dict[str, dict[str, Any]]:
    """Return the findings of the run's audit, by name. Check that the terminal shows the verdict."""
    assert done.code in (0, 1), done.output
    summary = json.loads(done.run.summary_json.read_bytes())
    by_name = {finding["name"]: finding for finding in summary["audit"]}
    assert summary["valid"] == all(finding["holds"] for finding in by_name.values())
    assert ("INVALID" in done.output) == (not summary["valid"]), done.output
    for finding in by_name.values():
        if not finding["holds"]:
            assert finding["reason"] in " ".join(done.output.split()), done.output
            assert finding["remedy"]
    return by_name


def broken(done: Finished) -> set[str]:
    """Return the names of the findings that do not hold."""
    return {name for name, finding in findings(done).items() if not finding["holds"]}


def run(tmp_path: Path, locustfile: Path = LOCUSTFILES / "stream.py") -> Finished:
    return run_locust(locustfile, cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)


def test_idle_generator_is_valid(tmp_path: Path) -> None:
    failures: list[set[str]] = []
    with running_sandbox() as sandbox:
        # On a shared machine, one valid run of three is enough. A generator that can't keep up fails in all.
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            write_scenarios(folder, sandbox.base_url, GENTLE)
            failures.append(broken(run(folder)))
            if not failures[-1]:
                break
    assert failures[-1] == set(), f"never valid: {failures}"


def test_busy_greenlet_stalls_the_loop(tmp_path: Path) -> None:
    locustfile = tmp_path / "busy.py"
    locustfile.write_text(
        """
import time
from bltybench.load import ScenarioUser
import gevent
from locust import events

def hog():
    while True:
        gevent.sleep(1)
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            pass

@events.test_start.add_listener
def begin(**_):
    gevent.spawn(hog)

class Busy(ScenarioUser):
    scenario = "stream"
"""
    )
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, GENTLE)
        done = run(tmp_path, locustfile)
    assert STALL in broken(done)
    assert all(row["outcome"] == "ok" for row in done.attempts)


def test_load_beyond_one_core_is_reported(tmp_path: Path) -> None:
    locustfile = tmp_path / "expensive.py"
    # Each call costs the generator far more CPU time than the server, so the server is never the bottleneck.
    locustfile.write_text(
        """
import time
from bltybench.load import ScenarioUser
from locust import events

class Expensive(ScenarioUser):
    scenario = "stream"

@events.request.add_listener
def compute(**_):
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass
"""
    )
    with ServerProcess() as server:
        unpaced = 'duration_s = 4\nusers = 50\narrivals = { kind = "closed" }'
        write_scenarios(tmp_path, server.url(tokens=64, rate=0), unpaced)
        done = run(tmp_path, locustfile)
    assert CPU in broken(done)


def test_rate_beyond_the_users_is_reported(tmp_path: Path) -> None:
    with running_sandbox(ttft=Delay(median_ms=400, p95_ms=401)) as sandbox:
        # 4 users with responses of 0.4 s make 10 calls per second, but 50 are scheduled.
        write_scenarios(
            tmp_path,
            sandbox.base_url,
            'duration_s = 4\nusers = 4\narrivals = { kind = "constant", rate_per_min = 3000 }',
        )
        done = run(tmp_path)
    assert {DELAY, RATE} <= broken(done)
    assert "users" in findings(done)[RATE]["remedy"]


def test_suspended_process_is_a_stall(tmp_path: Path) -> None:
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, GENTLE)
        locust = start_locust(
            LOCUSTFILES / "stream.py", "--headless", cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY
        )
        while not any(path.stat().st_size for path in tmp_path.glob("reports/*/generator/*.jsonl")):
            assert locust.poll() is None
            time.sleep(0.05)
        locust.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        locust.send_signal(signal.SIGCONT)
        done = finish(locust, tmp_path)
    assert STALL in broken(done)
    stalls_us = read_generator(done.run).column("stall_us").to_pylist()
    assert max(stalls_us) >= 900_000


@pytest.mark.parametrize(
    ("scenario", "args"),
    [
        (GENTLE, ()),
        (
            'duration_s = 4\nusers = 20\narrivals = { kind = "constant", rate_per_min = 1200 }',
            ("--processes=2",),
        ),
    ],
)
def test_server_that_dies_during_a_run_does_not_make_the_generator_invalid(
    tmp_path: Path, scenario: str, args: tuple[str, ...]
) -> None:
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, scenario)
        locust = start_locust(
            LOCUSTFILES / "mixed.py", "--headless", *args, cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY
        )
        while not any(path.stat().st_size for path in tmp_path.glob("reports/*/attempts/*.jsonl")):
            assert locust.poll() is None
            time.sleep(0.05)
        os.kill(sandbox.pid, signal.SIGKILL)
        done = finish(locust, tmp_path)
    kinds = Counter(row["error_type"] for row in done.attempts)
    assert kinds["connection_refused"] >= 5, kinds
    assert kinds[None] >= 1, kinds
    found = findings(done)
    if args:  # a closed loop has no rate to achieve; a busy machine can fail other findings
        assert found[RATE]["holds"], found[RATE]
        assert found[RATE]["actual"].endswith(f"and {kinds['connection_refused']} could not connect")
