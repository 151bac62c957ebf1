"""One run of Locust in its own folder, the kills of its processes, and what must be left."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil

from bltybench.runs.folder import RunFolder, list_runs
from bltybench.scenario.target import SANDBOX_KEY

REPO = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PHASES = ("starting", "ramp", "steady", "stopping", "reporting")
LOCUST_KINDS = ("standalone", "master", "worker")
DURATION_S, RAMP_S, USERS = 2.5, 1.0, 6
MAX_START_S = 2.5
"""Time after its start in which a process is killed "while starting", in seconds."""
MAX_WAIT_S = 60.0
"""Maximum time of each step, such as the end of a run after a kill, in seconds on a busy machine."""
POLL_S = 0.004
ARRIVALS = ('{ kind = "closed", think_s = 0.03 }', '{ kind = "constant", rate_per_min = 3600 }')
SCENARIO = """
[targets.here]
base_url = "%s"
api_key_env = "BLTYBENCH_TEST_KEY"
[scenarios.quickstart]
title = "Killed"
model = "deepseek-chat"
target = "here"
duration_s = %g
users = %d
spawn_rate = %g
arrivals = %s
[[scenarios.quickstart.mix]]
name = "plain"
max_tokens = { kind = "uniform", min = 1, max = 12 }
[[scenarios.quickstart.mix]]
name = "streamed"
stream = true
max_tokens = { kind = "uniform", min = 1, max = 60 }
"""


class CaseError(Exception):
    """A step that took too long, or a process that ended in a way it must not."""


class Kill(NamedTuple):
    """What was killed, when, and how."""

    kind: str
    phase: str
    signal: signal.Signals
    at_ns: int


class KillCase:
    """A run, and the random kills of its processes."""

    def __init__(self, kind: str, rng: Random, folder: Path, base_url: str) -> None:
        self.kills: list[Kill] = []
        self._kind, self._rng, self._folder = kind, rng, folder
        self._output = folder / "output.txt"
        scenario = SCENARIO % (base_url, DURATION_S, USERS, USERS / RAMP_S, rng.choice(ARRIVALS))
        (folder / "scenarios.toml").write_text(scenario, encoding="utf-8")

    @property
    def runs(self) -> list[RunFolder]:
        """The runs of this case: one, or none yet."""
        return list_runs(self._folder / "reports")

    @property
    def lost_since_ns(self) -> int | None:
        """When a process that held records was killed by SIGKILL. After other signals, it writes them."""
        lethal = [
            kill.at_ns for kill in self.kills if kill.kind in LOCUST_KINDS and kill.signal is signal.SIGKILL
        ]
        return min(lethal, default=None)

    def play(self) -> None:
        """Start Locust, kill a process of it, and wait until the rest has ended."""
        distributed = self._kind in {"worker", "master"}
        options = ["--processes", "2"] if distributed else []
        locustfile = str(REPO / "locustfiles/mixed.py")
        process = self._start("locust", "-f", locustfile, "--headless", *options)
        try:
            phase = "reporting" if self._kind == "own report" else self._rng.choice(PHASES)
            self._wait_for(phase, process)
            pid = self._choose_pid(process)
            if pid is not None:
                is_own_report = self._kind == "own report"
                phase = report_phase(self.runs[0]) if is_own_report else self._phase()
                self._send(self._kind, phase, pid, process)
            if distributed and process.poll() == -signal.SIGKILL:
                # Without a master, workers end by themselves only after a minute.
                kill_group(process.pid)
            wait_until(lambda: process.poll() is not None, "Locust did not end after the kill")
        finally:
            kill_group(process.pid)
            process.wait()

    def kill_reports(self, tries: int) -> None:
        """Start ``bltybench report`` of the run ``tries`` times, and kill each if it has not ended before."""
        for _ in range(tries):
            folder = self.runs[0]
            process = self._start_report(self._rng.choice(("json", "json", "json,md,junit", "html,json")))
            if self._rng.random() < 0.4 and folder.attempts_spool.exists():
                while process.poll() is None and not is_sealing(folder):
                    time.sleep(POLL_S / 4)
                time.sleep(self._rng.uniform(0, 0.03))
            else:
                time.sleep(self._rng.uniform(0, 1.8))
            self._send("report", report_phase(folder), process.pid, process)
            self._wait_for_end(process)

    def recover(self) -> None:
        """Report the run, which must succeed, and check that no process showed a traceback."""
        code = self._wait_for_end(self._start_report("json"))
        text = self._output.read_text(errors="replace")
        if code not in {0, 1}:
            raise CaseError(f"the last report exited with {code}: {text[-600:]!r}")
        # Python itself shows an interrupt while it starts.
        interrupted = "KeyboardInterrupt" in text and any(kill.signal is signal.SIGINT for kill in self.kills)
        if "Traceback" in text and not interrupted:
            raise CaseError(f"a traceback: {text[text.index('Traceback') :][:1500]!r}")

    def _wait_for(self, phase: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a random moment in a phase, or for the end of the process."""
        rng = self._rng

        def wait(condition: Callable[[], bool], what: str) -> None:
            wait_until(lambda: process.poll() is not None or condition(), what)

        if phase == "starting":
            if self._kind == "worker":
                wait(lambda: any(map(is_worker, children(process.pid))), "no worker was started")
            time.sleep(rng.uniform(0.0, MAX_START_S))
            return
        wait(lambda: bool(self.runs), "no run was started")
        if not self.runs:
            raise CaseError(
                f"Locust ended before its run: {self._output.read_text(errors='replace')[-600:]!r}"
            )
        folder = self.runs[0]
        begin_s, end_s = {"ramp": (0.0, RAMP_S), "steady": (RAMP_S, DURATION_S)}.get(
            phase, (DURATION_S, DURATION_S)
        )
        if phase == "stopping" and rng.random() < 0.5:
            begin_s = end_s = rng.uniform(RAMP_S, DURATION_S)
        at_s = rng.uniform(begin_s, end_s)
        wait(lambda: since_start_s(folder) >= at_s, f"the {phase} phase did not begin")
        if phase == "stopping":
            if at_s < DURATION_S and process.poll() is None:
                os.kill(process.pid, signal.SIGINT)
            time.sleep(rng.uniform(0, 0.4))
        elif phase == "reporting":
            wait(lambda: folder.manifest().ended is not None, "the run did not end")
            time.sleep(rng.uniform(0, 1.5))

    def _choose_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the process to kill; None if it has ended, or has not started."""
        if self._kind in {"standalone", "master"}:
            return process.pid
        is_wanted = is_report if self._kind == "own report" else is_worker
        found = [child.pid for child in children(process.pid) if is_wanted(child)]
        return self._rng.choice(found) if found else None

    def _send(self, kind: str, phase: str, pid: int, process: subprocess.Popen[bytes]) -> None:
        """Send a random signal, and count it if the process was still there."""
        chosen, at_ns = self._rng.choice(SIGNALS), time.monotonic_ns()
        if process.poll() is None:
            try:
                os.kill(pid, chosen)
            except ProcessLookupError:
                return
            self.kills.append(Kill(kind, phase, chosen, at_ns))

    def _phase(self) -> str:
        """Return the phase that the run is in."""
        if not self.runs or (since_s := since_start_s(self.runs[0])) < 0:
            return "starting"
        if self.runs[0].manifest().ended is not None:
            phase = report_phase(self.runs[0])
            return "stopping" if phase == "starting" else phase
        if since_s >= DURATION_S:
            return "stopping"
        return "ramp" if since_s < RAMP_S else "steady"

    def _start_report(self, formats: str) -> subprocess.Popen[bytes]:
        return self._start("bltybench", "report", str(self.runs[0].path), "--format", formats)

    def _start(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        with self._output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", module, *options],
                cwd=self._folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for_end(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(MAX_WAIT_S)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
            process.wait()
            raise CaseError(f"a report did not end within {MAX_WAIT_S:g} s") from None


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds. Raise CaseError with ``what`` after MAX_WAIT_S."""
    give_up_s = time.monotonic() + MAX_WAIT_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise CaseError(f"{what} within {MAX_WAIT_S:g} s")
        time.sleep(POLL_S)


