"""The section on rate limits: of a probe, of an ordinary run, and if limits.json is damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from support_runs import S, attempt, attempt_at, manifest, realistic, write_run

from bltybench.cli.limits import limits
from bltybench.limits.findings.model import encode
from bltybench.metrics.analysis import load
from bltybench.report import run_limits
from bltybench.report.build import build
from bltybench.report.figures.limits import bins
from bltybench.report.figures.run_figures import draw_all
from bltybench.report.page import limits_section as section_module
from bltybench.report.page.answer import answer
from bltybench.report.page.client_settings import client_settings
from bltybench.report.page.limits_section import LimitsSection, limits_section
from bltybench.report.page.page import page
from bltybench.report.summary import Summary, summarize
from bltybench.runs.attempt import Outcome
from bltybench.runs.folder import RunFolder
from bltybench.scenario.api.documented_limits import Limit

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
    "free": None,
    "count_refused": None,
    "contradictions": 0,
}
NONE_OF_NONE = {"count": 0, "of": 0, "interval": None}
ANSWER: dict[str, Any] = {
    "question": "color_of_the_limit",
    "value": "teal",
    "range": None,
    "confidence": 0.93,
    "evidence": ["it looked so twice", "nothing looked otherwise"],
    "reason": None,
    "says": "It is <b>teal</b>.",
}
RECORD: dict[str, Any] = {
    "run_id": "made",
    "stopped": None,
    "findings_version": 1,
    "status": "found",
    "reason": None,
    "confidence": 1.0,
    "attempts": 163,
    "accepted": 112,
    "refused": 51,
    "refusal_status": 429,
    "documented": {"requests_per_min": 60},
    "announced": {"limit": 60, "dialect": "x-ratelimit"},
    "observed": OBSERVED,
    "consistent": [OBSERVED],
    "rejected": [{"family": "sliding_log", "count_refused": True, "contradictions": 31}],
    "in_flight": None,
    "delayed": None,
    "busiest_minute": {"accepted": 60, "at": "2026-11-22T12:00:00+00:00"},
    "headers": {
        "remaining_steps": NONE_OF_NONE,
        "retry_enough": {"count": 3, "of": 4, "interval": [0.3, 0.95]},
        "retry_early": NONE_OF_NONE,
        "without_retry_after": {"count": 0, "of": 51, "interval": [0.0, 0.1]},
    },
    "answers": [
        ANSWER,
        ANSWER
        | {
            "question": "concurrency_limit",
            "value": 47,
            "says": "At most 47 in flight.",
            "confidence": None,
            "evidence": [],
        },
    ],
    "says": ["A fixed window: 60 per 60 s.", "At most 47 in flight."],
    "advice": ["After a refusal, wait for the window to reset."],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("runs") / "made", realistic())


@pytest.fixture(scope="module")
def probed(run: RunFolder) -> RunFolder:
    """The same run with a probe's limits.json, and its page."""
    (run.path / "limits.json").write_text(json.dumps(RECORD))
    build(run)
    return run


@pytest.fixture
def ordinary(tmp_path: Path) -> RunFolder:
    """A run of five accepted requests."""
    return write_run(tmp_path / "made", [attempt(call_id=f"c{i}", sent_ns=i * S) for i in range(5)])


def section(folder: RunFolder) -> LimitsSection:
    found = limits_section(folder)
    assert found is not None
    return found


def test_table_compares_documented_announced_and_observed_limits(probed: RunFolder) -> None:
    found = section(probed)
    assert found.probed
    assert found.damaged is None
    assert found.rows[0] == ("Requests", "60 per minute", "60", "60 per 60 s")
    assert ("Long-term rate", "60 per minute", "–", "60 per minute") in found.rows
    assert ("Start of windows", "–", "–", "clock") in found.rows
    assert ("Refused requests counted", "–", "–", "unknown") in found.rows
    assert ("Retry-After", "–", "on 51 of 51 refusals", "enough in 3 of 4 tested waits") in found.rows
    assert ("In flight", "50", "–", "47") in found.rows
    assert ("Tokens", "100,000 per minute", "–", "not measured") in found.rows
    assert found.says == ["A fixed window: 60 per 60 s."]
    assert found.rejected == [("sliding log that counts refused requests", 31)]
    assert found.confidence is not None
    assert found.confidence < 1


def test_experiment_answers_what_the_algorithm_leaves_open(run: RunFolder) -> None:
    refused_counts = ANSWER | {"question": "refused_counts", "value": False}
    (run.path / "limits.json").write_text(
        json.dumps(RECORD | {"answers": [*RECORD["answers"], refused_counts]})
    )
    assert ("Refused requests counted", "–", "–", "no") in section(run).rows
    (run.path / "limits.json").write_text(json.dumps(RECORD))


