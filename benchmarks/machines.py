"""A master and three workers on machines of their own, and what can go wrong between them.

python -m benchmarks.machines                       all cases, about six minutes
python -m benchmarks.machines cut "killed master"   only these

Each machine is a network namespace with its own directory and, in the case "clocks", its own monotonic clock
(Linux, as root). In each case, the records of the run must agree with the log of the sandbox row by row, none
doubled, and their times with its times within the uncertainty of the worker's clock.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.campaign import write_results
from benchmarks.machine_cluster import API, MASTER, Cluster, Ended, problems
from benchmarks.machine_network import Network, why_impossible
from bltybench.runs.folder import RunFolder
from bltybench.runs.store import read_attempts

WORKERS = ("one", "two", "three")
LATE = "late"
RATE_PER_MIN = 1800
SECONDS = 12.0
UNLIMITED = 100_000
CUT_S = 10.0
DELAY_MS, STALLS = 40.0, 0.01
"""Mean delay of slow connections, and fraction of pieces (netem: packets) that are lost and sent again."""
DRIFT_PPM = 400
TRUTH_FLUSH_S = 1.5
"""Time after which the sandbox has written its log, in seconds."""
CLOCKS = """
import time
monotonic_ns, wall_ns = time.monotonic_ns, time.time_ns
begin_ns = monotonic_ns()
time.monotonic_ns = lambda: monotonic_ns() + (monotonic_ns() - begin_ns) * {drift_ppm} // 10**6
time.time_ns = lambda: wall_ns() + {wall_s} * 10**9
"""
"""Start of a locustfile whose process has a monotonic clock that drifts, and a wall clock that is wrong."""
VERSION = """
import bltybench
bltybench.__version__ = "0.0.1"
"""
USERS = """
from bltybench.load import ScenarioUser

class Mixed(ScenarioUser):
    scenario = "quickstart"
"""


class Result(msgspec.Struct):
    """The result of one case."""

    case: str
    attempts: int
    seconds: float
    problems: list[str]
    verdict: str = ""
    """What the master's terminal said at the end."""
    uncertainty_ms: float = 0.0


class Case:
    """One case while it is played."""

    def __init__(self, cluster: Cluster, network: Network) -> None:
        self.cluster, self.network = cluster, network
        self.found: list[str] = []
        self.killed_ns: int | None = None
        self.verdict = ""

    def expect(self, what: str, *, holds: bool) -> None:
        """Note a problem unless ``holds``."""
        if not holds:
            self.found.append(what)

    def end(self, processes: dict[str, subprocess.Popen[str]], **codes: int) -> dict[str, Ended]:
        """Wait for processes, which must exit with 0 or the code given, and without a traceback."""
        ended = {name: Ended(process) for name, process in processes.items()}
        for name, process in ended.items():
            expected = codes.get(name, 0)
            if process.code != expected or "Traceback" in process.output:
                self.found.append(
                    f"{name} exited with {process.code}, not {expected}:\n{process.output[-3000:]}"
                )
        if MASTER in ended:
            lines = ended[MASTER].output.splitlines()
            self.verdict = next((line for line in lines if line.startswith(("VALID", "INVALID"))), "")
        return ended

    def start(self) -> dict[str, subprocess.Popen[str]]:
        """Start master and workers."""
        workers = {name: self.cluster.worker(name) for name in self.cluster.workers}
        return {MASTER: self.cluster.master(), **workers}

    def locustfile(self, name: str, beginning: str) -> Path:
        """Write a locustfile on a machine."""
        path = self.network.directory(name) / "own.py"
        path.write_text(beginning + USERS, encoding="utf-8")
        return path

    def merge(self) -> None:
        """Copy what the workers kept to the master, and merge it twice."""
        options = []
        for name in self.cluster.workers:
            for spill in (self.network.directory(name) / "reports").glob("spill-*/*"):
                copy = self.network.directory(MASTER) / f"{name}-{spill.parent.name}"
                shutil.copytree(spill, copy)
                options += ["--merge", copy.name]
        self.expect("no worker kept records", holds=bool(options))
        first, second = (self.cluster.report(str(self.cluster.run.path), *options) for _ in range(2))
        self.expect(f"merge failed: {first.output}", holds=first.code in {0, 1} and "Merged" in first.output)
        self.expect(
            f"second merge: {second.output}",
            holds=second.output.count(" 0 attempts added") * 2 == len(options),
        )
        self.verdict = f"{self.verdict} After the merge: {first.output}"


