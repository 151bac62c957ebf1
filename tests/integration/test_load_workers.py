"""Workers that are late, slow, lost, or unable to take part."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from support_locust import (
    LOCUSTFILES,
    OPEN,
    finish,
    free_port,
    run_locust,
    start_locust,
    truth_of,
    write_scenarios,
)
from support_sandbox import running_sandbox

from bltybench.runs.folder import list_runs
from bltybench.scenario.target import SANDBOX_KEY

KEY = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY}
CLOSED = """
duration_s = 60
users = 8
arrivals = { kind = "closed", think_s = 0.1 }
"""
OWN = """
from bltybench.load import ScenarioUser

class Mixed(ScenarioUser):
    pass
"""
SLOW_TO_CONNECT = (
    OWN
    + """
import os
import gevent
from locust.runners import WorkerRunner

# As on a busy machine: messages arrive before Locust has finished connecting.
connect = WorkerRunner.connect_to_master

def connect_slowly(runner):
    while "LATE" in os.environ and not os.path.exists("running"):
        gevent.sleep(0.05)
    connect(runner)
    gevent.sleep(1.5)

WorkerRunner.connect_to_master = connect_slowly
"""
)
PREPARES = (
    OWN
    + """
import time
from bltybench.load.run.run_spec import RunSpec

index_of = RunSpec.index_of

def prepare(spec, client_id):
    index = index_of(spec, client_id)
    if index == 1:
        {prepare}
    return index

RunSpec.index_of = prepare
"""
)


def write(folder: Path, text: str) -> Path:
    """Write a locustfile."""
    path = folder / "own.py"
    path.write_text(text, encoding="utf-8")
    return path


class Cluster:
    """A headless master and workers that were started one by one."""

    def __init__(self, folder: Path, locustfile: Path) -> None:
        self._folder, self._locustfile = folder, locustfile
        port = str(free_port())
        self._ports = {"LOCUST_MASTER_BIND_PORT": port, "LOCUST_MASTER_NODE_PORT": port}

    def master(self, workers: int) -> subprocess.Popen[str]:
        return self._start("--headless", "--master", "--expect-workers", str(workers), **KEY)

    def worker(self, **changes: str) -> subprocess.Popen[str]:
        return self._start("--worker", **(changes or KEY))

    def _start(self, *args: str, **changes: str) -> subprocess.Popen[str]:
        options = ("--scenario", "chat", *args)
        return start_locust(self._locustfile, *options, cwd=self._folder, **(self._ports | changes))


def wait_for_requests(log: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the sandbox has served ``count`` requests."""
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text().count("/chat/completions") < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no load"
        time.sleep(0.05)


def test_late_worker_takes_no_part_though_messages_arrive_while_it_connects(tmp_path: Path) -> None:
    # The run came before Locust had created the worker's runner: an exception, or a run of the worker's own.
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log) as sandbox:
        scenario = CLOSED.replace("0.1", "0.3")
        write_scenarios(
            tmp_path, sandbox.base_url, scenario, target="[targets.here.budget]\nrequests = 100\n"
        )
        cluster = Cluster(tmp_path, write(tmp_path, SLOW_TO_CONNECT))
        master, worker = cluster.master(1), cluster.worker()
        second = cluster.worker(LATE="", **KEY)
        wait_for_requests(log, 1, master)
        (tmp_path / "running").touch()
        late = finish(second, tmp_path)
        assert master.poll() is None
        done, first = finish(master, tmp_path), finish(worker, tmp_path)
    assert late.code == 2, late.output + done.output
    assert "bltybench: this worker connected after the run had started" in late.output
    assert "Traceback" not in late.output + first.output + done.output
    assert done.code == first.code == 0, done.output
    assert done.run.manifest().ended == "budget"
    assert len(truth_of(log)) == len(done.attempts) == 100
    assert done.run.manifest().unfinished_workers == []


@pytest.mark.parametrize(
    ("arrivals", "number", "loss"),
    [
        (CLOSED, signal.SIGKILL, "ended unexpectedly"),
        (OPEN.replace("= 4\n", "= 60\n", 1), signal.SIGKILL, "ended unexpectedly"),
        (CLOSED, signal.SIGSTOP, "stopped responding"),
    ],
    ids=["closed", "open", "stopped"],
)
def test_run_that_loses_a_worker_ends_soon_and_is_invalid(
    tmp_path: Path, arrivals: str, number: signal.Signals, loss: str
) -> None:
    # It lasted up to 86 s longer, and was VALID with exit code 0.
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, arrivals, checks='"errors.count" = "== 0"')
        process = start_locust(
            LOCUSTFILES / "mixed.py",
            "--headless",
            "--processes",
            "2",
            cwd=tmp_path,
            BLTYBENCH_REPORT_FORMAT="json,junit",
            **KEY,
        )
        wait_for_requests(log, 20, process)
        (run,) = list_runs(tmp_path / "reports")
        while not all((run.attempts_spool / f"w{index}.jsonl").stat().st_size for index in range(2)):
            time.sleep(0.05)
        worker = psutil.Process(process.pid).children()[0]
        os.kill(worker.pid, number)
        killed_ns = time.monotonic_ns()
        done = finish(process, tmp_path)
    assert done.code == 1, done.output
    assert "Stopping: worker w" in done.output
    assert f"(pid {worker.pid} on " in done.output
    manifest = done.run.manifest()
    (lost,) = manifest.unfinished_workers
    assert manifest.ended == "worker lost"
    assert manifest.ended_ns is not None
    # Without the report, which takes long on a busy machine.
    assert manifest.clock.monotonic_ns + manifest.ended_ns - killed_ns < 10e9
    sentence = f"worker {lost.name} {loss}"
    for text in (done.output, done.run.junit_xml.read_text()):
        assert sentence in text
        assert "INVALID" in text
    assert {row["worker"] for row in done.attempts} == {"w0", "w1"}


