"""A live tournament of client policies, compared with their simulation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from support_locust import LOCUSTFILES, WITH_PAGE, run_locust, write_scenarios
from support_sandbox import NO_LIMITS, running_sandbox

from bltybench.limits.observations.classify import Decision
from bltybench.policies.simulated_load import ServiceTime, load_of
from bltybench.policies.simulation import Simulation
from bltybench.policies.tournament import variant
from bltybench.runs.trials.tournament import read_tournament
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.target import SANDBOX_KEY, RateLimit
from bltybench.scenario.trials.tournament import Tournament

BURST = """
duration_s = 60
users = 24
retry = { max_attempts = 9 }
[scenarios.quickstart.arrivals]
kind = "tournament"
policies = ["none", "openai", "openai + limiter"]
calls = { kind = "bursts", size = 24, every_s = 60 }
stage_s = 1
limits = "limits.toml"
"""
LIMITS = """
requests = { limit = 6, period_s = 1.9, algorithm = "sliding_log" }
tokens = false
concurrency = false
"""


def test_live_tournament_has_the_attempts_that_the_simulation_predicts(tmp_path: Path) -> None:
    # With a period just below 2 s, Retry-After is 2 s unless a request is late by 0.9 s.
    rule = RateLimit(limit=6, period_s=1.9, algorithm="sliding_log")
    limits = NO_LIMITS.model_copy(update={"requests": rule})
    (tmp_path / "limits.toml").write_text(LIMITS)
    with running_sandbox(limits=limits) as running:
        path = write_scenarios(tmp_path, running.base_url, BURST, names=("quickstart",))
        done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY, **WITH_PAGE)
    assert done.code == 0, done.output
    course = read_tournament(done.run)
    assert course is not None
    assert course.ended == "completed"
    assert all(stage.settled for stage in course.stages)
    assert course.stages[1].pause_s >= 1.9
    scenario = load_book(path).scenario("quickstart")
    assert isinstance(scenario.arrivals, Tournament)
    load, service = load_of(scenario.of_one_policy(), tmp_path, clients=1), ServiceTime(0.05, 0.0)
    for one in scenario.arrivals.competitors:
        retry = variant(scenario.retry, one.retry)
        calls = Simulation(load, limits, retry, service, seed=1, pacing=one.pacing).run()
        own = [row for row in done.attempts if row["stage"] == one.name]
        predicted = Counter(len(call.refusals) for call in calls if call.ok)
        assert Counter(row["attempt"] for row in own if row["outcome"] == "ok") == predicted
        refusals = [decision for call in calls for decision in call.refusals]
        assert sum(row["outcome"] == "rate_limited" for row in own) == len(refusals)
        assert set(refusals) <= {Decision.REFUSED_BY_REQUESTS}
    paced = [row for row in done.attempts if row["stage"] == "openai + limiter"]
    held = [row for row in paced if row["paced_ns"] is not None]
    assert len(held) >= 18
    assert all(row["due_ns"] + row["paced_ns"] == row["held_until_ns"] <= row["sent_ns"] for row in held)
    summary = json.loads(done.run.summary_json.read_bytes())["tournament"]
    assert summary["recommended"] is None  # a batch has no intervals
    assert {one["policy"]: one["ok"] for one in summary["standings"]} == {
        "none": 6,
        "openai": 24,
        "openai + limiter": 24,
    }
    assert 'id="tournament"' in done.run.report_html.read_text()
    assert summary["recommendation"] in " ".join(done.output.split())
