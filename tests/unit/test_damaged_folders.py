"""Damaged run folders: a short part of the campaign ``benchmarks.damaged_folders``, and single kinds."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from benchmarks.damaged_folders import SAMPLE, play
from bltybench.cli import main
from bltybench.cli.run_line import run_lines

CASES = 30


def test_each_damaged_folder_gives_a_result_or_one_message() -> None:
    batch = play(0, CASES)
    assert batch.failures == []
    assert batch.cases == batch.counts.total() == CASES
    assert len(batch.counts) > 5


def run_command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bltybench", *arguments])
    # A command that opens a pipe would wait for its other end.
    signal.alarm(30)
    try:
        return main()
    finally:
        signal.alarm(0)


@pytest.mark.parametrize("name", ["manifest.json", "attempts.parquet", "generator.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop"])
def test_special_file_in_place_of_a_file_gives_one_line(
    tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SAMPLE, tmp_path / "good")
    folder = shutil.copytree(SAMPLE, tmp_path / "bad")
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path.name)
    lines = {line.run: line for line in run_lines(tmp_path)}
    assert lines["good"].problem is None
    if name != "generator.parquet":
        assert "cannot be read" in (lines["bad"].problem or "")
    for command in (("report", "bad", "--format", "json"), ("compare", "good", "bad")):
        code = run_command(*command, "--reports", str(tmp_path), monkeypatch=monkeypatch)
        err = capsys.readouterr().err
        assert code == 2, err
        assert err.startswith("bltybench: ")
        assert len(err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ('"ended_ns": ', "1" + "0" * 400),
        ('"ended_ns": ', "1000000000000000000"),
        ('"wall_ns": ', "9223372036854775807"),
        ('"duration_s": ', "1e18"),
        ('"workers": ', "-1"),
        ('"title": ', "[" * 100_000 + "]" * 100_000),
    ],
)
def test_extreme_value_in_a_manifest_gives_one_line(
    tmp_path: Path, key: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(SAMPLE, tmp_path / "bad")
    path = folder / "manifest.json"
    before, _, after = path.read_text(encoding="utf-8").partition(key)
    end = min(at for at in (after.find(",\n"), after.find("\n")) if at >= 0)
    path.write_text(before + key + value + after[end:], encoding="utf-8")
    for command in ("report", "limits"):
        code = run_command(command, "bad", "--reports", str(tmp_path), monkeypatch=monkeypatch)
        err = capsys.readouterr().err
        if command == "report" or key != '"duration_s": ':
            assert code == 2, err
            assert err.startswith("bltybench: ")
            assert len(err.splitlines()) <= 2
    assert len(run_lines(tmp_path)) == 1