@pytest.mark.parametrize("started", ["separately", "forked"])
def test_worker_that_cannot_take_part_stops_the_run_before_it_sends_anything(
    tmp_path: Path, started: str
) -> None:
    # The other worker sent its half, and the exit code was 0.
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, CLOSED)
        if started == "forked":
            own = write(tmp_path, PREPARES.format(prepare='raise RuntimeError("no such luck")'))
            done = run_locust(own, "--processes", "2", "--scenario", "chat", cwd=tmp_path, **KEY)
            reason = "RuntimeError: no such luck"
            assert "Traceback" in done.output
            assert done.output.count("can't take part") == 1
        else:
            cluster = Cluster(tmp_path, write(tmp_path, OWN))
            workers = [cluster.worker(), cluster.worker(BLTYBENCH_TEST_KEY="")]
            done = finish(cluster.master(2), tmp_path)
            good, bad = (finish(worker, tmp_path) for worker in workers)
            reason = "BLTYBENCH_TEST_KEY is not set"
            assert "Traceback" not in done.output + good.output + bad.output
            assert (good.code, bad.code) == (0, 2)
            assert reason in bad.output
    assert done.code == 2, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("bltybench: ")]
    assert line.startswith("bltybench: worker w")
    assert f" on {os.uname().nodename}) can't take part: " in line
    assert reason in done.output
    assert not truth_of(log)
    (run,) = list_runs(tmp_path / "reports")
    assert [worker.name for worker in run.manifest().unfinished_workers] == [line.split()[2]]


@pytest.mark.parametrize("connects", [False, True])
def test_run_does_not_wait_for_a_forked_worker_that_ended_before_it(
    tmp_path: Path, *, connects: bool
) -> None:
    # Locust waits for all that it forked, looking once per second. The first worker that gets here ends.
    own = (
        OWN
        + """
import os, signal
import gevent
from locust.runners import WorkerRunner

connect = WorkerRunner.connect_to_master

def end_first(runner):
    try:
        os.mkdir("ended")
    except FileExistsError:
        return connect(runner)
    if not CONNECTS:
        os._exit(3)
    connect(runner)
    gevent.spawn_later(0.1, os.kill, os.getpid(), signal.SIGTERM)

WorkerRunner.connect_to_master = end_first
"""
    ).replace("CONNECTS", str(connects))
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, CLOSED)
        path = write(tmp_path, own)
        done = run_locust(path, "--processes", "2", "--scenario", "chat", cwd=tmp_path, **KEY)
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    if connects and list_runs(tmp_path / "reports"):
        assert "left before the end" in done.output  # Locust looked in the tenth of a second before
    else:
        assert "bltybench: 1 of 2 worker processes ended before the run\n" in done.output


def test_worker_that_a_signal_ends_while_it_stops_writes_all_its_records(tmp_path: Path) -> None:
    # Locust killed the greenlet that closed the records.
    own = (
        OWN
        + """
import os, signal
import gevent
from bltybench.load.run.record_sink import RecordSink

close = RecordSink.close

def close_slowly(sink):
    os.kill(os.getpid(), signal.SIGTERM)
    gevent.sleep(0.3)
    close(sink)

RecordSink.close = close_slowly
"""
    )
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, CLOSED)
        path = write(tmp_path, own)
        done = run_locust(path, "--processes", "2", "--scenario", "chat", "-t", "3s", cwd=tmp_path, **KEY)
    ended = {name for name, row in truth_of(log).items() if row.end_ns and not row.disconnected}
    assert ended <= {row["request_id"] for row in done.attempts}
    assert "Traceback" not in done.output
    assert not done.run.manifest().unfinished_workers


def test_load_begins_when_the_slowest_worker_is_ready(tmp_path: Path) -> None:
    # The time axis began 2 s after the start, ready or not.
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, OPEN.replace("= 4\n", "= 2\n", 1))
        own = write(tmp_path, PREPARES.format(prepare="time.sleep(3)"))
        done = run_locust(own, "--processes", "2", "--scenario", "chat", cwd=tmp_path, **KEY)
    assert done.code == 0, done.output
    assert len(done.attempts) == 30
    assert max(row["sent_ns"] - row["due_ns"] for row in done.attempts) < 1e9
    assert done.run.manifest().unfinished_workers == []
