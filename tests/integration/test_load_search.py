"""The capacity search on sandboxes whose capacity is known."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support_locust import LOCUSTFILES, WITH_PAGE, Finished, run_locust, truth_of
from support_sandbox import running_sandbox

from bltybench.limits.models import TokenBucket
from bltybench.load.trials.search_worker import trial_times
from bltybench.runs.trials.search import SearchResult, read_search
from bltybench.scenario.target import SANDBOX_KEY, Delay, RateLimit, SandboxLimits, SandboxQueue
from bltybench.scenario.trials.bracket import Bracket
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.workload import Scenario

TWO = ("--processes", "2")

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
seed = 34
users = 120
arrivals = {{ kind = "search", {search} }}
[[scenarios.find-capacity.mix]]
name = "short"
stream = true
prompt_tokens = {{ kind = "fixed", tokens = 20 }}
max_tokens = {{ kind = "fixed", tokens = 2 }}
"""


def find(
    tmp_path: Path, search: str, *args: str, table: str = TABLE, page: bool = False, **sandbox: Any
) -> tuple[Finished, SearchResult]:
    log = tmp_path / "truth.jsonl"
    with running_sandbox(log, **sandbox) as running:
        text = table.format(base_url=running.base_url, search=search)
        (tmp_path / "scenarios.toml").write_text(text)
        changes = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY} | (WITH_PAGE if page else {})
        done = run_locust(LOCUSTFILES / "capacity.py", *args, cwd=tmp_path, **changes)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    result = read_search(done.run)
    assert result is not None
    assert result.requests == len(truth_of(log)) == len(done.attempts)
    return done, result


def check(done: Finished, result: SearchResult, capacity: float) -> None:
    assert result.ended == "found", done.output
    assert done.run.manifest().ended == "completed"
    assert result.holds is not None
    assert result.fails is not None
    assert result.holds == pytest.approx(capacity, rel=0.05)
    assert result.fails == pytest.approx(capacity, rel=0.05)
    summary = msgspec.json.decode(done.run.summary_json.read_bytes())
    assert summary["search"]["holds"] == result.holds
    assert [row["stage"] for row in summary["stages"]] == [trial.stage for trial in result.trials]


def test_request_limit_is_found(tmp_path: Path) -> None:
    limit = RateLimit(limit=8, period_s=0.5, algorithm="first_hit_window")
    limits = SandboxLimits(requests=limit, tokens=None, concurrency=None)
    search = (
        "start = 800, max = 5000, step = 1.1, stage_s = 0.75, pause_s = 0.55, precision = 0.03, "
        'requests = 5000, objectives = { "refused.share" = "<= 1%" }'
    )
    done, result = find(tmp_path, search, page=True, limits=limits)
    check(done, result, 960)
    assert "the capacity lies between" in done.run.report_html.read_text()
    # Refusals begin when the first window is full, and the trial is then cut.
    failed = [trial for trial in result.trials if not trial.held]
    assert failed
    assert all(trial.cut and trial.sent < trial.load * 0.75 / 60 for trial in failed)
    assert all(trial.sent == math.ceil(trial.load * 0.75 / 60) for trial in result.trials if trial.held)


def test_two_processes_find_the_rate_that_a_server_sustains(tmp_path: Path) -> None:
    # Two slots of 160 ms sustain 750 per minute. At a rate 3% above, the queue grows by 3% of the time.
    search = (
        "start = 690, max = 5000, step = 1.1, stage_s = 4, precision = 0.03, requests = 5000, "
        'objectives = { "ttft.p95" = "< 265 ms" }'
    )
    quick = Delay(median_ms=5, p95_ms=5)
    queue = SandboxQueue(slots=2, service_ms=160)
    done, result = find(tmp_path, search, *TWO, ttft=quick, queue=queue)
    check(done, result, 750)
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for row in done.attempts:
        by_stage.setdefault(row["stage"], []).append(row)
    for trial in result.trials:
        rows = sorted(by_stage[trial.stage], key=lambda row: row["due_ns"])
        shares = [sum(row["worker"] == name for row in rows) for name in ("w0", "w1")]
        # The workers learn of a cut at different times, so their shares can differ by what was due meanwhile.
        assert abs(shares[0] - shares[1]) <= (1 if not trial.cut else 5)
        gaps_ms = [(b["due_ns"] - a["due_ns"]) / 1e6 for a, b in pairwise(rows[: len(rows) - 10])]
        assert gaps_ms == pytest.approx([60_000 / trial.load] * len(gaps_ms), abs=0.01)


