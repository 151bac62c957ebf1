"""Damaged copies of scenarios.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.campaign import Batch
from benchmarks.scenario_mutations import bases, check, mutation, play
from bltybench.scenario.arrivals.arrivals import expected_arrivals, schedule
from bltybench.scenario.file.resolve import resolve
from bltybench.scenario.file.scenario_file import load_book

LONG_S = 30_000.0
"""A duration in which chance cancels out, in seconds."""


@pytest.fixture(scope="module")
def batch() -> Batch:
    return play(0, 600)


def test_damaged_files_load_or_give_one_message_with_a_place(batch: Batch) -> None:
    assert not batch.failures


def test_damaged_files_reach_the_loader_and_the_plan(batch: Batch) -> None:
    assert {"planned", "rejected by the loader", "rejected by the plan"} <= set(batch.counts)


def test_undamaged_files_are_planned(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    results = []
    for base in bases():
        path.write_text(base, encoding="utf-8")
        results.append(check(path))
    traces = sum('kind = "trace"' in base for base in bases())
    assert results.count("planned") == len(bases()) - traces
    assert results.count("rejected by the plan") == traces


def test_case_number_always_gives_the_same_file() -> None:
    assert [mutation(number) for number in range(50)] == [mutation(number) for number in range(50)]


def test_expected_arrivals_match_the_schedule(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    compared = 0
    for base in bases():
        if 'kind = "trace"' in base:
            continue
        path.write_text(base, encoding="utf-8")
        book = load_book(path)
        scenario = resolve(book).scenario
        if scenario.is_open_loop:
            expected = expected_arrivals(scenario.arrivals, LONG_S)
            drawn = sum(1 for _ in schedule(scenario.arrivals, LONG_S, 1, tmp_path))
            assert drawn == pytest.approx(expected, rel=0.1), scenario.arrivals
            compared += 1
    assert compared >= 8