def since_start_s(folder: RunFolder) -> float:
    """Return the current time on the run's axis, in seconds."""
    return (time.monotonic_ns() - folder.manifest().clock.monotonic_ns) / 1e9


def is_sealing(folder: RunFolder) -> bool:
    """Return whether a Parquet file of the run is being written."""
    return any(folder.path.glob(".*.parquet.*"))


def report_phase(folder: RunFolder) -> str:
    """Return how far a report is: "starting" until it seals the run, and "reporting" afterwards."""
    if is_sealing(folder):
        return "sealing"
    return "starting" if folder.attempts_spool.exists() else "reporting"


def children(pid: int) -> Sequence[psutil.Process]:
    """Return the children of a process, oldest first."""
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return ()


def is_report(process: psutil.Process) -> bool:
    """Return whether a child of Locust writes the report."""
    try:
        return "report" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def is_worker(process: psutil.Process) -> bool:
    """Return whether a child of Locust is a forked worker."""
    try:
        return "--processes" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def kill_group(pid: int) -> None:
    """Kill what is left of a process group that was started here."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def environment() -> dict[str, str]:
    """Return the environment with the key, for runs that write the summary only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "BLTY"))}
    own = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY, "BLTYBENCH_REPORT_FORMAT": "json", "OPENBLAS_NUM_THREADS": "1"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    return kept | own | {"LOCUST_MASTER_BIND_PORT": port, "LOCUST_MASTER_NODE_PORT": port}
