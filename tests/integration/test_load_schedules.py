"""Loads as they were asked for, as the sandbox saw them: arrivals, stages, ceilings, ladders, former runs."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from support_locust import Finished
from support_workloads import arrivals, as_scheduled, play, refused, summary

from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.target import Delay

GAMMA = 'kind = "gamma", rate_per_min = 1500, burstiness = 2.0'


@pytest.fixture(scope="module")
def gamma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, dict[str, TruthRow]]:
    """A run of three seconds, and what the sandbox saw of it."""
    return play(tmp_path_factory.mktemp("gamma"), arrivals(GAMMA))


def test_the_sandbox_sees_arrivals_by_chance(gamma: tuple[Finished, dict[str, TruthRow]]) -> None:
    assert len(as_scheduled(*gamma)) > 30


@pytest.mark.parametrize(
    "text",
    [
        'kind = "ramp", from_per_min = 600, to_per_min = 1800, spacing = "poisson"',
        'kind = "stairs", rates_per_min = [90000, 60000], unit = "tokens"',
        'kind = "bursts", size = 10, every_s = 0.75, spread_s = 0.1',
    ],
)
def test_the_sandbox_sees_the_schedule(tmp_path: Path, text: str) -> None:
    assert len(as_scheduled(*play(tmp_path, arrivals(text)))) > 30


def test_stages_of_two_workers_have_rows_and_the_warm_up_is_in_none_of_them(tmp_path: Path) -> None:
    scenario = arrivals('kind = "stairs", rates_per_min = [300, 900]', 6) + "warm_up_s = 1\n"
    done, truth = play(tmp_path, scenario, "--processes", "2", page=True)
    attempts = as_scheduled(done, truth)
    by_worker = Counter(row["worker"] for row in attempts)
    assert by_worker == {"w0": 30, "w1": 30}
    found = summary(done)
    assert [row["stage"] for row in found["stages"]] == ["300/min", "900/min"]
    assert [row["calls"] for row in found["stages"]] == [10, 30]
    assert [row["offered_per_min"] for row in found["stages"]] == [300, 900]
    assert found["warm_up"] == {"seconds": 1.0, "first_calls": 0, "calls": 20, "attempts": 20}
    assert found["calls"] == 40
    assert found["lengths"][0]["within_2pct"] == 1.0
    assert "The warm-up, 20 calls" in done.run.report_html.read_text()


def test_hitting_the_ceiling_of_users_is_reported(tmp_path: Path) -> None:
    scenario = 'duration_s = 3\nusers = 2\narrivals = { kind = "constant", rate_per_min = 1200 }\n'
    slow = Delay(median_ms=400, p95_ms=400)
    done, truth = play(tmp_path, scenario, "--stop-timeout", "2", ttft=slow)
    found = summary(done)
    (finding,) = [one for one in found["audit"] if one["name"] == "free users"]
    assert not finding["holds"]
    assert not found["valid"]
    # All but the first two were due while both users waited for an answer.
    sent = len(done.attempts)
    assert len(truth) == sent < 60
    assert finding["actual"] == f"{sent - 2} arrivals found none, {60 - sent} were never sent"


def test_a_ladder_has_as_many_users_as_each_step_says(tmp_path: Path) -> None:
    scenario = 'duration_s = 4.5\nusers = 6\narrivals = { kind = "ladder", users = [1, 5, 2] }\n'
    done, truth = play(tmp_path, scenario, "--processes", "2")
    users: dict[str, set[int]] = {}
    for row in done.attempts:
        users.setdefault(row["stage"], set()).add(row["user"])
    assert {stage: len(found) for stage, found in users.items()} == {"1 user": 1, "5 users": 5, "2 users": 2}
    assert len(truth) == len(done.attempts)


def test_a_former_run_is_replayed_with_its_arrivals_lengths_and_mix(
    gamma: tuple[Finished, dict[str, TruthRow]], tmp_path: Path
) -> None:
    former, _ = gamma
    shutil.copytree(former.run.path, tmp_path / "former")
    text = 'duration_s = 2\nusers = 50\narrivals = { kind = "run", run = "former", speed = 2 }\n'
    done, truth = play(tmp_path, text)
    expected = sorted(
        (row["due_ns"], row["wanted_prompt_tokens"], row["max_tokens"], row["name"], row["stream"])
        for row in former.attempts
    )
    found = sorted(
        (row["due_ns"] * 2, row["wanted_prompt_tokens"], row["max_tokens"], row["name"], row["stream"])
        for row in done.attempts
    )
    assert len(found) == len(truth) == len(expected) > 30
    for new, old in zip(found, expected, strict=True):
        assert new[0] == pytest.approx(old[0], abs=2)
        assert new[1:] == old[1:]


def test_a_former_run_that_is_not_there(tmp_path: Path) -> None:
    assert "no such run: 'nowhere'" in refused(tmp_path, arrivals('kind = "run", run = "nowhere"'))
