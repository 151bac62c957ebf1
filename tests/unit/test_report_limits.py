"""What is known of the limits, on the page: of a probe, of an ordinary run, and where a file is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support_runs import S, attempt, manifest, realistic, write_run

from bltybench.report import build
from bltybench.report.figures.limits import bins
from bltybench.report.page.limits_section import LimitsSection, limits_section
from bltybench.runs.attempt import Outcome
from bltybench.runs.folder import RunFolder

OBSERVED: dict[str, Any] = {
    "family": "fixed_window",
    "limit": 60,
    "limit_range": [60, 60],
    "period_s": 60.0,
    "period_range_s": [59.9, 60.2],
    "rate_per_min": 60.0,
    "phase": "clock",
    "phase_s": 0.0,
    "ticks": None,
    "count_refused": None,
}
SHARE = {"count": 0, "of": 0, "interval": None}
FOUND: dict[str, Any] = {
    "status": "found",
    "confidence": 1.0,
    "attempts": 163,
    "refused": 51,
    "refusal_status": 429,
    "announced": {"limit": 60, "dialect": "x-ratelimit"},
    "observed": OBSERVED,
    "consistent": [OBSERVED],
    "rejected": [{"family": "sliding_log", "count_refused": True, "contradictions": 31}],
    "headers": {
        "remaining_steps": SHARE,
        "retry_enough": {"count": 3, "of": 4, "interval": [0.3, 0.95]},
        "retry_early": SHARE,
        "without_retry_after": {"count": 0, "of": 51, "interval": [0.0, 0.1]},
    },
    "says": ["A fixed window: 60 in 60 s.", "At most 47 in flight."],
    "advice": ["After a refusal wait for the window to turn."],
    "answers": [
        {
            "question": "colour_of_the_limit",
            "value": "teal",
            "says": "It is <b>teal</b>.",
            "confidence": 0.93,
            "evidence": ["it looked so twice", "nothing looked otherwise"],
        },
        {"question": "concurrency_limit", "value": 47, "says": "At most 47 in flight.", "evidence": []},
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("runs") / "made", realistic())


@pytest.fixture(scope="module")
def probed(run: RunFolder) -> RunFolder:
    """The same run with what a probe leaves, and its page."""
    (run.path / "limits.json").write_text(json.dumps(FOUND))
    build(run)
    return run


def section(folder: RunFolder) -> LimitsSection:
    found = limits_section(folder)
    assert found is not None
    return found


def test_documented_announced_and_observed_stand_side_by_side(probed: RunFolder) -> None:
    found = section(probed)
    assert found.probed
    assert found.rows[0] == ("Requests", "60 a minute", "60", "60 in 60 s")
    assert ("In the long run", "60 a minute", "–", "60 a minute") in found.rows
    assert ("Windows begin with", "–", "–", "the clock") in found.rows
    assert ("Refused requests count", "–", "–", "cannot tell") in found.rows
    assert ("Retry-After", "–", "on 51 of 51 refusals", "enough in 3 of 4 cases") in found.rows
    assert ("In flight", "50", "–", "47") in found.rows
    assert ("Tokens", "100,000 a minute", "–", "not looked at") in found.rows
    assert found.says == ["A fixed window: 60 in 60 s."]
    assert found.rejected == [("sliding window (log), counting refusals", 31)]
    assert found.confidence is not None
    assert found.confidence < 1


def test_what_the_algorithm_leaves_open_is_as_it_was_asked(run: RunFolder) -> None:
    asked = {**FOUND["answers"][0], "question": "refused_counts", "value": False}
    (run.path / "limits.json").write_text(json.dumps({**FOUND, "answers": [*FOUND["answers"], asked]}))
    assert ("Refused requests count", "–", "–", "no") in section(run).rows
    (run.path / "limits.json").write_text(json.dumps(FOUND))


def test_the_figures_say_what_the_run_shows(probed: RunFolder) -> None:
    names = {drawing.name: drawing.says for drawing in section(probed).drawings}
    assert names.keys() == {"limits_evidence", "limits_retry_after", "limits_remaining"}
    assert "a fixed window decides all" in names["limits_evidence"]
    assert names["limits_retry_after"].startswith("Nothing that followed contradicts")
    assert names["limits_remaining"].startswith("Remaining was what a fixed window has left in")


def test_the_page_shows_it_all_and_foreign_words_as_words(probed: RunFolder) -> None:
    html = probed.report_html.read_text(encoding="utf-8")
    for text in (
        "A probe found this",
        "What your client should do",
        "wait for the window to turn",
        "&gt;99.9%",
    ):
        assert text in html
    assert "Colour of the limit" in html
    assert "It is &lt;b&gt;teal&lt;/b&gt;." in html
    assert "it looked so twice<br>nothing looked otherwise" in html


def test_the_data_behind_the_figures_is_there(probed: RunFolder) -> None:
    decided = pd.read_csv(probed.path / "figures" / "limits_decisions.csv")
    counts = pd.read_csv(probed.path / "figures" / "limits_bins.csv")
    for fate in ("accepted", "refused"):
        assert counts[f"observed_{fate}"].sum() == (decided["observed"] == fate).sum() > 0
    assert counts["differs"].sum() == (decided["observed"] != decided["predicted"]).sum()
    told = pd.read_csv(probed.path / "figures" / "limits_retry_after.csv")
    assert len(told) == (decided["observed"] == "refused").sum()
    assert pd.read_csv(probed.path / "figures" / "limits_remaining.csv")["answers"].sum() > 0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"documented": 1}', '{"observed": {"family": []}}'])
def test_without_a_whole_file_the_run_speaks_for_itself(text: str, tmp_path: Path) -> None:
    few = [attempt(call_id=f"c{i}", sent_ns=i * S) for i in range(5)]
    folder = write_run(tmp_path / "made", few)
    (folder.path / "limits.json").write_text(text)
    found = section(folder)
    assert not found.probed
    assert found.rows[0] == ("Requests", "60 a minute", "–", "at least 5 in 60 s")
    assert found.drawings == []


def test_a_run_that_is_all_refused_has_evidence_and_no_model(tmp_path: Path) -> None:
    refused = [
        attempt(call_id=f"c{i}", sent_ns=i * S, outcome=Outcome.RATE_LIMITED, status=429) for i in range(5)
    ]
    found = section(write_run(tmp_path / "made", refused))
    assert found.rows[0][-1] == "all refused"
    (drawing,) = found.drawings
    assert drawing.says == "0 of 5 requests were let in; no model of their rate explains which."


def test_an_empty_run_has_none(tmp_path: Path) -> None:
    assert limits_section(write_run(tmp_path / "made", [], about=manifest())) is None


@pytest.mark.parametrize("span_s", [0.0, 0.7, 31.0, 100_000.0])
def test_bins_hold_every_attempt_and_are_few(span_s: float) -> None:
    at = np.array([3.0, 3.0 + span_s], dtype=np.float64)
    edges = bins(at)
    assert edges[0] <= at[0]
    assert at[1] < edges[-1]
    assert len(edges) <= 131
