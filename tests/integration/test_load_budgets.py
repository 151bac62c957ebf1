"""Caps on a run's spend, kept by one process and by several."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_workloads import play, refused, summary

PRICED = """
[targets.here.prices."deepseek-chat"]
input_per_million = 2.0
output_per_million = 8.0
[targets.here.budget]
money = 0.01
"""

CLOSED_LONG = """
duration_s = 30
users = 6
arrivals = { kind = "closed" }
"""


# test_load_endings tests a cap on requests with one process and with two. Every cap is divided among the
# processes in the same way, so each of the other two caps is tested with one number of processes.


def test_two_processes_never_exceed_a_cap_on_money(tmp_path: Path) -> None:
    done, truth = play(tmp_path, CLOSED_LONG, "--processes", "2", target=PRICED)
    assert done.run.manifest().ended == "budget"
    spent = sum(
        (row.prompt_tokens or 0) * 2e-6 + (row.completion_tokens or 0) * 8e-6 for row in truth.values()
    )
    # A request reserves at most 64 prompt and 30 completion tokens, which can remain unspent.
    max_unspent = (64 * 2e-6 + 30 * 8e-6) * (6 + 2)
    assert 0.01 - max_unspent <= spent <= 0.01
    assert summary(done)["spent"]["money"] == pytest.approx(spent)
    assert "and at most" in done.output
    assert "This run can spend up to 0.01 of money" in done.output
    assert len(truth) == len(done.attempts)


def test_one_process_never_exceeds_a_cap_on_tokens(tmp_path: Path) -> None:
    budget = "[targets.here.budget]\ntokens = 4000\n"
    done, truth = play(tmp_path, CLOSED_LONG, target=budget, error_rate=0.2)
    assert done.run.manifest().ended == "budget"
    spent = sum(
        (row.prompt_tokens or 0) + (row.completion_tokens or 0)
        for row in truth.values()
        if row.decision == "accepted"
    )
    assert 4000 - 94 * 6 <= spent <= 4000


def test_budget_below_one_request_is_refused(tmp_path: Path) -> None:
    # unit/test_scenario_plan tests the other caps.
    output = refused(tmp_path, target=PRICED.replace("0.01", "0.00001"))
    assert "can't cover one request, which costs about" in output