def plain(case: Case) -> None:
    """Nothing goes wrong, and the budget ends the run."""
    case.end(case.start())
    case.expect("the run did not end by its budget", holds=case.cluster.run.manifest().ended == "budget")
    count = read_attempts(case.cluster.run, without={"gaps_us"}).num_rows
    case.expect(f"{count} attempts of a budget of {BUDGET}", holds=count == BUDGET)


def slow(case: Case) -> None:
    """All workers have slow, uneven connections to the master: by netem, or by a relay without it."""
    workers = {}
    for name in case.cluster.workers:
        host = ""
        if not case.network.degrade(name, delay_ms=DELAY_MS, loss=STALLS):
            case.cluster.relay(name, delay_ms=DELAY_MS, stalls=STALLS)
            host = "127.0.0.1"
        # Another clock, so that it is measured over such a connection.
        workers[name] = case.cluster.worker(name, host=host, ahead_s=1.0)
    case.end({MASTER: case.cluster.master(), **workers})


def cut(case: Case) -> None:
    """No worker reaches the master for 10 s."""
    processes = case.start()
    case.cluster.wait_for_requests(60)
    case.network.cut(MASTER)
    time.sleep(CUT_S)
    case.network.connect(MASTER)
    case.end(processes)
    ended = case.cluster.run.manifest().ended
    case.expect(f"the run ended: {ended}", holds=ended == "completed")


def killed_worker(case: Case) -> None:
    """A worker is killed. What it had on its disk is merged."""
    processes = case.start()
    case.cluster.wait_for_requests(60)
    os.killpg(processes["two"].pid, signal.SIGKILL)
    case.killed_ns = time.monotonic_ns()
    case.end(processes, master=1, two=-signal.SIGKILL)
    lost = case.cluster.run.manifest().unfinished_workers
    case.expect(f"lost workers: {lost}", holds=[worker.reason for worker in lost] == ["stopped responding"])
    case.merge()


def killed_master(case: Case) -> None:
    """The master is killed. What the workers kept is merged."""
    processes = case.start()
    case.cluster.wait_for_requests(60)
    os.killpg(processes.pop(MASTER).pid, signal.SIGKILL)
    ended = case.end(processes, **dict.fromkeys(case.cluster.workers, 2))
    for name, process in ended.items():
        case.expect(f"{name} does not name its records", holds="--merge DIRECTORY" in process.output)
    case.merge()
    case.expect(
        "the report does not name the merge",
        holds="the records of 3 of 3 workers were merged: w0, w1, w2" in case.verdict,
    )


def stopped_worker(case: Case) -> None:
    """A worker receives SIGTERM, as when its pod is evicted. It delivers its records before it ends."""
    processes = case.start()
    case.cluster.wait_for_requests(60)
    os.killpg(processes["two"].pid, signal.SIGTERM)
    case.end(processes, master=1)
    lost = case.cluster.run.manifest().unfinished_workers
    case.expect(f"lost workers: {lost}", holds=[worker.reason for worker in lost] == ["left before the end"])


def interrupted(case: Case) -> None:
    """Ctrl-C ends the master, and with it the run."""
    processes = case.start()
    case.cluster.wait_for_requests(60)
    os.kill(processes[MASTER].pid, signal.SIGINT)
    case.end(processes)
    ended = case.cluster.run.manifest().ended
    case.expect(f"the run ended: {ended}", holds=ended == "interrupted")


def late_joiner(case: Case) -> None:
    """A worker joins when the run has begun."""
    directory = case.network.directory
    shutil.copy(directory("one") / "scenarios.toml", directory(LATE))
    processes = case.start()
    case.cluster.wait_for_requests(60)
    processes[LATE] = case.cluster.worker(LATE)
    ended = case.end(processes, late=2)
    case.expect("no message", holds="connected after the run had started" in ended[LATE].output)
    case.expect("no message", holds="takes no part" in ended[MASTER].output)


