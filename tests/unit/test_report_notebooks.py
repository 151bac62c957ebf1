"""What notebooks say and show about runs with and without data, and the public functions that load runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support_runs import attempt_at, manifest, realistic, write_run

from bltybench import analysis
from bltybench.errors import UserError
from bltybench.metrics.analysis import Analysis
from bltybench.report.notebooks import cells, conclusions, display, limits, several_runs, what_if
from bltybench.runs.attempt import Attempt
from bltybench.runs.folder import RunFolder

RUN = "20261122-141510-made"


def made(path: Path, attempts: list[Attempt], name: str = RUN) -> RunFolder:
    return write_run(path / "reports" / name, attempts)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return analysis.load(made(tmp_path_factory.mktemp("busy"), realistic()).path)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    message = {"status": 401, "error_code": "invalid_api_key", "error_message": "Incorrect <b>key</b>"}
    attempts = [attempt_at(second, "client_error", call_id=f"c{second}", **message) for second in range(9)]
    return analysis.load(made(tmp_path_factory.mktemp("failed"), attempts).path)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return analysis.load(made(tmp_path_factory.mktemp("empty"), []).path)


def test_conclusions_contain_the_numbers_of_the_run(busy: Analysis) -> None:
    offered, refused = busy.count_of("offered"), busy.count_of("refused")
    says = conclusions.requests(busy)
    assert f"accepted {busy.count_of('accepted'):,} of {offered:,} requests and refused {refused:,}" in says
    assert "of the documented 60) in 60 s" in says
    assert f"{busy.best_of('total_tokens'):,.0f} (" in conclusions.tokens(busy)
    assert f"At most {busy.in_flight.max} of the documented 50 requests" in conclusions.in_flight(busy)
    assert "Half of the" in conclusions.latency(busy)


def test_littles_law_gives_the_mean_number_in_flight(busy: Analysis) -> None:
    says = conclusions.littles_law(busy)
    product, _, measured = says.partition("make ")[2].partition(" in flight; ")
    assert float(product) == pytest.approx(busy.in_flight.mean, abs=0.011)
    assert float(measured.removesuffix(" were.")) == pytest.approx(busy.in_flight.mean, abs=0.011)


def test_best_minute_above_the_limit_is_explained(tmp_path: Path) -> None:
    attempts = [attempt_at(second / 2, call_id=f"c{second}") for second in range(100)]
    says = conclusions.requests(analysis.load(made(tmp_path, attempts).path))
    assert "100 (166.7% of the documented 60)" in says
    assert "almost two windows' worth" in says


def test_every_conclusion_of_a_failed_run_gives_the_reason(failed: Analysis, tmp_path: Path) -> None:
    said = [conclusions.requests(failed), conclusions.tokens(failed), conclusions.latency(failed)]
    assert all(says.startswith("Nothing succeeded: 401 invalid_api_key (9 times)") for says in said)


def test_every_conclusion_of_an_empty_run_says_that_nothing_was_sent(empty: Analysis) -> None:
    said = [
        conclusions.requests(empty),
        conclusions.tokens(empty),
        conclusions.in_flight(empty),
        conclusions.latency(empty),
        conclusions.rate_limits(empty, None),
    ]
    assert set(said) == {conclusions.NOTHING_SENT}


def test_limits_of_runs_with_and_without_refusals(tmp_path: Path) -> None:
    refused = made(tmp_path / "refused", realistic())
    calm = made(tmp_path / "calm", [attempt_at(second, call_id=f"c{second}") for second in range(30)])
    found = analysis.rate_limits(refused.path)
    assert found is not None
    run = analysis.load(refused.path)
    assert "The server accepts 60 requests per " in conclusions.rate_limits(run, found)
    assert "at most 60 requests per minute" in limits.advice(run, found)[0]
    assert limits.properties(found)["property"].tolist()[0] == "Requests"
    assert {drawing.name for drawing in limits.drawings(found)} >= {"limits_evidence", "limits_retry_after"}
    run, found = analysis.load(calm.path), analysis.rate_limits(calm.path)
    assert "Nothing was refused" in conclusions.rate_limits(run, found)
    assert any("Nothing was refused" in line for line in limits.advice(run, found))
    assert limits.drawings(found) == []


def test_table_has_units_intervals_and_escaped_text() -> None:
    frame = pd.DataFrame(
        {
            "name": ["ttft", "<b>"],
            "n": [1234, 5],
            "p50": [183.4, None],
            "p50_low": [170.2, None],
            "p50_high": [201, None],
        }
    )
    html = display.table(frame, unit="ms", empty="")._repr_html_()
    assert "p50, ms" in html
    assert ">TTFT<" in html
    assert "183 (170–201)" in html
    assert "p50_low" not in html
    assert "1,234" in html
    assert "<b>" not in html
    assert "nan" not in html.lower()


def test_empty_table_is_a_sentence() -> None:
    html = display.table(pd.DataFrame({"p50": []}), empty="Nothing was refused.")._repr_html_()
    assert "Nothing was refused." in html
    assert "<table" not in html


def test_long_table_says_that_it_is_cut() -> None:
    html = display.table(pd.DataFrame({"n": range(40)}), empty="")._repr_html_()
    assert html.count("<tr>") == 1 + display.MAX_ROWS
    assert "The first 30 of 40 rows." in html


@pytest.mark.parametrize(
    ("column", "unit", "expected"),
    [
        ("latency_p50_ms", "ms", "Latency p50, ms"),
        ("covered_s", "", "Covered, s"),
        ("p95", "ms", "p95, ms"),
        ("status", "ms", "Status"),
        ("ttft_p95_ms", "", "TTFT p95, ms"),
        ("refused_share", "", "Refusal rate"),
    ],
)
def test_headings_have_units(column: str, unit: str, expected: str) -> None:
    assert cells.label(column, unit) == expected


def test_windows_count_every_request_once(busy: Analysis) -> None:
    counted = what_if.per_window(busy, 15)
    assert counted["offered"].sum() == len(busy.attempts)
    assert (counted[["accepted", "refused", "other"]].sum(axis=1) == counted["offered"]).all()
    assert counted["start_s"].tolist() == [15.0 * n for n in range(len(counted))]


def test_time_at_each_number_in_flight(tmp_path: Path) -> None:
    attempts = [attempt_at(at_s, call_id=f"c{at_s}", end_ns=10_000_000_000) for at_s in (0, 5)]
    run = analysis.load(made(tmp_path, attempts).path)
    assert what_if.time_at(run, [1, 2, 3])["lasted_s"].tolist() == [10.0, 5.0, 0.0]


def test_cost_at_given_prices(busy: Analysis) -> None:
    spent = busy.spent
    cost = (spent.prompt_tokens * 2 + spent.completion_tokens * 8) / 1e6
    assert f"cost {cost:,.4f}, or" in what_if.cost(busy, 2, 8)


def test_replay_of_the_limiter_that_made_the_run_decides_the_same_way(busy: Analysis) -> None:
    says = what_if.replay(busy, "fixed_window", 60, 60)
    known = busy.count_of("accepted") + busy.count_of("refused")
    assert f"of these {busy.count_of('offered')} requests" in says
    same = int(says.partition("Both decide ")[2].partition(" ")[0])
    assert same >= 0.97 * known


def test_cells_to_edit_work_without_data(empty: Analysis) -> None:
    assert what_if.per_window(empty, 15).empty
    assert what_if.time_at(empty, [1, 2]).empty
    assert "nothing to replay" in what_if.replay(empty, "token_bucket", 60, 60)
    assert "cost is unknown" in what_if.cost(empty, 1, 1)
    assert what_if.within(empty, 100).empty


def test_one_run_has_nothing_to_compare_with(busy: Analysis) -> None:
    several = several_runs.SeveralRuns([busy])
    assert "only one run" in several.conclusion()
    assert several.changes().empty
    assert several.drawings() == []


def test_worse_runs_and_their_metrics_are_named(tmp_path: Path) -> None:
    def run(name: str, latency_ns: int) -> Analysis:
        attempts = [
            attempt_at(n / 2, call_id=f"c{n}", end_ns=n * 500_000_000 + latency_ns + n % 7 * 1_000_000)
            for n in range(160)
        ]
        folder = write_run(tmp_path / "reports" / name, attempts)
        return analysis.load(folder.path)

    runs = [run("20261122-141510-made", 100_000_000), run("20261122-151510-made", 300_000_000)]
    several = several_runs.SeveralRuns(runs)
    assert "Compared with 2026-11-22 14:15:10, 20261122-141510-made, 2026-11-22" in several.conclusion()
    assert set(several.changes()["verdict"]) >= {"worse"}
    assert several_runs.overview(runs)["run"].tolist() == [one.manifest.run_id for one in runs]
    assert several_runs.attempts(runs)["run"].nunique() == 2
    assert several.drawings()


def test_runs_with_other_loads_are_only_shown_next_to_each_other(tmp_path: Path, busy: Analysis) -> None:
    about = manifest(run_id="20261122-161510-made", resolved=manifest().resolved | {"users": 3})
    other = write_run(tmp_path / "reports" / about.run_id, realistic(), about=about)
    several = several_runs.SeveralRuns([busy, analysis.load(other.path)])
    assert several.conclusion() == (
        "Compared with users 50, users 3 can't be judged: the runs differ in users (50 → 3)."
    )
    assert set(several.changes()["verdict"]) == {"not decided"}


def test_newest_run_is_loaded_from_a_directory_next_to_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"2026112{day}-141510-made" for day in range(1, 8)]
    for name in names:
        write_run(tmp_path / "reports" / name, [attempt_at(1)])
    (tmp_path / "analysis").mkdir()
    monkeypatch.delenv("BLTYBENCH_RUN", raising=False)
    for place in (tmp_path, tmp_path / "analysis"):
        monkeypatch.chdir(place)
        assert analysis.load().manifest.run_id == names[-1]
        assert [run.manifest.run_id for run in analysis.load_several()] == names[-5:]
    assert [run.manifest.run_id for run in analysis.load_several(names[:2])] == names[:2]
    monkeypatch.setenv("BLTYBENCH_RUN", str(tmp_path / "reports" / names[1]))
    assert analysis.load().manifest.run_id == names[1]
    assert [run.manifest.run_id for run in analysis.load_several()] == names[:2]


def test_damaged_earlier_run_is_skipped_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLTYBENCH_RUN", raising=False)
    made(tmp_path, [attempt_at(1)])
    damaged = tmp_path / "reports" / "20261121-141510-made"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{", encoding="utf-8")
    assert len(analysis.load_several()) == 1
    assert "20261121-141510-made" in caplog.text


def test_unknown_run_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such run"):
        analysis.load("20200101")