def test_two_processes_find_the_number_of_users_that_a_server_accepts(tmp_path: Path) -> None:
    limits = SandboxLimits(requests=None, tokens=None, concurrency=21)
    search = (
        'load = "users", start = 16, max = 100, step = 1.2, stage_s = 1, precision = 0.001, '
        'requests = 20000, objectives = { "refused.share" = "<= 0%" }'
    )
    done, result = find(tmp_path, search, *TWO, limits=limits, ttft=Delay(median_ms=200, p95_ms=220))
    assert (result.holds, result.fails) == (21, 22), done.output
    assert result.ended == "found"
    in_22 = {row["user"] for row in done.attempts if row["stage"].endswith(": 22 users")}
    assert in_22 == set(range(22))


def test_random_arrivals_are_refused_as_the_limiter_model_predicts(tmp_path: Path) -> None:
    limit = RateLimit(limit=20, period_s=1, algorithm="token_bucket", burst=5)
    text = (
        "start = 1000, max = 5000, stage_s = 2, pause_s = 0.5, precision = 0.2, requests = 5000, "
        'spacing = "poisson", objectives = { "refused.share" = "<= 10%" }'
    )
    limits = SandboxLimits(requests=limit, tokens=None, concurrency=None)
    done, result = find(tmp_path, text, limits=limits)
    scenario = Scenario.model_validate(done.run.manifest().resolved)
    assert isinstance(scenario.arrivals, CapacitySearch)
    assert [(trial.load, trial.held) for trial in result.trials] == predicted(
        scenario.arrivals, scenario.seed
    )
    assert result.ended == "found"


def predicted(search: CapacitySearch, seed: int) -> list[tuple[float, bool]]:
    """Return the trials of the search and their outcomes if no arrival is late."""
    bracket = Bracket(search.start, search.max, precision=search.precision, confirm=2, whole=False)
    trials: list[tuple[float, bool]] = []
    while not bracket.done:
        bucket = TokenBucket(20, 1.0, burst=5)
        times = trial_times(search, bracket.level, seed, len(trials) + 1)
        refused = sum(not bucket.decide(at_s, 1).accepted for at_s in times)
        trials.append((bracket.level, refused <= 0.1 * len(times)))
        bracket.add(trials[-1][1])
    return trials


def test_search_stops_before_exceeding_its_requests(tmp_path: Path) -> None:
    search = 'start = 600, max = 6000, stage_s = 1, requests = 65, objectives = { "errors.share" = "<= 0%" }'
    done, result = find(tmp_path, search, page=True)
    assert result.ended == "requests"
    assert (result.holds, result.fails) == (1200, None)
    # Trials of 10 and 20. Another of 40 would exceed 65.
    assert result.requests == 30
    assert "did not allow another trial" in done.run.report_html.read_text()


def test_search_for_users_stops_at_its_requests(tmp_path: Path) -> None:
    search = (
        'load = "users", start = 8, max = 100, stage_s = 2, requests = 50, '
        'objectives = { "errors.share" = "<= 0%" }'
    )
    _, result = find(tmp_path, search, ttft=Delay(median_ms=50, p95_ms=60))
    assert result.ended == "requests"
    assert (result.holds, result.fails, result.trials) == (None, None, [])
    assert 50 <= result.requests <= 58


def test_target_budget_ends_a_search(tmp_path: Path) -> None:
    text = TABLE.replace("[scenarios.find", "[targets.here.budget]\nrequests = 41\n[scenarios.find", 1)
    search = 'start = 600, max = 6000, stage_s = 1, requests = 900, objectives = { "errors.share" = "<= 0%" }'
    done, result = find(tmp_path, search, *TWO, table=text)
    assert done.run.manifest().ended == result.ended == "budget"
    # Trials of 10 and 20. The third needs 40 but has 11 left, so it is not evaluated.
    assert 0 < sum(trial.sent for trial in result.trials) < len(done.attempts) <= 41
