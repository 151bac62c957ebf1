"""A master, its workers, and a sandbox on machines of their own, and what the records must have."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchmarks.machine_network import Loopback, Network
from benchmarks.truth_check import TruthReader, compare
from bltybench.runs.folder import RunFolder, list_runs
from bltybench.runs.store import read_attempts
from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.target import SANDBOX_KEY

REPO = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
API, MASTER = "api", "master"
PORT, MASTER_PORT = 8000, 5557
MAX_END_S = 120.0
"""Maximum time for a process to end, in seconds."""
POLL_S = 0.05
MAX_RESPONSE_NS = 500_000_000
"""Time after a kill in which the sandbox can still respond to the killed worker, in nanoseconds."""
SCENARIO = """
[targets.here]
base_url = "http://{host}:{port}/v1"
api_key_env = "BLTYBENCH_TEST_KEY"
[targets.here.budget]
requests = {requests}
[scenarios.quickstart]
title = "Machines"
model = "deepseek-chat"
target = "here"
duration_s = {seconds}
users = 150
seed = 7
arrivals = {{ kind = "poisson", rate_per_min = {rate_per_min} }}
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
[scenarios.s]
title = "S"
duration_s = 1
users = 1
model = "deepseek-chat"
arrivals = { kind = "closed", think_s = 0.2 }
[[scenarios.s.mix]]
name = "m"
"""
NO_LIMITS = ("--requests", "0", "--tokens", "0", "--concurrency", "0")


class Ended:
    """The result of a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        try:
            self.output, _ = process.communicate(timeout=MAX_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            self.output = process.communicate()[0] + f"\ndid not end within {MAX_END_S:g} s\n"
        self.code = process.returncode


class Cluster:
    """The processes of one run. They end with the ``with`` block."""

    def __init__(
        self,
        network: Network | Loopback,
        workers: Iterable[str],
        *,
        requests: int,
        seconds: float,
        rate_per_min: int,
    ) -> None:
        self.network, self.workers = network, tuple(workers)
        self.log = network.directory(API) / "truth.jsonl"
        self._started: list[subprocess.Popen[str]] = []
        text = SCENARIO.format(
            host=network.address(API),
            port=network.port(PORT),
            requests=requests,
            seconds=seconds,
            rate_per_min=rate_per_min,
        )
        for name in (MASTER, *self.workers):
            (network.directory(name) / "scenarios.toml").write_text(text, encoding="utf-8")
        (network.directory(API) / "scenarios.toml").write_text(SANDBOX, encoding="utf-8")

    def __enter__(self) -> "Cluster":
        options = (
            "--host",
            self.network.address(API),
            "--port",
            str(self.network.port(PORT)),
            "--log",
            str(self.log),
        )
        self._sandbox = self._start(API, str(BIN / "bltybench"), "sandbox", *options, *NO_LIMITS)
        while "Press Ctrl-C" not in (line := self._sandbox.stdout.readline() if self._sandbox.stdout else ""):
            if self._sandbox.poll() is not None:
                raise RuntimeError(f"the sandbox did not start: {line}")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            with suppress(ValueError):  # its output has been read
                process.communicate()

    @property
    def run(self) -> RunFolder:
        """The only run of the master."""
        (run,) = list_runs(self.network.directory(MASTER) / "reports")
        return run

    def master(self, *options: str) -> subprocess.Popen[str]:
        """Start the master, which waits for all workers."""
        bind = (
            "--master-bind-host",
            self.network.address(MASTER),
            "--expect-workers",
            str(len(self.workers)),
        )
        port = ("--master-bind-port", str(self.network.port(MASTER_PORT)))
        return self.locust(MASTER, "--headless", "--master", *bind, *port, *options)

    def worker(
        self, name: str, *, ahead_s: float = 0.0, locustfile: Path | None = None, host: str = ""
    ) -> subprocess.Popen[str]:
        """Start a worker, whose clock is ahead of the others'."""
        port = str(self.network.port(MASTER_PORT))
        options = ("--worker", "--master-host", host or self.network.address(MASTER), "--master-port", port)
        return self.locust(name, *options, ahead_s=ahead_s, locustfile=locustfile)

    def locust(
        self, name: str, *options: str, ahead_s: float = 0.0, locustfile: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start Locust on a machine."""
        path = locustfile or self.network.locustfile
        return self._start(name, str(BIN / "locust"), "-f", str(path), *options, ahead_s=ahead_s)

    def relay(self, name: str, *, delay_ms: float, stalls: float) -> None:
        """Give a worker a slow connection to the master, at 127.0.0.1."""
        arguments = (
            MASTER_PORT,
            self.network.address(MASTER),
            MASTER_PORT,
            delay_ms,
            stalls,
            len(self._started),
        )
        self._start(name, sys.executable, "-m", "benchmarks.slow_relay", *map(str, arguments))

    def wait_for_requests(self, count: int) -> None:
        """Wait until the sandbox has served requests. Raise RuntimeError if it does not."""
        give_up_s = time.monotonic() + MAX_END_S
        while not self.log.exists() or self.log.read_bytes().count(b"/chat/completions") < count:
            if time.monotonic() > give_up_s:
                for process in self._started[1:]:
                    process.terminate()
                outputs = "\n".join(Ended(process).output[-2000:] for process in self._started[1:])
                raise RuntimeError(f"fewer than {count} requests:\n{outputs}")
            time.sleep(POLL_S)

    def report(self, *options: str) -> Ended:
        """Run ``bltybench report`` on the master's machine."""
        return Ended(self._start(MASTER, str(BIN / "bltybench"), "report", *options, "--format", "json"))

    def served(self) -> list[TruthRow]:
        """Stop the sandbox, and return its log of the load."""
        self._sandbox.terminate()
        self._sandbox.communicate()
        return TruthReader(self.log).new_rows()

    def _start(self, name: str, *command: str, ahead_s: float = 0.0) -> subprocess.Popen[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LOCUST_", "BLTY"))}
        variables = {**kept, "BLTYBENCH_TEST_KEY": SANDBOX_KEY, "BLTYBENCH_REPORT_FORMAT": "json"}
        variables["PYTHONPATH"] = str(REPO)
        process = self.network.start(name, command, variables, ahead_s=ahead_s)
        self._started.append(process)
        return process


def problems(run: RunFolder, served: list[TruthRow], *, killed_ns: int | None = None) -> list[str]:
    """Return how the records of a run disagree with the sandbox's log, row by row.

    What the killed worker sent in its last second can be missing.
    """
    found = compare([run], served, killed_ns).problems
    rows = read_attempts(run, without={"gaps_us"}).to_pylist()
    truth, names = {row.request_id: row for row in served}, {row["request_id"] for row in rows}
    if killed_ns is not None:
        # The other workers were not killed.
        after_ns = killed_ns + MAX_RESPONSE_NS
        later = [row for row in served if row.end_ns and row.end_ns > after_ns and not row.disconnected]
        found += [
            f"{row.request_id} of another worker is missing" for row in later if row.request_id not in names
        ]
    manifest = run.manifest()
    errors = {clock.worker: clock.uncertainty_ns for clock in manifest.worker_clocks}
    for row in rows:
        known = truth.get(row["request_id"])
        if known is None or not known.event_ns or row["sent_ns"] is None or known.disconnected:
            continue
        # The API receives a request after it was sent, and sends the last token before it arrives.
        start_ns, error_ns = manifest.clock.monotonic_ns, errors.get(row["worker"], 0)
        early_ns = start_ns + row["sent_ns"] - known.received_ns
        late_ns = known.event_ns[-1] - (start_ns + row["end_ns"])
        if (off_ns := max(early_ns, late_ns)) > error_ns:
            found.append(f"{row['request_id']} is off by {off_ns / 1e6:.3f} ms, ±{error_ns / 1e6:.3f} ms")
    return found
