"""A live run with a retry policy, compared with its simulation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from support_locust import LOCUSTFILES, run_locust, write_scenarios
from support_sandbox import NO_LIMITS, running_sandbox

from bltybench.policies.simulated_load import ServiceTime, load_of
from bltybench.policies.simulation import Simulation
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.target import SANDBOX_KEY, RateLimit

BURST = """
duration_s = 9
users = 24
arrivals = { kind = "bursts", size = 24, every_s = 60 }
retry = { policy = "openai", max_attempts = 9 }
"""


def test_live_run_has_the_attempts_that_the_simulation_predicts(tmp_path: Path) -> None:
    # With a period just below 2 s, Retry-After is 2 s unless a request is late by 0.9 s.
    rule = RateLimit(limit=6, period_s=1.9, algorithm="sliding_log")
    limits = NO_LIMITS.model_copy(update={"requests": rule})
    with running_sandbox(limits=limits) as running:
        path = write_scenarios(tmp_path, running.base_url, BURST)
        done = run_locust(LOCUSTFILES / "mixed.py", cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 0, done.output
    rows = done.attempts
    refused = [row for row in rows if row["outcome"] == "rate_limited"]
    assert {(row["retry_after_s"], row["waited_s"]) for row in refused} == {(2.0, 2.0)}
    scenario = load_book(path).scenario("quickstart")
    load, service = load_of(scenario, tmp_path, clients=1), ServiceTime(first_s=0.05, per_token_s=0.0)
    calls = Simulation(load, limits, scenario.retry, service, seed=1).run()
    assert all(call.ok for call in calls)
    predicted = Counter(len(call.refusals) for call in calls)
    assert Counter(row["attempt"] for row in rows if row["outcome"] == "ok") == predicted
    assert len(refused) == sum(len(call.refusals) for call in calls) == 36
