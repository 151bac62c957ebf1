"""The tab in Locust's own web page, looked at in a real browser while a run goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support_browser import browser
from support_locust import LOCUSTFILES, start_locust, write_scenarios
from support_sandbox import running_sandbox

from bltybench.scenario.target import SANDBOX_KEY, SandboxLimits

SCENARIO = """
duration_s = 30
users = 6
arrivals = { kind = "constant", rate_per_min = 600 }
"""
TARGET = "limits = { requests_per_min = 60, tokens_per_min = 100000, concurrency = 50 }"

ROWS = (
    "Object.fromEntries([...document.querySelectorAll('tbody tr')].map((row) => "
    "[...row.cells].map((cell) => cell.innerText)).map(([name, ...rest]) => [name, rest]))"
)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """Locust's web page, before a run, against a sandbox that lets in 60 requests a minute."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running_sandbox(limits=SandboxLimits()) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, SCENARIO, target=TARGET)
        locust = start_locust(
            LOCUSTFILES / "mixed.py",
            "--web-host=127.0.0.1",
            f"--web-port={port}",
            cwd=tmp_path,
            BLTYBENCH_TEST_KEY=SANDBOX_KEY,
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            _wait_for(url, locust)
            yield url
        finally:
            os.killpg(locust.pid, signal.SIGINT)
            locust.communicate(timeout=60)


def _wait_for(url: str, locust: subprocess.Popen[str]) -> None:
    with httpx.Client(trust_env=False) as client:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert locust.poll() is None, locust.communicate()[0]
            try:
                client.get(url)
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return
    raise AssertionError("the web page did not come up")


def start_run(page: str) -> None:
    with httpx.Client(trust_env=False) as client:
        answer = client.post(f"{page}swarm", data={"user_count": 6, "spawn_rate": 6}).json()
        assert answer["success"], answer
        # A page that is loaded before Locust has begun shows the form for a new run, and stays with it.
        until = time.monotonic() + 20
        while client.get(f"{page}stats/requests").json()["state"] == "ready":
            assert time.monotonic() < until, "the run did not begin"
            time.sleep(0.05)


def before_a_run(page: str) -> None:
    """The statistics say that there is none."""
    with httpx.Client(trust_env=False) as client:
        statistics = client.get(f"{page}stats/requests").json()
    (extended,) = statistics["extended_stats"]
    assert extended == {"key": "bltybench", "data": [{"measure": "No run yet", "now": "–", "limit": "–"}]}
    assert "stats" in statistics


def test_the_tab_shows_the_last_minute_against_the_limits(page: str) -> None:
    with browser() as tab:
        before_a_run(page)
        start_run(page)
        tab.open(f"{page}?tab=bltybench")
        tab.wait("document.body.textContent.includes('LLM limits')")
        tab.wait(f"+(({ROWS})['Refused requests per minute'] || ['0'])[0] > 0", within_s=40)
        shown = tab.run(ROWS)
        accepted, limit = shown["Accepted requests per minute"]
        # A minute of the sandbox may turn while the run goes on: two of its windows then.
        assert 60 <= int(accepted) <= 120
        assert limit == "60"
        assert shown["Tokens per minute"][1] == "100,000"
        assert shown["In flight"][1] == "50"
        assert shown["Last Retry-After"][0].endswith(" s")
        assert shown["Remaining requests (last reported)"][0] == "0"
        assert "ms" in shown["TTFT p50, p95"][0]
        assert tab.complaints() == []
