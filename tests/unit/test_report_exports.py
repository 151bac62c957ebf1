"""Exports: Markdown, Prometheus text, the CI step summary, and the index."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support_cli import invoke
from support_runs import S, attempt, manifest, realistic, write_run

from bltybench.errors import UserError
from bltybench.report.build import build
from bltybench.runs.attempt import Outcome

HOSTILE = '<img src=x onerror=alert(1)> | [click](http://x.yz) @all www.x.yz `code` **b** \x1b[31m\n"q"\\'


def test_markdown_has_verdicts_and_numbers(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", realistic())
    summary = build(folder, formats={"md"})
    text = unescape(folder.summary_md.read_text(encoding="utf-8"))
    assert "made on sandbox: VALID, PASS (3 of 3 checks)" in text
    assert "| `accepted.rpm` | >= 55 |" in text
    assert f"| {summary.rates['accepted'].best_per_min:.0f} | 60 per minute |" in text
    assert "server_error 500 | 4 |" in text


def test_markdown_escapes_text_from_servers(tmp_path: Path) -> None:
    failed = attempt(
        outcome=Outcome.CLIENT_ERROR,
        status=400,
        error_type=HOSTILE,
        error_code=HOSTILE,
        error_message=HOSTILE,
    )
    about = manifest(run_id="run", resolved=manifest().resolved | {"model": HOSTILE})
    folder = write_run(tmp_path / "run", [failed], about=about)
    build(folder, formats={"md"})
    text = folder.summary_md.read_text(encoding="utf-8")
    for markup in ("<img", "](", "@all", "http:", "www.", "**b**", "`code`", "\x1b"):
        assert markup not in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(widths) == {4, 5}
    assert "click" in text


def test_prometheus_text_can_be_parsed(tmp_path: Path) -> None:
    about = manifest(run_id="run", resolved=manifest().resolved | {"model": HOSTILE})
    folder = write_run(tmp_path / "run", realistic(), about=about)
    summary = build(folder, formats={"prom"})
    families = list(text_string_to_metric_families(folder.metrics_prom.read_text(encoding="utf-8")))
    values = {
        (sample.name, *sorted(item for item in sample.labels.items() if item[0] not in {"run", "model"})): (
            sample.value,
            sample.labels["model"],
        )
        for family in families
        for sample in family.samples
    }
    where = (("scenario", "made"), ("target", "sandbox"))
    assert values["bltybench_valid", *where][0] == 1
    accepted = ("bltybench_attempts", ("fate", "accepted"), *where)
    assert values[accepted][0] == summary.rates["accepted"].count
    p50 = ("bltybench_latency_seconds", ("metric", "ttft"), ("quantile", "0.5"), *where)
    assert values[p50][0] == pytest.approx((summary.timings_ms["ttft"]["p50"] or 0) / 1000)
    # n is too small: omitted, not 0.
    assert ("bltybench_latency_seconds", ("metric", "ttft"), ("quantile", "0.99"), *where) not in values
    assert all(model.startswith("<img src=x onerror=alert(1)> | [click]") for _, model in values.values())
    assert all(model.endswith('"q"\\') for _, model in values.values())


def test_empty_run_is_written_in_every_format(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [], about=manifest(run_id="run"))
    invoke("report", tmp_path, "run", "--format", "html,csv,json,junit,md,parquet,prom")
    folder = tmp_path / "run"
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "report.html",
        "summary.json",
        "summary.md",
        "junit.xml",
        "metrics.prom",
        "attempts.parquet",
    }
    for name in ("summary.md", "metrics.prom"):
        assert "nan" not in (folder / name).read_text(encoding="utf-8").lower()


def test_only_requested_formats_are_written(tmp_path: Path) -> None:
    write_run(tmp_path / "run", realistic())
    code, out = invoke("report", tmp_path, "run", "--format", "json, junit")
    assert code == 0
    assert "Written to" in out
    written = {path.name for path in (tmp_path / "run").iterdir()}
    sealed = {".lock", "manifest.json", "attempts.parquet", "generator.parquet"}
    assert written == sealed | {"summary.json", "junit.xml"}


@pytest.mark.parametrize("given", ["pdf", "html,pdf", ","])
def test_unknown_format_is_a_user_error(given: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [])
    with pytest.raises(UserError, match="no such format"):
        invoke("report", tmp_path, "run", "--format", given)


def test_step_summary_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    folder = write_run(tmp_path / "runs" / "run", realistic())
    invoke("report", tmp_path / "runs", "run", "--format", "md")
    assert step.read_text(encoding="utf-8") == f"before\n{folder.summary_md.read_text(encoding='utf-8')}\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "step.md"))
    assert invoke("report", tmp_path / "runs", "run", "--format", "md")[0] == 0


def test_several_runs_get_an_index_with_links(tmp_path: Path) -> None:
    for name in ("a", "b #1"):
        write_run(tmp_path / name, realistic(30), about=manifest(run_id=name, ended_ns=30 * S))
    code, out = invoke("report", tmp_path, "a", "b #1")
    assert code == 1  # 30 s hold no 55 accepted
    assert "Index" in out
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="a/report.html"' in html
    assert 'href="b%20%231/report.html"' in html
    assert html.count("VALID") == 2
    with pytest.raises(UserError, match="--json supports one run only"):
        invoke("report", tmp_path, "a", "b #1", "--json")
