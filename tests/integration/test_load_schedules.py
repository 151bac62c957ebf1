"""Scheduled loads compared with what the sandbox received: arrivals, stages, ladders, and former runs."""

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
    """A run of three seconds and the sandbox's log of it."""
    return play(tmp_path_factory.mktemp("gamma"), arrivals(GAMMA))


def test_sandbox_receives_random_arrivals_on_schedule(gamma: tuple[Finished, dict[str, TruthRow]]) -> None:
    assert len(as_scheduled(*gamma)) > 30


@pytest.mark.parametrize(
    "text",
    [
        'kind = "ramp", from_per_min = 600, to_per_min = 1800, spacing = "poisson"',
        'kind = "stairs", rates_per_min = [90000, 60000], unit = "tokens"',
        'kind = "bursts", size = 10, every_s = 0.75, spread_s = 0.1',
    ],
)
def test_sandbox_receives_arrivals_on_schedule(tmp_path: Path, text: str) -> None:
    assert len(as_scheduled(*play(tmp_path, arrivals(text)))) > 30


def test_stages_of_two_workers_exclude_the_warm_up(tmp_path: Path) -> None:
    scenario = arrivals('kind = "stairs", rates_per_min = [300, 900]', 6) + "warm_up_s = 1\n"
    done, truth = play(tmp_path, scenario, "--processes", "2", page=True)
    attempts = as_scheduled(done, truth)
    by_worker = Counter(row["worker"] for row in attempts)
    assert by_worker == {"w0": 30, "w1": 30}
    result = summary(done)
    assert [row["stage"] for row in result["stages"]] == ["300/min", "900/min"]
    assert [row["calls"] for row in result["stages"]] == [10, 30]
    assert [row["offered_per_min"] for row in result["stages"]] == [300, 900]
    assert result["warm_up"] == {"seconds": 1.0, "first_calls": 0, "calls": 20, "attempts": 20}
    assert result["calls"] == 40
    assert result["lengths"][0]["within_2pct"] == 1.0
    assert "The warm-up, 20 calls" in done.run.report_html.read_text()


def test_too_few_users_are_reported(tmp_path: Path) -> None:
    scenario = 'duration_s = 3\nusers = 2\narrivals = { kind = "constant", rate_per_min = 1200 }\n'
    slow = Delay(median_ms=400, p95_ms=400)
    done, truth = play(tmp_path, scenario, "--stop-timeout", "2", ttft=slow)
    result = summary(done)
    (finding,) = [entry for entry in result["audit"] if entry["name"] == "free users"]
    assert not finding["holds"]
    assert not result["valid"]
    # All but the first two were due while both users waited for a response.
    sent = len(done.attempts)
    assert len(truth) == sent < 60
    assert finding["actual"] == f"{sent - 2} arrivals found none, {60 - sent} were never sent"


def test_ladder_has_the_users_of_each_step(tmp_path: Path) -> None:
    scenario = 'duration_s = 4.5\nusers = 6\narrivals = { kind = "ladder", users = [1, 5, 2] }\n'
    done, truth = play(tmp_path, scenario, "--processes", "2")
    users: dict[str, set[int]] = {}
    for row in done.attempts:
        users.setdefault(row["stage"], set()).add(row["user"])
    assert {stage: len(numbers) for stage, numbers in users.items()} == {
        "1 user": 1,
        "5 users": 5,
        "2 users": 2,
    }
    assert len(truth) == len(done.attempts)


def test_former_run_is_replayed_with_its_arrivals_lengths_and_mix(
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
    replayed = sorted(
        (row["due_ns"] * 2, row["wanted_prompt_tokens"], row["max_tokens"], row["name"], row["stream"])
        for row in done.attempts
    )
    assert len(replayed) == len(truth) == len(expected) > 30
    for new, old in zip(replayed, expected, strict=True):
        assert new[0] == pytest.approx(old[0], abs=2)
        assert new[1:] == old[1:]


def test_missing_former_run_is_refused(tmp_path: Path) -> None:
    assert "no such run: 'nowhere'" in refused(tmp_path, arrivals('kind = "run", run = "nowhere"'))
