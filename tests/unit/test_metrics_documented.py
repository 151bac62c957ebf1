"""Documented limits compared with hand-computed runs, and on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_runs import S, attempt, manifest, write_run

from bltybench.metrics.analysis import load
from bltybench.report.build import build
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import TargetInfo
from bltybench.scenario.api.documented_limits import Limit


def run(path: Path, *limits: Limit) -> RunFolder:
    """Write a run with three requests in one second, and one 20 s later."""
    sent_s = (1.0, 1.2, 1.4, 21.4)
    attempts = [
        attempt(call_id=f"c{at}", sent_ns=int(at * S), due_ns=int(at * S), end_ns=int((at + 0.5) * S),
                prompt_tokens=100, completion_tokens=10)
        for at in sent_s
    ]  # fmt: skip
    target = TargetInfo(name="a", base_url="http://127.0.0.1:1/v1", limits=[*limits])
    return write_run(path / "run", attempts, about=manifest(target=target))


@pytest.mark.parametrize(
    ("limit", "highest", "until_s", "share"),
    [
        (Limit("requests", 2, 1.0), 3, 1.4, 1.5),
        (Limit("requests", 4, 60.0), 4, 21.4, 1.0),
        (Limit("requests", 8, 86_400.0), 4, 21.4, 0.5),
        (Limit("requests", 3, 20.0), 3, 1.4, 1.0),  # a window of 20 s excludes its start
        (Limit("input_tokens", 400, 1.0), 300, 1.4, 0.75),
        (Limit("output_tokens", 100, 0.3), 20, 1.7, 0.2),
        (Limit("tokens", 880, 60.0), 440, 21.9, 0.5),
        (Limit("concurrency", 6), 3, 1.4, 0.5),
    ],
)
def test_most_of_any_period_is_compared_with_its_limit(
    tmp_path: Path, limit: Limit, highest: float, until_s: float, share: float
) -> None:
    [row] = load(run(tmp_path, limit)).documented
    assert (row.words, row.highest, row.share) == (limit.words, highest, share)
    assert row.until_s == pytest.approx(until_s)


def test_page_shows_every_documented_limit_with_its_use(tmp_path: Path) -> None:
    limits = (Limit("requests", 2, 1.0), Limit("requests", 90, 86_400.0), Limit("input_tokens", 800, 60.0))
    folder = run(tmp_path, *limits)
    summary = build(folder, formats=["html", "md"])
    page = folder.report_html.read_text(encoding="utf-8")
    assert "limit 2 requests per second, at most 3" in page  # the tile has the limit that was used most
    for words in ("2 requests per second", "90 requests per day", "800 input tokens per minute"):
        assert f'<th scope="row">{words}</th>' in page
    assert "limit 90 per day, on average" in page  # legend of the timeline
    assert "limit 800 input tokens per minute" in page
    assert "At most 2 requests per second and 90 requests per day, one every 500 ms, as documented" in page
    assert [(row.what, row.highest) for row in summary.documented_limits] == [
        ("requests", 3), ("requests", 4), ("input_tokens", 400)
    ]  # fmt: skip
    markdown = folder.summary_md.read_text(encoding="utf-8")
    assert "| accepted, best 60 s | 4 | 2 per second, 90 per day |" in markdown
