"""Complete reports of synthetic runs: page, summary, JUnit, and the figures' data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support_runs import S, attempt, generator_seconds, manifest, realistic, write_run

from bltybench.report.build import build
from bltybench.report.export.markdown import plain
from bltybench.report.notebooks.cells import cell, is_part_of_a_cell
from bltybench.report.summary import Summary
from bltybench.runs.attempt import Attempt, Outcome, TokensSource
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Manifest
from bltybench.runs.trials.search import SearchResult
from bltybench.text import MAX_MESSAGE_CHARS

HOSTILE = (
    "<script>alert(1)</script>\x1b[31m\x00\u202e\"'><img src=x onerror=alert(2)>{{ 7*7 }}" + "A" * 10_000
)


class Page(HTMLParser):
    """Collects elements, their attributes, and text."""

    VOID = frozenset({"meta", "link", "br", "img", "path", "use", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.text += data


def report(
    path: Path, attempts: list[Attempt], about: Manifest | None = None, *, audited: bool = True
) -> tuple[RunFolder, Summary, Page]:
    seconds = generator_seconds(90) if audited else []
    folder = write_run(path / "20261122-141510-made", attempts, seconds=seconds, about=about)
    summary = build(folder)
    return folder, summary, Page(folder.report_html.read_text(encoding="utf-8"))


NO_CHECKS = manifest().resolved | {"checks": {}}


def refusals(count: int) -> list[Attempt]:
    return [
        attempt(
            call_id=f"c{i}",
            sent_ns=i * S // 2,
            end_ns=i * S // 2 + S // 200,
            outcome=Outcome.RATE_LIMITED,
            status=429,
        )
        for i in range(count)
    ]


KINDS = {
    "empty": [],
    "all refused": refusals(200),
    "one attempt": [attempt()],
    "one that failed": [attempt(outcome=Outcome.TIMEOUT, status=None)],
    "one never sent": [attempt(sent_ns=None, end_ns=5, outcome=Outcome.TRANSPORT_ERROR, status=None)],
}


@pytest.fixture(scope="module")
def usual(usual_run: tuple[RunFolder, Summary]) -> tuple[RunFolder, Summary, Page]:
    """A realistic run with its page, for tests that only read it."""
    folder, summary = usual_run
    return folder, summary, Page(folder.report_html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Summary, Page]:
    """A run without acceptances, with its page."""
    return report(tmp_path_factory.mktemp("refused"), KINDS["all refused"])


@pytest.mark.parametrize("kind", ["realistic", *KINDS])
def test_page_is_complete_for_every_kind_of_run(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shared = {"realistic": "usual", "all refused": "refused"}
    made = request.getfixturevalue(shared[kind]) if kind in shared else report(tmp_path, KINDS[kind])
    folder, summary, page = made
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for section in ("verdict", "run", "limits", "latency", "errors", "audit", "method"):
        assert section in ids
    drawn = [attrs for tag, attrs in page.tags if tag == "svg"]
    # Timeline, latency, and the figures of limits that the refusals support.
    figures = {"realistic": 5, "empty": 0, "all refused": 2, "one attempt": 2}
    assert len(drawn) == 2 * figures.get(kind, 1)
    assert all(attrs["aria-label"] for attrs in drawn)
    for attrs in (attrs for tag, attrs in page.tags if tag == "figure"):
        shown = json.loads(attrs["data-hover"] or "{}")
        assert shown["labels"]
        assert all(len(values) == len(shown["labels"]) for values in shown["columns"].values())
    assert not re.search(r"\b(nan|None|NaT|<NA>|inf)\b", page.text)
    assert summary.attempts == len(KINDS.get(kind, realistic()))
    assert json.loads(folder.summary_json.read_bytes())["run_id"] == "20261122-141510-made"


def test_page_loads_nothing_from_the_network(usual: tuple[RunFolder, Summary, Page]) -> None:
    folder, _, page = usual
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert re.fullmatch(r"#.*|data:.*|figures/\w+\.csv", attrs.get(name) or "#"), attrs
    html = folder.report_html.read_text(encoding="utf-8")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_same_run_gives_the_same_bytes(usual: tuple[RunFolder, Summary, Page]) -> None:
    folder, _, _ = usual
    first = [path.read_bytes() for path in sorted(folder.path.rglob("*")) if path.is_file()]
    build(folder)
    again = [path.read_bytes() for path in sorted(folder.path.rglob("*")) if path.is_file()]
    assert first == again


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    hostile = attempt(
        outcome=Outcome.CLIENT_ERROR,
        status=400,
        error_type=HOSTILE,
        error_code=HOSTILE,
        error_message=HOSTILE[:MAX_MESSAGE_CHARS],
        model=HOSTILE,
        header_dialect=HOSTILE,
        stage=HOSTILE,
    )
    other = [attempt(call_id=f"m{i}", model=HOSTILE + str(i), stage=HOSTILE + str(i)) for i in range(2)]
    resolved = manifest().resolved | {"title": HOSTILE, "answers": HOSTILE, "model": HOSTILE}
    about = manifest(resolved=resolved, command=["locust", HOSTILE])
    folder, _, page = report(tmp_path, [hostile, *other], about)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(tag == "img" or "onerror" in attrs for tag, attrs in page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    for unseen in ("\x1b", "\x00", "\u202e", "A" * 1001):
        assert unseen not in page.text
    assert folder.report_html.stat().st_size < 3_000_000
    ET.fromstring(folder.junit_xml.read_bytes())  # noqa: S314  # our own file


def test_interrupted_run_shows_its_duration(tmp_path: Path) -> None:
    about = manifest(ended_ns=31 * S, ended="interrupted")
    attempts = [row for row in realistic() if row.end_ns < 31 * S]
    _, summary, page = report(tmp_path, attempts, about)
    assert "31 s of 90 s (interrupted)" in page.text
    assert summary.valid


def test_killed_run_is_invalid_with_the_reason(tmp_path: Path) -> None:
    _, summary, page = report(tmp_path, realistic(30), manifest(ended_ns=None, ended=None))
    assert not summary.valid
    assert "INVALID" in page.text
    assert "The run was killed" in page.text
    assert "(killed)" in page.text
    assert not summary.passed  # it asks for audit.valid


def test_page_describes_refusals_in_a_sentence(
    refused: tuple[RunFolder, Summary, Page], tmp_path: Path
) -> None:
    _, summary, page = refused
    assert summary.rates["refused"].best_per_min == 120
    assert summary.refused_share == 1
    assert "the server accepted no request" in page.text
    _, _, clean = report(tmp_path / "b", [attempt(call_id=f"c{i}", sent_ns=i * S) for i in range(30)])
    assert "Nothing was refused: all 30 requests were accepted" in clean.text


def test_capacity_search_has_its_result_as_title(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", realistic(), about=manifest(resolved=NO_CHECKS))
    found = SearchResult(
        load="rate", objectives={"refused.share": "<= 1%"}, precision=0.05, confirm=2, holds=57.0, fails=60.5,
        ended="found", requests=400, trials=[],
    )  # fmt: skip
    folder.search_json.write_bytes(msgspec.json.encode(found))
    build(folder)
    page = Page(folder.report_html.read_text(encoding="utf-8"))
    assert "57 calls per minute meet the objectives" in page.text
    assert "At most 57 calls per minute, one every 1.06 s: the highest load that met" in page.text
    assert page.text.count(found.sentence()) == 1  # beside the trials
    assert plain(found.sentence()) in folder.summary_md.read_text(encoding="utf-8")


def test_run_without_newer_columns_has_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "old", realistic())
    build(folder, formats={"parquet"})
    rows = pq.read_table(folder.attempts_parquet)
    old = ["gaps_us", "coalesced_events", "observer_lag_us", "stamp", "stage", "first_output_ns"]
    pq.write_table(rows.drop_columns(old), folder.attempts_parquet)
    summary = build(folder)
    page = Page(folder.report_html.read_text(encoding="utf-8"))
    assert summary.timings_ms["itl"]["n"] == summary.timings_ms["first_output"]["n"] == 0
    assert summary.timings_ms["ttft"]["n"] == sum(
        bool(row.outcome == "ok" and row.stream) for row in realistic()
    )
    assert not re.search(r"\b(nan|None|NaT|<NA>|inf)\b", page.text)


def test_page_marks_ttft_that_is_an_upper_bound(tmp_path: Path) -> None:
    times = {"first_token_ns": S // 5, "first_token_coalesced": True, "gaps_us": [], "end_ns": S}
    streams = [attempt(call_id=f"c{number}", stream=True, **times) for number in range(20)]
    folder, summary, page = report(tmp_path, streams, manifest(resolved=NO_CHECKS))
    assert summary.timings_ms["ttft"]["at_most"]
    assert "TTFT, at most" in page.text  # the tile
    assert page.text.count("at most 200 ms") == 2  # p50 and the maximum
    assert "20 first tokens shared a read with a later event" in page.text
    assert "| TTFT p50, p95 | at most 200 ms, – (n 20) |" in folder.summary_md.read_text(encoding="utf-8")
    shown = cell("p50", {"p50": 200.0, "at_most": True})
    assert (shown, cell("n", {"n": 20, "at_most": True})) == ("at most 200", "20")
    assert is_part_of_a_cell("at_most", [])


@pytest.mark.parametrize("source", [TokensSource.USAGE, TokensSource.TOKENIZER, TokensSource.EVENTS])
def test_page_marks_token_rates_that_contain_estimates(tmp_path: Path, source: TokensSource) -> None:
    attempts = [attempt(call_id=f"c{i}", tokens_source=source) for i in range(3)]
    _, _, page = report(tmp_path, attempts, manifest(resolved=NO_CHECKS))
    estimated = source is not TokensSource.USAGE
    assert (" · estimated" in page.text) == estimated
    assert ("estimated for 3 attempts" in page.text) == estimated


def test_junit_has_a_case_for_the_audit_and_each_check(refused: tuple[RunFolder, Summary, Page]) -> None:
    folder, summary, _ = refused
    suite = ET.fromstring(folder.junit_xml.read_bytes())[0]  # noqa: S314  # our own file
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert suite.get("tests") == str(len(summary.checks) + 1) == str(len(suite))
    assert suite.get("failures") == str(len(failed))
    assert "accepted.rpm >= 55" in failed


def test_figure_data_adds_up_to_the_attempts(usual: tuple[RunFolder, Summary, Page]) -> None:
    folder, summary, _ = usual
    bins = pd.read_csv(folder.path / "figures" / "timeline.csv")
    assert bins["offered"].sum() == summary.attempts
    assert bins[["accepted", "refused", "other"]].sum(axis=None) == summary.attempts
    curve = pd.read_csv(folder.path / "figures" / "latency.csv")
    assert curve.groupby("metric")["share"].max().tolist() == [1.0] * 4


def test_stairs_show_the_knee(tmp_path: Path) -> None:
    resolved = manifest().resolved | {
        "arrivals": {"kind": "stairs", "rates_per_min": [60, 120, 240]},
        "duration_s": 90.0,
    }
    made = [
        attempt(
            call_id=f"{stage}-{i}",
            stage=f"{60 * stage}/min",
            sent_ns=(place * 30 * S) + i * S // stage,
            outcome=Outcome.OK if i % stage < 2 else Outcome.RATE_LIMITED,
            status=200 if i % stage < 2 else 429,
            end_ns=(place * 30 * S) + i * S // stage + S // 10,
        )
        for place, stage in enumerate((1, 2, 4))
        for i in range(30 * stage)
    ]
    folder, summary, page = report(tmp_path, made, manifest(resolved=resolved))
    assert "The knee is between 120 and 240 calls per minute" in page.text
    assert summary.capacity is not None
    points = pd.read_csv(folder.path / "figures" / "capacity.csv")
    assert points["accepted_per_min"].tolist() == [60, 120, 120]
    sections = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    wanted = ["run", "capacity", "limits", "retries", "latency", "workload", "errors", "audit", "method"]
    assert [row for row in sections if row in wanted] == wanted
    assert any(tag == "figure" and attrs.get("id") == "loads" for tag, attrs in page.tags)


def test_burst_does_not_flatten_the_figure(tmp_path: Path) -> None:
    burst = [attempt(call_id=f"b{i}", sent_ns=30 * S + i, end_ns=31 * S + i) for i in range(100)]
    folder, _, page = report(tmp_path, burst)
    assert "cut off, up to 1,200" in page.text
    assert pd.read_csv(folder.path / "figures" / "timeline.csv")["offered"].max() == 100
