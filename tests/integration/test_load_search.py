"""The search for the capacity, on sandboxes whose capacity is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from support_locust import LOCUSTFILES, Finished, run_locust, truth_of
from support_sandbox import running_sandbox

from bltybench.runs.search import SearchResult, read_search
from bltybench.scenario.target import SANDBOX_KEY, Delay, RateLimit, SandboxLimits, SandboxQueue

TABLE = """
default_scenario = "find-capacity"
[targets.here]
base_url = "{base_url}"
api_key_env = "BLTYBENCH_TEST_KEY"
[scenarios.find-capacity]
title = "t"
model = "deepseek-chat"
target = "here"
duration_s = 150
users = 120
warm_up_s = {warm_up_s}
arrivals = {{ kind = "search", {search} }}
[[scenarios.find-capacity.mix]]
name = "short"
stream = true
prompt_tokens = {{ kind = "fixed", tokens = 20 }}
max_tokens = {{ kind = "fixed", tokens = 2 }}
"""


def find(
    tmp_path: Path, search: str, *args: str, warm_up_s: float = 0.0, **sandbox: Any
) -> tuple[Finished, SearchResult]:
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log, **sandbox) as running:
        text = TABLE.format(base_url=running.base_url, search=search, warm_up_s=warm_up_s)
        (tmp_path / "scenarios.toml").write_text(text)
        done = run_locust(LOCUSTFILES / "capacity.py", *args, cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    found = read_search(done.run)
    assert found is not None
    assert found.requests == len(truth_of(log)) == len(done.attempts)
    return done, found


def check(done: Finished, found: SearchResult, capacity: float) -> None:
    assert found.ended == "found", done.output
    assert done.run.manifest().ended == "completed"
    assert found.holds is not None
    assert found.fails is not None
    assert found.holds == pytest.approx(capacity, rel=0.05)
    assert found.fails == pytest.approx(capacity, rel=0.05)
    summary = msgspec.json.decode(done.run.summary_json.read_bytes())
    assert summary["search"]["holds"] == found.holds
    assert [row["stage"] for row in summary["stages"]] == [trial.stage for trial in found.trials]
    assert "the capacity lies between" in done.run.report_html.read_text()


def test_a_limit_of_requests_is_found(tmp_path: Path) -> None:
    limits = SandboxLimits(requests=RateLimit(limit=15, period_s=1), tokens=None, concurrency=None)
    search = (
        "start = 500, max = 5000, stage_s = 2.5, pause_s = 1.1, precision = 0.03, requests = 5000, "
        'objectives = { "refused.share" = "<= 1%" }'
    )
    check(*find(tmp_path, search, limits=limits), 900)


def test_the_rate_that_a_server_keeps_up_with_is_found(tmp_path: Path) -> None:
    # Two slots of 160 ms bear 750 a minute; beyond that the line grows, by 3% of the time at a rate 3% above.
    search = (
        "start = 500, max = 5000, stage_s = 6, precision = 0.03, requests = 5000, "
        'objectives = { "ttft.p95" = "< 265 ms" }'
    )
    quick = Delay(median_ms=5, p95_ms=5)
    queue = SandboxQueue(slots=2, service_ms=160)
    check(*find(tmp_path, search, ttft=quick, queue=queue), 750)


def test_the_number_of_users_that_a_server_lets_in_is_found(tmp_path: Path) -> None:
    limits = SandboxLimits(requests=None, tokens=None, concurrency=21)
    search = (
        'load = "users", start = 8, max = 100, stage_s = 1, precision = 0.001, requests = 20000, '
        'objectives = { "refused.share" = "<= 0%" }'
    )
    done, found = find(tmp_path, search, limits=limits, ttft=Delay(median_ms=200, p95_ms=220))
    assert (found.holds, found.fails) == (21, 22), done.output
    assert found.ended == "found"


def test_a_search_keeps_to_its_budget_and_says_so(tmp_path: Path) -> None:
    search = 'start = 600, max = 6000, stage_s = 1, requests = 65, objectives = { "errors.share" = "<= 0%" }'
    done, found = find(tmp_path, search)
    assert found.ended == "requests"
    assert (found.holds, found.fails) == (1200, None)
    # Two trials of 10 and two of 20 agree; another of 40 would pass 65.
    assert found.requests == 60
    assert "did not allow another trial" in done.run.report_html.read_text()
