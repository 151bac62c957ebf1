"""Our own commands, started and killed at random moments: nothing that ended a second earlier is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from support_locust import write_scenarios
from support_sandbox import running_sandbox

from benchmarks.kill_case import (
    REPO,
    SIGNALS,
    KillCase,
    environment,
    kill_group,
    since_start_s,
    wait_until,
)
from benchmarks.kills import SETTINGS
from benchmarks.truth_check import TruthReader, compare
from bltybench.runs.folder import RunFolder, list_runs
from bltybench.sandbox.process import SandboxProcess
from bltybench.scenario.target import Delay

RUN = """
duration_s = 3
users = 6
arrivals = { kind = "closed", think_s = 0.03 }
"""
MAX_COMMANDS = 2
"""Commands that run next to Locust at the same time."""


class Commands:
    """Random commands on the runs of a folder, each started and perhaps killed at a random moment."""

    def __init__(self, folder: Path, rng: Random) -> None:
        self.started: list[str] = []
        self.killed = 0
        self._folder, self._rng = folder, rng
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        with (self._folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", module, *options],
                cwd=self._folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def step(self) -> None:
        """Start a command, or kill one."""
        self._running = [process for process in self._running if process.poll() is None]
        if self._running and self._rng.random() < 0.5:
            victim = self._rng.choice(self._running)
            # A first Ctrl-C while Python starts shows Python's own traceback, so that is left out here.
            os.kill(victim.pid, self._rng.choice([sent for sent in SIGNALS if sent is not signal.SIGINT]))
            self.killed += 1
        elif len(self._running) < MAX_COMMANDS:
            options = self._random_options(list_runs(self._folder / "reports"))
            self.started.append(options[0])
            self._running.append(self.start("bltybench", *options))

    def _random_options(self, runs: list[RunFolder]) -> list[str]:
        names = [str(run.path) for run in runs]
        if not names:
            return ["runs"]
        command = self._rng.choice(["report", "report", "runs", "compare", "limits"])
        if command == "report":
            return ["report", "--format", "json", *self._rng.choice([[], [self._rng.choice(names)]])]
        if command == "compare":
            return ["compare", self._rng.choice(names), self._rng.choice(names)]
        return [command] if command == "runs" else ["limits", self._rng.choice(names)]

    def finish(self) -> None:
        for process in self._running:
            process.wait(60)


@pytest.mark.parametrize("seed", [1])
def test_commands_killed_at_random_moments_lose_and_damage_nothing(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    log = tmp_path / "truth.jsonl"
    reports = tmp_path / "reports"
    with running_sandbox(log, ttft=Delay(median_ms=15, p95_ms=40)) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, RUN)
        truth, commands = TruthReader(log), Commands(tmp_path, rng)
        windows = []
        for distributed in (False, True):
            before = set(list_runs(reports))
            options = ["--processes", "2"] if distributed else []
            locustfile = str(REPO / "locustfiles/mixed.py")
            locust = commands.start("locust", "-f", locustfile, "--headless", *options)
            killed_ns = None
            try:
                wait_until(lambda before=before: set(list_runs(reports)) != before, "no run")  # type: ignore[misc]
                (run,) = set(list_runs(reports)) - before
                until_s = rng.uniform(1.5, 4.0)
                while since_start_s(run) < until_s and locust.poll() is None:
                    commands.step()
                    time.sleep(rng.uniform(0.05, 0.4))
                sent, at_ns = rng.choice(SIGNALS), time.monotonic_ns()
                if locust.poll() is None:
                    os.kill(locust.pid, sent)
                    if sent is signal.SIGKILL:
                        killed_ns = at_ns
                        kill_group(locust.pid)
                locust.wait(60)
            finally:
                kill_group(locust.pid)
            time.sleep(1.0)
            windows.append((run, truth.new_rows(), killed_ns))
        commands.finish()
        for run, rows, killed_ns in windows:
            assert commands.start("bltybench", "report", str(run.path), "--format", "json").wait(60) in {0, 1}
            result = compare([run], rows, killed_ns)
            assert not result.problems
            assert result.required > 0
        assert commands.start("bltybench", "runs").wait(60) == 0
    output = (tmp_path / "output.txt").read_text(errors="replace")
    assert "Traceback" not in output, output
    assert len(set(commands.started)) >= 3
    assert commands.killed >= 2


def test_killed_reports_of_a_run_lose_nothing(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    with SandboxProcess.start(SETTINGS, log_path=log) as sandbox:
        case = KillCase("own report", Random(3), tmp_path, sandbox.base_url)
        case.play()
        case.kill_reports(4)
        case.recover()
    result = compare(case.runs, TruthReader(log).new_rows(), case.lost_since_ns)
    assert not result.problems
    assert result.required > 0
    assert len(case.kills) >= 2
