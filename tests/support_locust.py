"""Locust as users run it: a process of its own, headless, against a sandbox that keeps a log of the truth."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from bltybench.runs.folder import RunFolder, list_runs
from bltybench.runs.store import read_attempts
from bltybench.sandbox.truth import TruthRow, read_truth

REPO = Path(__file__).resolve().parents[1]
LOCUSTFILES = REPO / "locustfiles"
LOCUST = Path(sys.executable).with_name("locust")

STARTED: list[subprocess.Popen[str]] = []
"""What this test has started."""


@dataclass(frozen=True)
class Finished:
    """What a Locust process left behind."""

    code: int
    output: str
    reports: Path

    @property
    def run(self) -> RunFolder:
        """The one run that it made."""
        (run,) = list_runs(self.reports)
        return run

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The rows of the run."""
        rows: list[dict[str, Any]] = read_attempts(self.run).to_pylist()
        return rows


WITH_PAGE = {"BLTYBENCH_REPORT_FORMAT": ""}
"""For a run whose whole report is looked at: a page with its figures takes seconds of a core to make."""


def environment(**changes: str) -> dict[str, str]:
    """The environment of a user: no key of the machine's, nothing that steers Locust from outside.

    Of a run's report the summary only is made, except WITH_PAGE.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "BLTY"))}
    # A port of its own for a master and its workers: other tests may have a master at the same time.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    ports = {"LOCUST_MASTER_BIND_PORT": port, "LOCUST_MASTER_NODE_PORT": port}
    return kept | ports | {"BLTYBENCH_REPORT_FORMAT": "json"} | changes


def start_locust(locustfile: Path, *args: str, cwd: Path, **changes: str) -> subprocess.Popen[str]:
    """Start Locust in ``cwd``, in a process group of its own so that Ctrl-C can be sent to it."""
    process = subprocess.Popen(
        [str(LOCUST), "-f", str(locustfile), *args],
        cwd=cwd,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def end_started() -> None:
    """Kill what a test that failed in the middle left running."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def finish(process: subprocess.Popen[str], cwd: Path, timeout_s: float = 120) -> Finished:
    """Wait for Locust to end."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"locust did not end within {timeout_s} s:\n{output}") from None
    return Finished(process.returncode, output, cwd / "reports")


def run_locust(locustfile: Path, *args: str, cwd: Path, **changes: str) -> Finished:
    """Run Locust headless to its end."""
    return finish(start_locust(locustfile, "--headless", *args, cwd=cwd, **changes), cwd)


def write_scenarios(
    folder: Path, base_url: str, scenario: str = "", *, checks: str = "", target: str = ""
) -> Path:
    """Write a scenarios.toml: one target at ``base_url``, and the scenarios that the locustfiles name."""
    names = ("quickstart", "chat", "stream")
    scenarios = "\n".join(
        f"""
[scenarios.{name}]
title = "For a test"
model = "deepseek-chat"
target = "here"
{scenario or CLOSED}
{MIX.format(name=name)}
[scenarios.{name}.checks]
{checks}
"""
        for name in names
    )
    path = folder / "scenarios.toml"
    path.write_text(
        f"""
[targets.here]
base_url = "{base_url}"
api_key_env = "BLTYBENCH_TEST_KEY"
{target}
{scenarios}
"""
    )
    return path


CLOSED = """
duration_s = 4
users = 4
arrivals = { kind = "closed", think_s = 0.2 }
"""

OPEN = """
duration_s = 4
users = 40
arrivals = { kind = "constant", rate_per_min = 900 }
"""

MIX = """
[[scenarios.{name}.mix]]
name = "plain"
max_tokens = {{ kind = "uniform", min = 1, max = 12 }}
[[scenarios.{name}.mix]]
name = "streamed"
stream = true
max_tokens = {{ kind = "uniform", min = 1, max = 30 }}
"""


def truth_of(log: Path) -> dict[str, TruthRow]:
    """The sandbox's own record of the chat requests, by request id."""
    rows = [row for row in read_truth(log) if row.path.endswith("/chat/completions")]
    by_id = {row.request_id: row for row in rows}
    assert len(by_id) == len(rows), "the sandbox gave an id twice"
    return by_id


def event_times_ns(attempt: dict[str, Any], start_ns: int) -> list[int]:
    """When each content event of a stream arrived, on the machine's monotonic clock."""
    first = start_ns + attempt["first_token_ns"]
    return [first + 1000 * offset for offset in accumulate(attempt["gaps_us"], initial=0)]
