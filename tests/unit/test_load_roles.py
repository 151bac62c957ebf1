"""Roles of processes, and what a run's owner knows about its workers."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from locust import User, runners
from locust.runners import STATE_MISSING, STATE_RUNNING, MasterRunner, WorkerNode, WorkerNodes

from bltybench import __version__
from bltybench.errors import UserError
from bltybench.load.distributed.presence import PartState, Presence, part_of
from bltybench.load.locust_plugin.crew import Crew, FixedWorkers, tolerate_cuts
from bltybench.load.locust_plugin.options import Role, role_of
from bltybench.load.run.run_spec import RunSpec
from bltybench.runs.folder import create_run


@pytest.mark.parametrize(
    ("worker", "master", "role"),
    [
        (False, False, Role.STANDALONE),
        (False, True, Role.MASTER),
        # Locust sets ``worker`` in the children of --processes.
        (True, False, Role.WORKER),
        (True, True, Role.WORKER),
    ],
)
def test_role_follows_from_how_the_process_was_started(worker: bool, master: bool, role: Role) -> None:
    assert role_of(Namespace(worker=worker, master=master)) is role


class TestPresence:
    def test_part_is_running_until_the_process_says_how_it_ended(self, tmp_path: Path) -> None:
        folder = create_run(tmp_path, "s")
        assert part_of(folder, "w0") is PartState.UNKNOWN
        for worker, failed, state in (("w0", False, PartState.FINISHED), ("w1", True, PartState.FAILED)):
            with Presence(folder, worker) as presence:
                assert part_of(folder, worker) is PartState.RUNNING
                presence.leave(failed=failed)
                assert part_of(folder, worker) is PartState.RUNNING
            assert part_of(folder, worker) is state

    def test_killed_process_is_not_running(self, tmp_path: Path) -> None:
        folder = create_run(tmp_path, "s")
        code = f"""
import os, signal
from pathlib import Path
from bltybench.load.distributed.presence import Presence
from bltybench.runs.folder import RunFolder
Presence(RunFolder(Path({str(folder.path)!r})), "w0")
print("locked", flush=True)
signal.pause()
"""
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            assert part_of(folder, "w0") is PartState.RUNNING
            with pytest.raises(BlockingIOError):
                Presence(folder, "w0")
            process.kill()
        assert part_of(folder, "w0") is PartState.UNKNOWN


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (None, "the master sent no run that this bltybench understands"),
        ({"run_path": "x"}, "the master sent no run that this bltybench understands"),
        ("valid", "the master runs bltybench 0.0.1, this worker " + __version__),
    ],
)
def test_run_of_another_version_is_a_user_error(message: object, what: str) -> None:
    if message == "valid":
        clock = {"monotonic_ns": 0, "wall_ns": 0}
        texts = dict.fromkeys(("run_path", "scenario_name"), "x")
        message = {"version": "0.0.1", "clock": clock, "scenario": {}, "target": {}, "workers": [], **texts}
    with pytest.raises(UserError, match=what) as caught:
        RunSpec.received(message)
    assert "version" in (caught.value.remedy or "") or "bltybench" in (caught.value.remedy or "")


def test_users_stay_with_the_workers_that_a_run_starts_with() -> None:
    nodes = [WorkerNode("a"), WorkerNode("b")]
    dispatcher = FixedWorkers(nodes, [User])
    dispatcher.new_dispatch(8, 8)
    before = next(dispatcher)
    dispatcher.add_worker(WorkerNode("late"))
    dispatcher.remove_worker(nodes[0])
    dispatcher.new_dispatch(8, 8)
    assert next(dispatcher) == before == {"a": {"User": 4}, "b": {"User": 4}}


class FakeRun:
    """Two workers, and what the locks say about them."""

    workers = ("a", "b")
    worker_names = ("w0", "w1")
    max_silence_s = 30.0

    def __init__(self, *, started: bool) -> None:
        self.started = SimpleNamespace(is_set=lambda: started)
        self.killed: set[str] = set()
        self.lost: dict[str, str] = {}

    def is_killed(self, name: str) -> bool:
        return name in self.killed

    def lose(self, name: str, reason: str) -> None:
        self.lost[name] = reason


class TestCrew:
    def crew(self, *, started: bool = True) -> tuple[Crew, FakeRun, WorkerNodes]:
        runner = MasterRunner.__new__(MasterRunner)
        runner.greenlet = cast("Any", [])
        runner.clients = WorkerNodes()
        for client_id in FakeRun.workers:
            runner.clients[client_id] = WorkerNode(client_id, STATE_RUNNING)
        run = FakeRun(started=started)
        return Crew(runner, cast("Any", run), {"b": "pid 7 on host"}), run, runner.clients

    def test_nobody_is_lost_while_all_respond(self) -> None:
        crew, run, _ = self.crew()
        assert crew.find_lost() == ""
        crew.close()
        assert run.lost == {}

    def test_killed_worker_is_lost_immediately(self) -> None:
        crew, run, nodes = self.crew()
        nodes["b"].user_classes_count = {"User": 3}
        run.killed.add("w1")
        assert crew.find_lost().startswith("worker w1 (pid 7 on host) ended unexpectedly")
        assert list(run.lost) == ["w1"]
        # Locust does not wait for its users.
        assert nodes["b"].user_count == 0

    def test_silent_worker_is_lost_unless_it_is_still_preparing(self) -> None:
        for started, lost in ((True, ["w0"]), (False, [])):
            crew, run, nodes = self.crew(started=started)
            nodes["a"].state = STATE_MISSING
            crew.find_lost()
            assert list(run.lost) == lost

    def test_worker_on_another_machine_can_be_silent_while_the_network_is_cut(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runners, "HEARTBEAT_LIVENESS", runners.HEARTBEAT_LIVENESS)
        tolerate_cuts()
        for silent_s, lost in ((4, []), (5, ["w0"]), (30, ["w0"]), (31, ["w0", "w1"])):
            crew, run, nodes = self.crew()
            crew.take_ready("b", is_remote=True)
            for node in nodes.values():
                # Locust counts down, once per second.
                node.heartbeat = runners.HEARTBEAT_LIVENESS - silent_s
            crew.find_lost()
            assert list(run.lost) == lost

    def test_worker_that_left_is_not_lost_immediately_because_of_ctrl_c(self) -> None:
        crew, run, nodes = self.crew()
        del nodes["a"]
        assert crew.find_lost() == ""
        crew.close()
        del nodes["b"]
        crew.close()
        assert run.lost == {}
        assert crew.left_early == ["a"]