def test_figures_describe_the_run(probed: RunFolder) -> None:
    names = {drawing.name: drawing.says for drawing in section(probed).drawings}
    assert names.keys() == {"limits_evidence", "limits_retry_after", "limits_remaining"}
    assert "a fixed window decides all" in names["limits_evidence"]
    assert names["limits_retry_after"].startswith("One mark per refusal")
    assert names["limits_remaining"].startswith("One mark per value")


def test_page_shows_the_section_and_escapes_foreign_text(probed: RunFolder) -> None:
    html = probed.report_html.read_text(encoding="utf-8")
    for text in (
        "Measured by a probe",
        "<h1>60 requests per 60 s, fixed window</h1>",
        "What your client should do",
        "wait for the window to reset",
        "&gt;99.9%",
        "Color of the limit",
        "It is &lt;b&gt;teal&lt;/b&gt;.",
        "it looked so twice<br>nothing looked otherwise",
    ):
        assert text in html
    assert "is damaged" not in html


def test_confidence_is_shown_only_if_one_algorithm_was_found(run: RunFolder) -> None:
    """The confidence of the best of several algorithms would be read as that of the result."""
    other = OBSERVED | {"family": "token_bucket"}
    open_record = {
        "status": "ambiguous",
        "reason": "two fit",
        "confidence": 0.998,
        "consistent": [OBSERVED, other],
    }
    (run.path / "limits.json").write_text(json.dumps(RECORD | open_record))
    found = section(run)
    assert found.confidence is None
    assert found.still_open == ("two fit",)
    (run.path / "limits.json").write_text(json.dumps(RECORD))
    assert section(run).confidence is not None


def test_answer_does_not_claim_an_algorithm_that_is_not_confirmed(
    run: RunFolder, usual_run: tuple[RunFolder, Summary]
) -> None:
    unconfirmed = {"status": "ambiguous", "reason": "it makes only 98 of 100 decisions"}
    (run.path / "limits.json").write_text(json.dumps(RECORD | unconfirmed))
    found = answer(usual_run[1], section(run))
    assert found.title == "60 requests per 60 s, possibly fixed window"
    assert "(possibly a fixed window)" in found.says
    assert unconfirmed["reason"] in found.open
    (run.path / "limits.json").write_text(json.dumps(RECORD))


def test_page_says_why_a_probe_stopped_early_and_how_to_continue_it(run: RunFolder) -> None:
    (run.path / "limits.json").write_text(json.dumps(RECORD | {"stopped": "it was interrupted"}))
    says = "the probe stopped early: it was interrupted (continue with --probe-resume made)"
    assert section(run).still_open == (says,)


def test_excess_in_the_best_minute_is_explained_by_the_algorithm(run: RunFolder) -> None:
    bucket = OBSERVED | {"family": "token_bucket", "limit": 20}
    for fit, why in (
        (OBSERVED, "per window · 60 s can span two"),
        (bucket, "per minute · plus a burst of 20"),
    ):
        (run.path / "limits.json").write_text(json.dumps(RECORD | {"observed": fit, "consistent": [fit]}))
        assert section(run).excess == why
    both = {"status": "ambiguous", "consistent": [OBSERVED, bucket]}
    (run.path / "limits.json").write_text(json.dumps(RECORD | both))
    assert section(run).excess is None
    (run.path / "limits.json").write_text(json.dumps(RECORD))


def test_page_counts_sufficient_waits_and_accurate_headers_once(usual_run: tuple[RunFolder, Summary]) -> None:
    html = usual_run[0].report_html.read_text(encoding="utf-8")
    found = section(usual_run[0])
    enough = found.record.headers.retry_enough
    assert enough.of
    stated = set(re.findall(r"(\d+ of \d+) (?:tested )?waits", html))
    assert stated <= {f"{enough.count} of {enough.of}"}
    assert "contradicts the Retry-After" not in html
    assert not re.search(r"Remaining (matched|fell)|fell by one", html)