def clocks(case: Case) -> None:
    """Two clocks are 250 ms ahead and behind, and the third drifts."""
    drifting = case.locustfile("three", CLOCKS.format(drift_ppm=DRIFT_PPM, wall_s=0))
    workers = {
        "one": case.cluster.worker("one", ahead_s=0.25),
        "two": case.cluster.worker("two", ahead_s=-0.25),
        "three": case.cluster.worker("three", ahead_s=1.0, locustfile=drifting),
    }
    case.end({MASTER: case.cluster.master(), **workers})
    measured = sorted(clock.drift_ppm for clock in case.cluster.run.manifest().worker_clocks)
    case.expect(
        f"drifts {measured}", holds=len(measured) == 3 and abs(measured[0] + DRIFT_PPM) < DRIFT_PPM / 4
    )


def other_version(case: Case) -> None:
    """A worker runs another version of bltybench."""
    _refused(case, "this worker 0.0.1", locustfile=case.locustfile("one", VERSION))


def other_scenarios(case: Case) -> None:
    """A worker has another scenarios.toml."""
    with (case.network.directory("one") / "scenarios.toml").open("a") as file:
        file.write("# changed\n")
    _refused(case, "scenarios.toml: differs from that of the master")


def hour_off(case: Case) -> None:
    """The wall clock of a worker is an hour ahead."""
    path = case.locustfile("one", CLOCKS.format(drift_ppm=0, wall_s=3600))
    _refused(case, "3,600 s ahead of that of the master", locustfile=path, ahead_s=1.0)


def _refused(case: Case, reason: str, *, locustfile: Path | None = None, ahead_s: float = 0.0) -> None:
    first = case.cluster.worker("one", locustfile=locustfile, ahead_s=ahead_s)
    others = {name: case.cluster.worker(name) for name in case.cluster.workers[1:]}
    ended = case.end({MASTER: case.cluster.master(), "one": first, **others}, master=2, one=2)
    for name in (MASTER, "one"):
        named = reason in ended[name].output and "can't take part" in ended[name].output
        case.expect(f"{name} does not say why: {ended[name].output}", holds=named)
    name = f"(pid {first.pid} on {os.uname().nodename})"
    case.expect("the master does not name the worker", holds=name in ended[MASTER].output)
    case.verdict = next(line for line in ended[MASTER].output.splitlines() if "can't take part" in line)


CASES: dict[str, Callable[[Case], None]] = {
    "plain": plain,
    "slow": slow,
    "cut": cut,
    "killed worker": killed_worker,
    "killed master": killed_master,
    "stopped worker": stopped_worker,
    "interrupted": interrupted,
    "late joiner": late_joiner,
    "clocks": clocks,
    "other version": other_version,
    "other scenarios": other_scenarios,
    "hour off": hour_off,
}
BUDGET = 200
LONG_S = {"cut": 25.0, "clocks": 25.0}
"""Duration of the load of cases, if it is not the usual one."""


def play(name: str) -> Result:
    """Play one case."""
    began_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="bltybench-") as folder,
        Network(Path(folder), [MASTER, API, *WORKERS, LATE]) as network,
        Cluster(
            network,
            WORKERS,
            requests=BUDGET if name == "plain" else UNLIMITED,
            seconds=LONG_S.get(name, SECONDS),
            rate_per_min=RATE_PER_MIN,
        ) as cluster,
    ):
        case = Case(cluster, network)
        CASES[name](case)
        time.sleep(TRUTH_FLUSH_S)
        served, run = cluster.served(), cluster.run
        case.found += problems(run, served, killed_ns=case.killed_ns)
        attempts = _count(run)
        if CASES[name] in {other_version, other_scenarios, hour_off}:
            case.expect(f"{len(served)} requests were sent", holds=not served)
        uncertain_ns = max((clock.uncertainty_ns for clock in run.manifest().worker_clocks), default=0)
    seconds = time.monotonic() - began_s
    return Result(
        name, attempts, round(seconds, 1), case.found, case.verdict.strip(), uncertainty_ms=uncertain_ns / 1e6
    )


def _count(run: RunFolder) -> int:
    rows: int = read_attempts(run, without={"gaps_us"}).num_rows
    return rows


def main() -> int:
    """Play the requested cases and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"cases to play (default: all): {', '.join(CASES)}")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if reason := why_impossible():
        sys.exit(f"this machine can't have several machines: {reason}")
    results = []
    for name in options.cases or CASES:
        results.append(play(name))
        print(msgspec.json.format(msgspec.json.encode(results[-1]), indent=1).decode(), flush=True)
    failures = [f"{result.case}: {problem}" for result in results for problem in result.problems]
    if options.json:
        write_results(options.json, {"results": msgspec.to_builtins(results), "failures": failures})
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
