"""The table of docs/reliability.md, from the files of campaigns."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.reliability import PAGE, filled

FUZZ: dict[str, Any] = {
    "command": "python -m benchmarks.fuzz --cases 20 --json fuzz.json",
    "ended": "2026-11-30T03:30:00+00:00",
    "first": 0,
    "cases": 20,
    "counts": {"ok": 12, "server_error": 8},
    "failures": [],
    "peak_mb": 41.6,
}
SCENARIOS = FUZZ | {
    "command": "python -m benchmarks.scenario_mutations --cases 20",
    "counts": {"planned": 20},
}


def test_results_replace_the_row_of_their_program_and_keep_the_others() -> None:
    first = filled(PAGE.read_text(encoding="utf-8"), [SCENARIOS, FUZZ])
    assert "| `python -m benchmarks.fuzz --cases 20` | 20 inputs: ok 12, server_error 8. " in first
    again = filled(first, [FUZZ | {"counts": {"ok": 20}}])
    assert again.count("python -m benchmarks.fuzz --cases 20") == 1
    assert "20 inputs: ok 20. Largest memory 42 MB (2026-11-30 03:30 UTC)" in again
    assert again.index("-m benchmarks.fuzz --cases") < again.index("-m benchmarks.scenario_mutations --cases")


def test_campaign_with_failed_cases_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 cases of benchmarks\.fuzz failed"):
        filled(PAGE.read_text(encoding="utf-8"), [FUZZ | {"failures": ["7: RecursionError"]}])


def test_parts_of_a_campaign_give_one_row_with_the_command_for_all_of_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    command = "python -m benchmarks.fuzz --first 20 --cases 5 --json b.json"
    second = FUZZ | {"command": command, "first": 20, "cases": 5, "counts": {"ok": 5}, "peak_mb": 50.2}
    row = "| `python -m benchmarks.fuzz --cases 25` | 25 inputs: ok 17, server_error 8. Largest memory 50 MB"
    assert row in filled(page, [second, FUZZ])
    with pytest.raises(ValueError, match=r"benchmarks\.fuzz: a part begins with case 20 instead of 0"):
        filled(page, [second])
    with pytest.raises(ValueError, match="a part begins with case 20 instead of 40"):
        filled(page, [second, FUZZ | {"cases": 40}])
    with pytest.raises(ValueError, match=r"1 cases of benchmarks\.fuzz failed"):
        filled(page, [FUZZ | {"failures": ["7: RecursionError"]}, second])