def test_data_of_the_figures_is_written(probed: RunFolder) -> None:
    decided = pd.read_csv(probed.path / "figures" / "limits_decisions.csv")
    counts = pd.read_csv(probed.path / "figures" / "limits_bins.csv")
    for decision in ("accepted", "refused"):
        assert counts[f"observed_{decision}"].sum() == (decided["observed"] == decision).sum() > 0
    assert counts["differs"].sum() == (decided["observed"] != decided["predicted"]).sum()
    waits = pd.read_csv(probed.path / "figures" / "limits_retry_after.csv")
    assert len(waits) == (decided["observed"] == "refused").sum()
    assert pd.read_csv(probed.path / "figures" / "limits_remaining.csv")["answers"].sum() > 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "truncated"),
        (json.dumps(RECORD)[:-40], "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `findings_version`"),
        ('{"findings_version": 1}', "missing required field"),
        (json.dumps(RECORD | {"documented": 1}), "Expected `object`, got `int` - at `$.documented`"),
        (json.dumps(RECORD | {"observed": {"family": []}}), "at `$.observed.family`"),
        (json.dumps(RECORD | {"status": "sure"}), "Invalid enum value 'sure' - at `$.status`"),
        (json.dumps(RECORD | {"findings_version": 2}), "its findings_version is 2"),
    ],
)
def test_damaged_file_is_reported_and_the_attempts_are_used(
    text: str, reason: str, ordinary: RunFolder
) -> None:
    (ordinary.path / "limits.json").write_text(text)
    found = section(ordinary)
    assert found.damaged is not None
    assert reason in found.damaged
    assert not found.probed
    assert found.rows[0] == ("Requests", "60 per minute", "–", "at least 5 in 60 s")
    assert found.drawings == []


def test_page_of_a_damaged_file_names_reason_and_fix(ordinary: RunFolder) -> None:
    (ordinary.path / "limits.json").write_bytes(json.dumps(RECORD).encode().replace(b"made", b"\xff"))
    build(ordinary, formats=["html"])
    html = ordinary.report_html.read_text(encoding="utf-8")
    assert "limits.json is damaged:" in html
    assert "invalid start byte" in html
    assert "<code>bltybench limits " in html


def test_run_without_a_file_is_not_damaged(ordinary: RunFolder) -> None:
    assert section(ordinary).damaged is None


@pytest.mark.parametrize("error", [KeyError, TypeError, ValueError, AttributeError])
def test_drawing_error_propagates(
    error: type[Exception], probed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error("a bug")

    monkeypatch.setattr(section_module, "draw_all", broken)
    with pytest.raises(error, match="a bug"):
        limits_section(probed)


def test_run_with_only_refusals_has_evidence_without_a_model(tmp_path: Path) -> None:
    refused = [
        attempt(call_id=f"c{i}", sent_ns=i * S, outcome=Outcome.RATE_LIMITED, status=429) for i in range(5)
    ]
    found = section(write_run(tmp_path / "made", refused))
    assert found.rows[0][-1] == "all refused"
    (drawing,) = found.drawings
    assert drawing.says == "The API accepted 0 of 5 requests. No rate limiter fits its decisions."


def test_page_and_command_state_the_same_findings_of_a_long_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first minutes are quiet. The part with the recoveries begins within a window."""
    monkeypatch.setattr(run_limits, "MAX_ATTEMPTS", 200)
    quiet = [attempt_at(at_s, call_id="c") for at_s in range(150)]
    at_s = [150 + i / 4 for i in range(320)]
    busy = [attempt_at(t, "ok" if i % 40 < 25 else "rate_limited", call_id="c") for i, t in enumerate(at_s)]
    folder = write_run(tmp_path / "20261122-141510-made", quiet + busy)
    found = section(folder)
    limits(folder.path.name, tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads(encode(found.record))
    limits(folder.path.name, tmp_path)
    assert found.part is not None
    assert found.part in capsys.readouterr().out
    run = load(folder)
    assert f"Inferred from {found.part}." in page(run, summarize(run), draw_all(run), [], found)
    assert found.record.observed is not None
    assert (found.record.observed.limit, found.record.observed.period_s) == (25, 10.0)


def test_settings_keep_documented_limits_on_input_and_output_tokens(tmp_path: Path) -> None:
    one_sided = [Limit("input_tokens", 3000, 60.0), Limit("output_tokens", 2000, 60.0)]
    target = msgspec.structs.replace(manifest().target, limits=one_sided)
    sent = [
        attempt(call_id=f"c{i}", sent_ns=i * S, prompt_tokens=300, completion_tokens=100, max_tokens=100)
        for i in range(5)
    ]
    folder = write_run(tmp_path / "made", sent, about=manifest(target=target))
    run = load(folder)
    settings = client_settings(summarize(run), section(folder), run, trusted=True)
    assert settings is not None
    # Three quarters of a call are input, and a quarter is output.
    assert re.findall(r'\("tokens", (\d+), ', settings.text) == ["4000", "8000"]


def test_empty_run_has_no_section(tmp_path: Path) -> None:
    assert limits_section(write_run(tmp_path / "made", [], about=manifest())) is None


@pytest.mark.parametrize("span_s", [0.0, 0.7, 31.0, 100_000.0])
def test_bins_hold_every_attempt_and_are_at_most_130(span_s: float) -> None:
    at = np.array([3.0, 3.0 + span_s], dtype=np.float64)
    edges = bins(at)
    assert edges[0] <= at[0]
    assert at[1] < edges[-1]
    assert len(edges) <= 131
