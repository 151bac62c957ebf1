"""Headless Locust in its own process, against a sandbox that logs every request."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx
from support_sandbox import read_truth

from bltybench.runs.folder import RunFolder, list_runs
from bltybench.runs.store import read_attempts
from bltybench.sandbox.truth import TruthRow

REPO = Path(__file__).resolve().parents[1]
LOCUSTFILES = REPO / "locustfiles"
LOCUST = Path(sys.executable).with_name("locust")

STARTED: list[subprocess.Popen[str]] = []
"""Processes that the current test has started."""

WITH_PAGE = {"BLTYBENCH_REPORT_FORMAT": ""}
"""For runs whose whole report is checked. A page with figures takes seconds of CPU time."""


@dataclass(frozen=True)
class Finished:
    """The result of a Locust process."""

    code: int
    output: str
    reports: Path

    @property
    def run(self) -> RunFolder:
        """The only run in the reports directory."""
        (run,) = list_runs(self.reports)
        return run

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The rows of the run."""
        rows: list[dict[str, Any]] = read_attempts(self.run).to_pylist()
        return rows


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def environment(**changes: str) -> dict[str, str]:
    """Return a user's environment, without this machine's keys and Locust settings.

    Runs write only the summary of the report, except WITH_PAGE.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "BLTY"))}
    # Other tests may run a master at the same time.
    port = str(free_port())
    ports = {"LOCUST_MASTER_BIND_PORT": port, "LOCUST_MASTER_NODE_PORT": port}
    return kept | ports | {"BLTYBENCH_REPORT_FORMAT": "json"} | changes


def start_locust(locustfile: Path, *args: str, cwd: Path, **changes: str) -> subprocess.Popen[str]:
    """Start Locust in ``cwd``, in its own process group so that it can receive Ctrl-C."""
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
    """Kill the processes that a failed test left running."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for_page(page: httpx.Client, process: subprocess.Popen[str]) -> None:
    """Wait until Locust serves its web page."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        try:
            page.get("/")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the web page did not come up")


def finish(process: subprocess.Popen[str], cwd: Path, timeout_s: float = 120) -> Finished:
    """Wait for Locust to exit."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"locust did not exit within {timeout_s} s:\n{output}") from None
    return Finished(process.returncode, output, cwd / "reports")


def run_locust(locustfile: Path, *args: str, cwd: Path, **changes: str) -> Finished:
    """Run Locust headless until it exits."""
    return finish(start_locust(locustfile, "--headless", *args, cwd=cwd, **changes), cwd)


def write_scenarios(
    folder: Path,
    base_url: str,
    scenario: str = "",
    *,
    checks: str = "",
    target: str = "",
    names: Sequence[str] = ("quickstart", "chat", "stream"),
) -> Path:
    """Write a scenarios.toml with one target at ``base_url`` and the scenarios that the locustfiles name."""
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
    """Return the sandbox's own log of the chat requests, by request id."""
    rows = [row for row in read_truth(log) if row.path.endswith("/chat/completions")]
    by_id = {row.request_id: row for row in rows}
    assert len(by_id) == len(rows), "the sandbox assigned an id twice"
    return by_id


def event_times_ns(attempt: dict[str, Any], start_ns: int) -> list[int]:
    """Return when each content event of a stream arrived, on the machine's monotonic clock."""
    first = start_ns + attempt["first_token_ns"]
    return [first + 1000 * offset for offset in accumulate(attempt["gaps_us"], initial=0)]
