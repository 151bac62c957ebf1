"""``bltybench compare``: exit codes, JSON, the page, and errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pandas as pd
import pytest
from support_cli import invoke
from support_runs import S, attempt, generator_seconds, manifest, write_run
from typer.testing import CliRunner

from bltybench.cli.app import app
from bltybench.errors import UserError
from bltybench.runs.attempt import Outcome

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e{{ 7*7 }}"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two minutes: a base, an equal one, and others that differ in one way each."""
    folder = tmp_path_factory.mktemp("reports")
    usual: dict[str, Any] = {"took_s": 0.5, "fails": False, "calls": 480, "stall_us": 0, "keys": {}}
    runs: dict[str, dict[str, Any]] = {
        "base": {},
        "like": {},
        "slow": {"took_s": 1.0, "fails": True},
        "stalled": {"stall_us": 280_000},
        "stalled-slow": {"stall_us": 280_000, "took_s": 1.0, "fails": True},
        "few": {"calls": 40},
        "users": {"keys": {"users": 40}},
        "retry": {"keys": {"retry": {"policy": "backoff"}}},
        "retry-users": {"keys": {"retry": {"policy": "backoff"}, "users": 40}},
    }
    for name, other in runs.items():
        took_s, fails, calls, stall_us, keys = (usual | other).values()
        attempts = [
            attempt(
                call_id=f"c{i}",
                sent_ns=i * S // 4,
                end_ns=i * S // 4 + int((took_s + (i * 7 % 10) / 1000) * S),
                **({"outcome": Outcome.SERVER_ERROR, "status": 500} if fails and i % 5 == 0 else {}),
            )
            for i in range(calls)
        ]
        resolved = manifest().resolved | {"model": HOSTILE, "arrivals": {"kind": "closed"}} | keys
        about = manifest(run_id=name, ended_ns=calls * S // 4, resolved=resolved)
        seconds = generator_seconds(120)
        seconds[60] = msgspec.structs.replace(seconds[60], stall_us=stall_us)
        write_run(folder / name, attempts, seconds=seconds, about=about)
    return folder


def test_regression_exits_with_1_and_stdout_has_only_json(reports: Path) -> None:
    code, out = invoke("compare", reports, "base", "slow", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["comparison_version"] == 2
    assert found["regressed"] is True
    changes = {change["metric"]: change for change in found["candidates"][0]["changes"]}
    assert changes["latency.p50"]["verdict"] == "worse"
    assert changes["latency.p50"]["low"] > 0.9
    assert changes["ttft.p50"] | {"base": None, "verdict": "not decided"} == changes["ttft.p50"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A comparison, and what the policy of docs/cli.md makes of it."""

    given: tuple[str, ...]
    verdict: str
    stamp: str
    code: int = 0
    strict: int
    case: tuple[str | None, str | None]
    """Element in the case of the whole comparison, without and with --strict."""


ROWS = {
    "same": Row(
        given=("base", "like"), verdict="pass", stamp="NO REGRESSION SHOWN", strict=0, case=(None, None)
    ),
    "worse": Row(given=("base", "slow"), verdict="fail", stamp="WORSE", code=1, strict=1, case=(None, None)),
    "too short": Row(
        given=("base", "few"),
        verdict="not decided",
        stamp="NOTHING DECIDED",
        strict=1,
        case=("skipped", "failure"),
    ),
    "invalid": Row(
        given=("base", "stalled"), verdict="invalid", stamp="INVALID", strict=1, case=("skipped", "failure")
    ),
    "invalid timing, worse errors": Row(
        given=("base", "stalled-slow"), verdict="fail", stamp="WORSE", code=1, strict=1, case=(None, None)
    ),
    "invalid allowed": Row(
        given=("base", "stalled", "--allow-invalid"),
        verdict="pass",
        stamp="NO REGRESSION SHOWN",
        strict=0,
        case=(None, None),
    ),
    "unlike": Row(
        given=("base", "users"),
        verdict="not comparable",
        stamp="NOT COMPARABLE",
        code=2,
        strict=2,
        case=("error", "error"),
    ),
    "unlike before worse": Row(
        given=("base", "slow", "users"),
        verdict="not comparable",
        stamp="NOT COMPARABLE",
        code=2,
        strict=2,
        case=(None, None),
    ),
    "varied": Row(
        given=("base", "retry", "--vary", "retry"),
        verdict="pass",
        stamp="NO REGRESSION SHOWN",
        strict=0,
        case=(None, None),
    ),
    "varied, and more": Row(
        given=("base", "retry-users", "--vary", "retry"),
        verdict="not comparable",
        stamp="NOT COMPARABLE",
        code=2,
        strict=2,
        case=("error", "error"),
    ),
    "not varied": Row(
        given=("base", "like", "--vary", "retry"),
        verdict="not comparable",
        stamp="NOT COMPARABLE",
        code=2,
        strict=2,
        case=("error", "error"),
    ),
}


def outcome(reports: Path, *arguments: str) -> tuple[int, str]:
    """Return the exit code, with 2 for a UserError as in the command line, and stdout."""
    result = CliRunner().invoke(app, ["compare", "--reports", str(reports), *arguments])
    return (2 if isinstance(result.exception, UserError) else result.exit_code), result.stdout


WITH_PAGE = ("same", "worse", "too short", "invalid", "unlike")
"""Rows whose page is drawn, one per verdict: a page takes seconds of CPU time."""


@pytest.mark.parametrize("name", ROWS)
def test_verdict_is_the_same_everywhere(name: str, reports: Path, tmp_path: Path) -> None:
    row, junit, page = ROWS[name], tmp_path / "junit.xml", tmp_path / "page.html"
    options = ["--html", str(page)] if name in WITH_PAGE else []
    code, out = outcome(reports, *row.given, "--junit", str(junit), *options)
    assert code == row.code
    assert row.stamp in out
    assert "504 ms" in out
    assert not options or row.stamp in page.read_text(encoding="utf-8")
    assert_junit(junit, row, strict=False)
    code, out = outcome(reports, *row.given, "--json", "--junit", str(junit), "--strict")
    assert code == row.strict
    found = json.loads(out)
    assert (found["verdict"], found["failed"]) == (row.verdict, row.strict == 1)
    assert_junit(junit, row, strict=True)
    for candidate in found["candidates"]:
        changes = {change["metric"]: change for change in candidate["changes"]}
        for metric in ("latency.p50", "latency.p99", "accepted.per_min", "refused.share", "calls.ok_share"):
            assert changes[metric]["base"] is not None, metric
            assert changes[metric]["candidate"] is not None, metric
        assert all(change["why"] for change in changes.values() if change["verdict"] == "not decided")


def assert_junit(path: Path, row: Row, *, strict: bool) -> None:
    """Fail unless the suites have a failure for exit code 1, and an error for exit code 2."""
    suites = ElementTree.fromstring(path.read_bytes())  # noqa: S314 - written by this program
    code, element = (row.strict if strict else row.code), row.case[strict]
    assert suites[0][0].attrib["name"] == "the comparison is decided"
    assert [part.tag for part in suites[0][0]] == ([element] if element else [])
    totals = {name: sum(int(suite.attrib[name]) for suite in suites) for name in ("failures", "errors")}
    assert bool(totals["errors"]) == (code == 2)
    assert bool(totals["failures"]) == (code == 1 or "slow" in row.given)


def test_metrics_that_the_generator_affected_are_invalid_and_the_others_are_judged(reports: Path) -> None:
    _, out = outcome(reports, "base", "stalled", "--json")
    changes = {change["metric"]: change for change in json.loads(out)["candidates"][0]["changes"]}
    assert changes["latency.p50"]["verdict"] == "invalid"
    assert changes["latency.p50"]["why"].startswith("stalled is INVALID: ")
    assert changes["latency.p50"]["remedy"]
    assert changes["errors.share"]["verdict"] == "same"


def test_undecided_metric_names_what_would_decide_it(reports: Path) -> None:
    code, out = invoke("compare", reports, "base", "few")
    assert code == 0
    assert (
        "the candidate lasted 10 s after the warm-up, too short for an interval; run for at least 60 s" in out
    )
    assert "the candidate has 40 of the 1,000 values that p99 needs; run 25 times as long" in out
    assert "No values on either side: ttft.p50" in out


def test_unlike_runs_give_one_sentence_with_the_option_that_allows_them(reports: Path) -> None:
    with pytest.raises(UserError) as found:
        invoke("compare", reports, "base", "retry-users")
    message = str(found.value)
    assert "the runs differ in retry.policy (retry_after → backoff) and users (50 → 40)" in message.replace(
        "retry.max_attempts (2 → 3), ", ""
    ).replace(", and users", " and users")
    assert "--vary retry,users" in message
    assert invoke("compare", reports, "base", "retry-users", "--vary", "retry,users")[0] == 0


def test_unlike_runs_are_not_judged_in_any_row(reports: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(UserError):
        invoke("compare", reports, "base", "users", "--html", str(page))
    rows = page.read_text(encoding="utf-8").partition("<tbody>")[2].partition("</tbody>")[0]
    assert "not judged" in rows
    assert "not decided" not in rows


def test_regression_within_the_tolerance_exits_with_0(reports: Path) -> None:
    assert (
        invoke("compare", reports, "base", "slow", "--tolerance", "200%", "--tolerance-share", "50%")[0] == 0
    )


def test_page_has_both_sides_and_escapes_their_text(reports: Path, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    invoke("compare", reports, "base", "like", "slow", "--html", str(page))
    html = page.read_text(encoding="utf-8")
    assert html.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\x1b" not in html
    assert "{{ 7*7 }}" in html
    _, _, reasons = html.partition("What would decide the others")
    assert "<b>Call latency p99, attempt latency p99</b>: the base has 480 of the 1,000 values" in reasons
    assert html.count("Nothing was refused: the server accepted all 480 requests") == 2
    assert html.count("<svg ") == 2 * (2 + 2 + 1)
    data = tmp_path / "compare-figures"
    assert sorted(path.name for path in data.iterdir()) == [
        "changes-0.csv",
        "changes-1.csv",
        "fractions-0.csv",
        "fractions-1.csv",
        "overlay-latency.csv",
    ]
    assert all(f'href="compare-figures/{path.name}"' in html for path in data.iterdir())
    changes = pd.read_csv(data / "changes-1.csv").set_index("metric")
    slow, base = (float(changes[side]["latency.p50"]) for side in ("candidate", "base"))
    assert slow > base
    before = {path: path.read_bytes() for path in [page, *data.iterdir()]}
    invoke("compare", reports, "base", "like", "slow", "--html", str(page))
    assert {path: path.read_bytes() for path in before} == before
    assert page.stat().st_size < 3_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "base"], "base is named twice"),
        (["base", "nothing"], "no such run: 'nothing'"),
        (["base", ","], "no such run"),
        (["base,users", "like"], r"repeats of one side must have the same load, but .* users \(50 → 40\)"),
        (["base", "like", "--vary", "retries"], "no key that affects the load"),
        (["base", "like", "--vary", "checks"], "no key that affects the load"),
        (["base", "like", "--label", "one"], "1 label for 2 sides"),
        (["base", "like", "--junit", "/nowhere/x.xml"], "can't be written"),
        (["base", "like", "--tolerance", "5"], "must be a percentage"),
        (["base", "like", "--html", "/nowhere/x.html"], "can't be written"),
    ],
)
def test_impossible_comparison_is_a_user_error(reports: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        invoke("compare", reports, *arguments)
