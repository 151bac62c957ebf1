"""The tab in Locust's own web page, in a real browser during a run."""

from __future__ import annotations

import html
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

ACCEPTED = "Accepted requests"
REFUSED = "Refused requests"
REMAINING = "Remaining requests (last reported)"
LIVE = "document.querySelector('iframe')?.contentDocument"
ROWS = (
    f"Object.fromEntries([...({LIVE}?.querySelectorAll('tbody tr') ?? [])].map((row) => "
    "[...row.cells].map((cell) => cell.innerText)).map(([name, ...rest]) => [name, rest]))"
)
LABELS = f"[...{LIVE}.querySelectorAll('.plot svg')].map((chart) => chart.getAttribute('aria-label'))"
VERDICT = f"{LIVE}.querySelector('#lines').innerText"


Web = tuple["subprocess.Popen[str]", httpx.Client]


@pytest.fixture
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Web]:
    """Locust and its web page before a run, with a sandbox that accepts 60 requests per minute.

    Its parameter is the formats of the report.
    """
    port = free_port()
    with running_sandbox(limits=SandboxLimits()) as sandbox:
        scenarios = write_scenarios(tmp_path, sandbox.base_url, SCENARIO, target=TARGET)
        text = scenarios.read_text()
        scenarios.write_text(text.replace("[scenarios.chat]", "[scenarios.chat]\nspawn_rate = 2"))
        locust = start_locust(
            LOCUSTFILES / "mixed.py",
            f"--web-port={port}",
            cwd=tmp_path,
            BLTYBENCH_TEST_KEY=SANDBOX_KEY,
            BLTYBENCH_REPORT_FORMAT=request.param,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                wait_for_page(client, locust)
                yield locust, client
        finally:
            end(locust)


@pytest.fixture
def page(web: Web) -> httpx.Client:
    """Locust's web page before a run."""
    return web[1]


def end(locust: subprocess.Popen[str]) -> int:
    """End Locust with Ctrl-C and return its exit code."""
    if locust.poll() is None:
        os.killpg(locust.pid, signal.SIGINT)
        locust.communicate(timeout=120)
    return locust.returncode


def start_chat(tab: Tab) -> dict[str, str]:
    """Choose the scenario `chat` in Locust's form, start it, and return what the form contained."""
    tab.wait("document.querySelector('select[name=scenario]') !== null")
    tab.run("""{
        const list = document.querySelector("select[name=scenario]");
        list.value = [...list.options].find((option) => option.text.startsWith("chat:")).text;
        list.dispatchEvent(new Event("change", {bubbles: true}));
    }""")
    tab.wait("document.querySelector('input[name=spawnRate]').value === '2'")
    fields = (
        "[...document.querySelectorAll('form input, form select')].map((field) => [field.name, field.value])"
    )
    values: dict[str, str] = tab.run(f"Object.fromEntries({fields})")
    tab.run("document.querySelector('button[type=submit]').click()")
    return values


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


def wait_for_phase(page: httpx.Client, phase: str) -> dict[str, Any]:
    until = time.monotonic() + 120  # a report takes seconds of CPU time, and other tests run too
    while True:
        state: dict[str, Any] = page.get("/bltybench/state").json()
        if state["phase"] == phase:
            return state
        assert time.monotonic() < until, state
        time.sleep(0.1)


@pytest.mark.parametrize("web", ["json,html"], indirect=True)
def test_tab_shows_charts_during_a_run_and_then_its_verdict_and_report(page: httpx.Client) -> None:
    assert page.get("/bltybench/state").json()["headline"] == "No run yet"
    with browser() as tab:
        tab.open(str(page.base_url))
        values = start_chat(tab)
        assert (values["userCount"], values["runTime"]) == ("6", "30")
        assert values["host"].startswith("http://127.0.0.1:")
        assert values["target"] == "(default): that of the scenario"
        tab.wait("document.querySelector('[role=tab]') !== null")
        tab.run("[...document.querySelectorAll('[role=tab]')].at(-1).click()")
        rows = rows_at_the_limit(tab)
        accepted, limit = rows[ACCEPTED]
        # The sandbox's minute can end during the run, and then two of its windows count.
        assert 60 <= int(accepted) <= 120
        assert limit == "60 per minute"
        assert rows["Tokens"][1] == "100,000 per minute"
        assert rows["In flight now"][1] == "50"
        assert rows["Last Retry-After"][0].endswith(" s")
        requests, ttft, tokens, in_flight = tab.run(LABELS)
        assert requests.startswith(f"Requests in the last 60 s: accepted {accepted}, refused ")
        assert requests.endswith("limit 60 per minute")
        assert "p95" in ttft
        assert in_flight.endswith("limit 50")
        assert tokens.endswith("limit 100,000 per minute")
        assert tab.run(f"{LIVE}.querySelectorAll('#requests polyline').length") == 3

        assert page.post("/stop").status_code == 200
        state = wait_for_phase(page, "ended")
        assert state["about"].startswith("chat on http://127.0.0.1")
        tab.wait(f"!{LIVE}.querySelector('#report').hidden")
        assert "VALID" in tab.run(VERDICT)
        address = tab.run(f"{LIVE}.querySelector('#report').href")
        assert tab.complaints() == []
        assert {httpx.URL(url).netloc for url in tab.requested() if not url.startswith("data:")} == {
            page.base_url.netloc
        }
    report = page.get(address)
    assert report.status_code == 200
    assert "<title>" in report.text
    # Nothing else can be read: neither the run's other files, nor files elsewhere.
    name = state["report"]
    for path in (
        "other",
        f"{name}/manifest.json",
        f"..%2freports%2f{name}%2fmanifest.json",
        "..%2f..%2fscenarios.toml",
    ):
        assert page.get(f"/bltybench/report/{path}").status_code == 404, path
    assert page.get("/bltybench/page/..%2fpanel.py").status_code == 404
    script = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    assert page.get(address, headers=script).status_code == 403
    assert page.get(address, headers=script | {"Sec-Fetch-Mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("web", ["json"], indirect=True)
def test_form_lists_scenarios_and_targets_and_a_run_that_cannot_start_says_why(
    web: Web, page: httpx.Client
) -> None:
    shown = html.unescape(page.get("/").text)
    assert "(default): quickstart, For a test" in shown
    assert "chat: For a test" in shown
    assert "here: http://127.0.0.1" in shown
    form = {"user_count": 2, "spawn_rate": 2, "scenario": "chatt: For a test", "target": "(default)"}
    assert page.post("/swarm", data=form).json()["success"]
    state = wait_for_phase(page, "failed")
    assert "no such scenario" in state["lines"][0]["text"]
    assert state["rows"] == []
    # Locust's page shows the form again.
    assert page.get("/stats/requests").json()["state"] == "ready"

    assert page.post("/swarm", data=form | {"scenario": "chat: For a test"}).json()["success"]
    wait_for_phase(page, "running")
    assert page.post("/stop").status_code == 200
    state = wait_for_phase(page, "ended")
    assert state["lines"][0]["text"].startswith(("VALID", "INVALID"))
    assert state["about"].startswith("chat on http://127.0.0.1")
    assert state["report"] is None, "this run has no page"
    # The form shows the last choice, as it shows the last number of users.
    assert '"default_value": "chat: For a test"' in html.unescape(page.get("/").text)

    # The process ends as its last run did.
    assert page.post("/swarm", data=form).json()["success"]
    wait_for_phase(page, "failed")
    assert end(web[0]) == 2
