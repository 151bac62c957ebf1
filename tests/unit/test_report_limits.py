"""What the probe found, on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bltybench.report.limits_section import limits_found
from bltybench.runs.folder import RunFolder

FOUND: dict[str, Any] = {
    "documented": {"requests_per_min": 60},
    "announced": {"limit": 60, "dialect": "x-ratelimit"},
    "observed": {
        "family": "fixed_window",
        "limit": 60,
        "period_s": 60.0,
        "period_range_s": [59.9, 60.2],
        "rate_per_min": 60.0,
        "phase": "clock",
        "count_refused": None,
    },
    "rejected": [{"family": "sliding_log", "count_refused": True, "contradictions": 31}],
    "says": ["A fixed window: 60 in 60 s."],
}


def written(folder: Path, text: str) -> RunFolder:
    (folder / "limits.json").write_text(text)
    return RunFolder(folder)


def test_documented_announced_and_observed_stand_side_by_side(tmp_path: Path) -> None:
    found = limits_found(written(tmp_path, json.dumps(FOUND)))
    assert found is not None
    assert found.rows[0] == ("Limit", "60 a minute", "60", "60")
    assert ("Windows begin with", "–", "–", "the clock") in found.rows
    assert ("Refused requests count", "–", "–", "cannot tell") in found.rows
    assert found.rejected == [("sliding log, counting refusals", 31)]


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    found = limits_found(written(tmp_path, json.dumps(FOUND | {"observed": None})))
    assert found is not None
    assert found.rows == [("Limit", "60 a minute", "60", "cannot tell")]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"documented": 1}'])
def test_a_damaged_file_leaves_the_page_without_it(text: str, tmp_path: Path) -> None:
    assert limits_found(written(tmp_path, text)) is None


def test_a_run_that_was_no_probe_has_none(tmp_path: Path) -> None:
    assert limits_found(RunFolder(tmp_path)) is None
