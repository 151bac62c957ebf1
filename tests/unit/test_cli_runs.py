"""``bltybench runs``: the list of runs, and damaged folders."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support_runs import S, attempt, manifest, write_run

from bltybench.cli import main
from bltybench.cli.run_line import run_lines, to_json
from bltybench.errors import UserError
from bltybench.runs.attempt import FORMAT_VERSION, Attempt, Outcome
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Clock, TargetInfo
from bltybench.runs.ownership import WriterLock
from bltybench.runs.sealing.seal import seal

START = datetime(2026, 11, 22, 14, 15, 10, tzinfo=UTC)


def made_attempts() -> list[Attempt]:
    refused = {"outcome": Outcome.RATE_LIMITED, "status": 429}
    failed = {"outcome": Outcome.SERVER_ERROR, "status": 500}
    kinds: list[dict[str, Any]] = [{}, {}, {}, refused, refused, failed]
    return [attempt(call_id=f"c{index}", sent_ns=index * S, **kind) for index, kind in enumerate(kinds)]


def make(reports: Path, name: str, *, after_s: float = 0, **about: Any) -> RunFolder:
    wall_ns = int((START + timedelta(seconds=after_s)).timestamp() * 1e9)
    made = manifest(run_id=name, clock=Clock(monotonic_ns=0, wall_ns=wall_ns), **about)
    return write_run(reports / name, made_attempts(), about=made)


def summary(*, valid: bool = True, passed: tuple[bool, ...] = (True, True)) -> bytes:
    checks = [{"metric": "attempts.count", "passed": value} for value in passed]
    return msgspec.json.encode({"valid": valid, "checks": checks, "run_id": "x"})


def test_finished_run_has_all_fields(tmp_path: Path) -> None:
    folder = make(tmp_path, "20261122-141510-made")
    seal(folder)
    folder.summary_json.write_bytes(summary(passed=(True, False, True)))
    (line,) = run_lines(tmp_path)
    assert json.loads(to_json([line])) == [
        {
            "run": "20261122-141510-made",
            "scenario": "made",
            "target": "sandbox",
            "started": "2026-11-22T14:15:10+00:00",
            "duration_s": 90.0,
            "attempts": 6,
            "accepted": 3,
            "refused": 2,
            "valid": True,
            "checks_passed": 2,
            "checks": 3,
            "imported": False,
            "active": False,
            "problem": None,
        }
    ]
    assert line.started_text() == "2026-11-22 14:15:10"
    assert line.duration_text() == "1 min 30 s"
    assert line.result_text() == "VALID, 2 of 3 checks"


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    for name, after_s in (("b", 10), ("a", 20), ("c", 0)):
        make(tmp_path, name, after_s=after_s)
    assert [line.run for line in run_lines(tmp_path)] == ["a", "b", "c"]


def test_killed_run_has_no_duration_and_no_report(tmp_path: Path) -> None:
    make(tmp_path, "killed", ended_ns=None, ended=None)
    (line,) = run_lines(tmp_path)
    assert (line.duration_s, line.duration_text(), line.attempts, line.problem) == (None, None, None, None)
    assert line.result_text() == "no report yet"


def test_active_run_is_marked_as_running(tmp_path: Path) -> None:
    folder = make(tmp_path, "live", ended_ns=None, ended=None)
    lock = WriterLock(folder.path)
    (line,) = run_lines(tmp_path)
    assert (line.active, line.result_text()) == (True, "running")
    lock.release()
    assert not run_lines(tmp_path)[0].active


def test_invalid_run_without_checks_is_marked_invalid(tmp_path: Path) -> None:
    folder = make(tmp_path, "slow")
    folder.summary_json.write_bytes(summary(valid=False, passed=()))
    assert run_lines(tmp_path)[0].result_text() == "INVALID"


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("manifest.json", b"{", "cannot be read"),
        ("manifest.json", None, "no manifest.json"),
        ("manifest.json", b'{"run_id": 1}', "cannot be read"),
        ("attempts.parquet", b"PAR1 and then nothing", "attempts.parquet cannot be read"),
        ("attempts.parquet", b"", "attempts.parquet cannot be read"),
        ("summary.json", b"[]", "summary.json cannot be read"),
        ("summary.json", b"\xff", "summary.json cannot be read"),
    ],
)
def test_damaged_folder_gives_the_problem_and_hides_no_other(
    tmp_path: Path, name: str, data: bytes | None, problem: str
) -> None:
    make(tmp_path, "good")
    broken = make(tmp_path, "broken")
    path = broken.path / name
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    lines = {line.run: line for line in run_lines(tmp_path)}
    assert problem in (lines["broken"].problem or "")
    assert lines["good"].problem is None


def test_newer_format_is_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "newer", format_version=FORMAT_VERSION + 1)
    assert "format version" in (run_lines(tmp_path)[0].problem or "")


def test_other_files_and_folders_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Runs land here.")
    (tmp_path / "notes").mkdir()
    assert run_lines(tmp_path) == []
    assert run_lines(tmp_path / "none") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_reports_folder_is_a_user_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o100)
    with pytest.raises(UserError, match="cannot be listed"):
        run_lines(tmp_path)


def shown(reports: Path, *more: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bltybench", "runs", "--reports", str(reports), *more])
    monkeypatch.setenv("COLUMNS", "60")
    return main()


def test_table_has_one_line_per_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seal(
        make(
            tmp_path, "20261122-141510-made", target=TargetInfo(name="[red]x\x1b[2J", base_url="http://a/v1")
        )
    )
    (make(tmp_path, "20261122-151510-bad").manifest_json).write_text("")
    assert shown(tmp_path, monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    head, first, second = out.strip().splitlines()
    assert head.split()[:3] == ["run", "scenario", "target"]
    assert first.split()[0] == "20261122-141510-made"
    assert "[red]x" in first
    assert "\x1b" not in out
    assert second.split()[0] == "20261122-151510-bad"
    assert "cannot be read" in second


def test_empty_list_suggests_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(tmp_path, monkeypatch=monkeypatch) == 0
    assert "locust -f locustfiles/mixed.py --headless" in capsys.readouterr().out
    assert shown(tmp_path, "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == []
