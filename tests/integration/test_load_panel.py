"""The tab in Locust's own web page, in a real browser during a run."""

from __future__ import annotations

import html
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support_browser import Tab, browser
from support_locust import LOCUSTFILES, free_port, start_locust, wait_for_page, write_scenarios
from support_sandbox import running_sandbox

from bltybench.scenario.target import SANDBOX_KEY, SandboxLimits

SCENARIO = """
duration_s = 30
users = 6
arrivals = { kind = "constant", rate_per_min = 600 }
"""
TARGET = "limits = { requests_per_min = 60, tokens_per_min = 100000, concurrency = 50 }"

ACCEPTED = "Accepted requests per minute"
REFUSED = "Refused requests per minute"
REMAINING = "Remaining requests (last reported)"
ROWS = (
    "Object.fromEntries([...document.querySelectorAll('tbody tr')].map((row) => "
    "[...row.cells].map((cell) => cell.innerText)).map(([name, ...rest]) => [name, rest]))"
)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[httpx.Client]:
    """Locust's web page before a run, with a sandbox that accepts 60 requests per minute."""
    port = free_port()
    with running_sandbox(limits=SandboxLimits()) as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, SCENARIO, target=TARGET)
        locust = start_locust(
            LOCUSTFILES / "mixed.py",
            f"--web-port={port}",
            cwd=tmp_path,
            BLTYBENCH_TEST_KEY=SANDBOX_KEY,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                wait_for_page(client, locust)
                yield client
        finally:
            os.killpg(locust.pid, signal.SIGINT)
            locust.communicate(timeout=60)


def start_run(page: httpx.Client) -> None:
    response = page.post("/swarm", data={"user_count": 6, "spawn_rate": 6}).json()
    assert response["success"], response
    # A page that loads before Locust has started the run keeps showing the form for a new run.
    until = time.monotonic() + 20
    while page.get("/stats/requests").json()["state"] == "ready":
        assert time.monotonic() < until, "the run did not start"
        time.sleep(0.05)


def rows_at_the_limit(tab: Tab) -> dict[str, list[str]]:
    """Wait until the tab shows that the sandbox's limit is exhausted, and return its rows.

    Refusals are counted at once, but accepted streams only when they end. So the tab can show refusals before
    it shows all accepted requests, and the remaining requests that a stream reported when it began.
    """
    until = time.monotonic() + 40
    while True:
        rows: dict[str, list[str]] = tab.run(ROWS)
        if int(rows.get(REFUSED, "0")[0]) and int(rows[ACCEPTED][0]) >= 60 and rows[REMAINING][0] == "0":
            return rows
        assert time.monotonic() < until, rows
        time.sleep(0.05)


def test_tab_compares_the_last_minute_with_the_limits(page: httpx.Client) -> None:
    statistics = page.get("/stats/requests").json()
    assert statistics["extended_stats"] == [
        {"key": "bltybench", "data": [{"measure": "No run yet", "now": "–", "limit": "–"}]}
    ]
    assert "stats" in statistics
    with browser() as tab:
        start_run(page)
        tab.open(f"{page.base_url}?tab=bltybench")
        tab.wait("document.body.textContent.includes('LLM limits')")
        rows = rows_at_the_limit(tab)
        accepted, limit = rows[ACCEPTED]
        # The sandbox's minute can end during the run, and then two of its windows count.
        assert 60 <= int(accepted) <= 120
        assert limit == "60"
        assert rows["Tokens per minute"][1] == "100,000"
        assert rows["In flight"][1] == "50"
        assert rows["Last Retry-After"][0].endswith(" s")
        assert "ms" in rows["TTFT p50, p95"][0]
        assert tab.complaints() == []


def test_form_lists_scenarios_and_targets_and_the_tab_ends_with_the_verdict(page: httpx.Client) -> None:
    shown = html.unescape(page.get("/").text)
    assert "chat: For a test" in shown
    assert "here: http://127.0.0.1" in shown
    assert page.get("/bltybench/report").status_code == 404
    form = {"user_count": 2, "spawn_rate": 2, "scenario": "chat: For a test", "target": "(default)"}
    assert page.post("/swarm", data=form).json()["success"]
    time.sleep(2.0)
    assert page.post("/stop").status_code == 200
    until = time.monotonic() + 40
    rows: dict[str, str] = {}
    while "Verdict" not in rows:
        assert time.monotonic() < until, rows
        time.sleep(0.2)
        (tab,) = page.get("/stats/requests").json()["extended_stats"]
        rows = {row["measure"]: row["now"] for row in tab["data"]}
    assert rows["Verdict"].startswith(("VALID", "INVALID"))
    assert rows["Report"].endswith("-chat")
