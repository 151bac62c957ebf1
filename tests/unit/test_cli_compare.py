"""``bltybench compare``: exit codes, JSON, the page, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import typer
from support_runs import S, attempt, generator_seconds, manifest, write_run
from typer.testing import CliRunner

from bltybench.cli.compare import compare
from bltybench.errors import UserError
from bltybench.runs.attempt import Outcome

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e{{ 7*7 }}"

app = typer.Typer()
app.command()(compare)


def invoke(reports: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--reports", str(reports), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of two minutes: a base, an equal one, and one that is twice as slow and has errors."""
    folder = tmp_path_factory.mktemp("reports")
    for name, took_s, fails in (("base", 0.5, False), ("like", 0.5, False), ("slow", 1.0, True)):
        attempts = [
            attempt(
                call_id=f"c{i}",
                sent_ns=i * S // 4,
                end_ns=i * S // 4 + int((took_s + (i * 7 % 10) / 1000) * S),
                **({"outcome": Outcome.SERVER_ERROR, "status": 500} if fails and i % 5 == 0 else {}),
            )
            for i in range(480)
        ]
        about = manifest(run_id=name, ended_ns=120 * S, resolved=manifest().resolved | {"model": HOSTILE})
        write_run(folder / name, attempts, seconds=generator_seconds(120), about=about)
    return folder


def test_regression_exits_with_1_and_stdout_has_only_json(reports: Path) -> None:
    code, out = invoke(reports, "base", "slow", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["comparison_version"] == 1
    assert found["regressed"] is True
    changes = {change["metric"]: change for change in found["candidates"][0]["changes"]}
    assert changes["latency.p50"]["verdict"] == "worse"
    assert changes["latency.p50"]["low"] > 0.9
    assert changes["ttft.p50"]["verdict"] == "cannot tell"


def test_no_regression_exits_with_0(reports: Path) -> None:
    code, out = invoke(reports, "base", "like")
    assert code == 0
    assert "NO REGRESSION SHOWN" in out
    assert "latency.p50" in out


def test_regression_within_the_tolerance_exits_with_0(reports: Path) -> None:
    assert invoke(reports, "base", "slow", "--tolerance", "200%", "--tolerance-share", "50%")[0] == 0


def test_page_has_both_sides_and_escapes_their_text(reports: Path, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    invoke(reports, "base", "like", "slow", "--html", str(page))
    html = page.read_text(encoding="utf-8")
    assert html.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\x1b" not in html
    assert "{{ 7*7 }}" in html
    assert html.count("<svg ") == 2 * (2 + 1)
    data = tmp_path / "compare-figures"
    assert sorted(path.name for path in data.iterdir()) == [
        "changes-0.csv",
        "changes-1.csv",
        "overlay-latency.csv",
    ]
    assert all(f'href="compare-figures/{path.name}"' in html for path in data.iterdir())
    changes = pd.read_csv(data / "changes-1.csv").set_index("metric")
    slow, base = (float(changes[side]["latency.p50"]) for side in ("candidate", "base"))
    assert slow > base
    before = {path: path.read_bytes() for path in [page, *data.iterdir()]}
    invoke(reports, "base", "like", "slow", "--html", str(page))
    assert {path: path.read_bytes() for path in before} == before
    assert page.stat().st_size < 3_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "base"], "base is named twice"),
        (["base", "nothing"], "no such run: 'nothing'"),
        (["base", ","], "no such run"),
        (["base", "like", "--tolerance", "5"], "must be a percentage"),
        (["base", "like", "--html", "/nowhere/x.html"], "can't be written"),
    ],
)
def test_impossible_comparison_is_a_user_error(reports: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        invoke(reports, *arguments)
