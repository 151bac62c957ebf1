"""The table of docs/reliability.md, from the files of campaigns."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.reliability import PAGE, filled

FUZZ: dict[str, Any] = {
    "command": "python -m benchmarks.fuzz --cases 20 --json fuzz.json",
    "ended": "2026-11-30T03:30:00+00:00",
    "cases": 20,
    "counts": {"ok": 12, "server_error": 8},
    "failures": [],
    "peak_mb": 41.6,
}
SCENARIOS = FUZZ | {"command": "python -m benchmarks.scenario_mutations", "counts": {"planned": 20}}


def test_results_replace_the_row_of_their_program_and_keep_the_others() -> None:
    first = filled(PAGE.read_text(encoding="utf-8"), [SCENARIOS, FUZZ])
    assert "| `python -m benchmarks.fuzz --cases 20` | 20 inputs: ok 12, server_error 8. " in first
    again = filled(first, [FUZZ | {"counts": {"ok": 20}}])
    assert again.count("python -m benchmarks.fuzz --cases 20") == 1
    assert "20 inputs: ok 20. Largest memory 42 MB (2026-11-30 03:30 UTC)" in again
    assert again.index("-m benchmarks.fuzz --cases") < again.index("-m benchmarks.scenario_mutations` |")


def test_campaign_with_failed_cases_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 cases of benchmarks\.fuzz failed"):
        filled(PAGE.read_text(encoding="utf-8"), [FUZZ | {"failures": ["7: RecursionError"]}])
