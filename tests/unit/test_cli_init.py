from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bltybench.cli import main
from bltybench.scenario.file.scenario_file import load_book

ROOT = Path(__file__).parents[2]


def init(monkeypatch: pytest.MonkeyPatch, cwd: Path, *arguments: str) -> int:
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", ["bltybench", "init", *arguments])
    return main()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arguments", [(), ("here/and/there",)])
def test_a_new_folder_has_everything_to_start_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    assert init(monkeypatch, tmp_path, *arguments) == 0
    folder = tmp_path.joinpath(*arguments)
    written = files(folder)
    assert {
        "scenarios.toml",
        "locustfiles/mixed.py",
        "locustfiles/chat.py",
        "locustfiles/stream.py",
    } <= written
    assert not [name for name in written if "__pycache__" in name or "/." in name]
    assert load_book(folder / "scenarios.toml").default_scenario
    out = capsys.readouterr().out
    assert "locust -f locustfiles/mixed.py --headless" in out
    assert ("cd here/and/there" in out) == bool(arguments)


@pytest.mark.parametrize("taken", ["scenarios.toml", "locustfiles", "analysis"])
def test_nothing_is_overwritten_and_nothing_written_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    (tmp_path / taken).write_text("mine")
    assert init(monkeypatch, tmp_path) == 2
    assert files(tmp_path) == {taken}
    assert (tmp_path / taken).read_text() == "mine"
    assert f"{taken}" in capsys.readouterr().err


def test_a_link_that_leads_nowhere_is_in_the_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scenarios.toml").symlink_to(tmp_path / "elsewhere")
    assert init(monkeypatch, tmp_path) == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_where_the_folder_should_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert init(monkeypatch, tmp_path, "file") == 2
    assert "file" in capsys.readouterr().err
