"""A master and its workers on machines that share neither disk nor clock: one run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support_locust import LOCUST, LOCUSTFILES, STARTED, environment, finish, truth_of

from benchmarks.machine_network import Network, why_impossible
from bltybench.runs.store import read_attempts
from bltybench.scenario.arrivals.arrivals import schedule
from bltybench.scenario.file.resolve import resolve
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.target import SANDBOX_KEY

WORKERS = {"one": 0.25, "two": -0.25, "three": 0.0}
"""Seconds by which each worker's clock is ahead of the others'."""
PORT = 8000
SCENARIOS = """
[targets.here]
base_url = "http://{host}:8000/v1"
api_key_env = "BLTYBENCH_TEST_KEY"
[targets.here.budget]
requests = 60
[scenarios.quickstart]
title = "Machines"
model = "deepseek-chat"
target = "here"
duration_s = 10
users = 30
seed = 7
arrivals = {{ kind = "poisson", rate_per_min = 1500 }}
[[scenarios.quickstart.mix]]
name = "streamed"
stream = true
max_tokens = {{ kind = "uniform", min = 1, max = 30 }}
"""
SANDBOX = """
default_scenario = "s"
[targets.sandbox]
base_url = "http://127.0.0.1:8000/v1"
[targets.sandbox.sandbox]
ttft = { median_ms = 5, p95_ms = 8 }
itl = { median_ms = 1, p95_ms = 2 }
[targets.sandbox.sandbox.limits]
[scenarios.s]
title = "S"
duration_s = 1
users = 1
model = "deepseek-chat"
arrivals = { kind = "closed", think_s = 0.2 }
[[scenarios.s.mix]]
name = "m"
max_tokens = { kind = "fixed", tokens = 1 }
"""


class Machines:
    """Processes on the machines of a network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        for name in ("master", *WORKERS):
            text = SCENARIOS.format(host=network.address("api"))
            (network.directory(name) / "scenarios.toml").write_text(text)
        (network.directory("api") / "scenarios.toml").write_text(SANDBOX)

    def sandbox(self, log: Path) -> subprocess.Popen[str]:
        options = ["--host", self._network.address("api"), "--port", str(PORT), "--log", str(log)]
        options += ["--requests", "0", "--tokens", "0", "--concurrency", "0"]
        process = self._start("api", str(LOCUST.with_name("bltybench")), "sandbox", *options)
        assert process.stdout is not None
        while "Press Ctrl-C" not in (line := process.stdout.readline()):
            assert process.poll() is None, line
        return process

    def master(self) -> subprocess.Popen[str]:
        bind = ("--master-bind-host", self._network.address("master"))
        return self._locust("master", "--headless", "--master", "--expect-workers", str(len(WORKERS)), *bind)

    def worker(self, name: str, *, ahead_s: float = 0.0) -> subprocess.Popen[str]:
        host = ("--master-host", self._network.address("master"))
        return self._locust(name, "--worker", *host, ahead_s=ahead_s)

    def _locust(self, name: str, *args: str, ahead_s: float = 0.0) -> subprocess.Popen[str]:
        return self._start(name, str(LOCUST), "-f", str(LOCUSTFILES / "mixed.py"), *args, ahead_s=ahead_s)

    def _start(self, name: str, *command: str, ahead_s: float = 0.0) -> subprocess.Popen[str]:
        variables = environment(BLTYBENCH_TEST_KEY=SANDBOX_KEY)
        variables = {key: value for key, value in variables.items() if not key.startswith("LOCUST_")}
        process = self._network.start(name, command, variables, ahead_s=ahead_s)
        STARTED.append(process)
        return process


@pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))
def test_machines_without_a_shared_disk_or_clock_make_one_run(tmp_path: Path) -> None:
    log = tmp_path / "api" / "truth.jsonl"
    with Network(tmp_path, ["master", "api", *WORKERS]) as network:
        machines = Machines(network)
        sandbox = machines.sandbox(log)
        master = machines.master()
        workers = [machines.worker(name, ahead_s=ahead_s) for name, ahead_s in WORKERS.items()]
        done = finish(master, network.directory("master"))
        ended = [
            finish(worker, network.directory(name)) for worker, name in zip(workers, WORKERS, strict=True)
        ]
        sandbox.terminate()
        sandbox.communicate()
    output = done.output + "".join(worker.output for worker in ended)
    assert [done.code, *(worker.code for worker in ended)] == [0, 0, 0, 0], output
    assert "Traceback" not in output
    # The union of the workers' attempts is the log of the API, and the budget is spent and not exceeded.
    rows = read_attempts(done.run).to_pylist()
    served = truth_of(log)
    assert {row["request_id"] for row in rows} == served.keys()
    assert len(rows) == 60
    assert {row["worker"] for row in rows} == {"w0", "w1", "w2"}
    assert done.run.manifest().ended == "budget"
    # The schedule is that of a single process.
    resolved = resolve(load_book(tmp_path / "master" / "scenarios.toml"))
    scenario = resolved.scenario
    drawn = schedule(scenario.arrivals, scenario.duration_s, scenario.seed, resolved.base_dir)
    manifest = done.run.manifest()
    clocks = {clock.worker: clock for clock in manifest.worker_clocks}
    for row, arrival in zip(sorted(rows, key=lambda row: row["due_ns"]), drawn, strict=False):
        # The correction of a clock moves all times of its worker.
        moved_ns = 2 * clocks[row["worker"]].uncertainty_ns if row["worker"] in clocks else 0
        assert abs(row["due_ns"] - round(arrival.at_s * 1e9)) <= moved_ns
    # The clocks are far apart, and the times on one axis: the API receives a request after it is sent.
    assert sorted(round(clock.applied_ns / 1e9, 2) for clock in clocks.values()) == [-0.25, 0.25]
    for row in rows:
        truth, start_ns = served[row["request_id"]], manifest.clock.monotonic_ns
        error_ns = clocks[row["worker"]].uncertainty_ns if row["worker"] in clocks else 0
        assert truth.end_ns is not None
        assert start_ns + row["sent_ns"] - error_ns <= truth.received_ns
        assert truth.event_ns[-1] <= start_ns + row["end_ns"] + error_ns
        assert error_ns < 50e6
    # Nothing is left where the workers ran.
    assert [path.name for name in WORKERS for path in (tmp_path / name).rglob("*.jsonl")] == []
