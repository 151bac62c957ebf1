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
def test_init_creates_all_starter_files(
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
def test_init_writes_nothing_if_a_file_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    (tmp_path / taken).write_text("mine")
    assert init(monkeypatch, tmp_path) == 2
    assert files(tmp_path) == {taken}
    assert (tmp_path / taken).read_text() == "mine"
    assert f"{taken}" in capsys.readouterr().err


def test_init_treats_a_dangling_link_as_existing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scenarios.toml").symlink_to(tmp_path / "elsewhere")
    assert init(monkeypatch, tmp_path) == 2
    assert not (tmp_path / "elsewhere").exists()


def test_init_names_a_file_in_place_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert init(monkeypatch, tmp_path, "file") == 2
    assert "file" in capsys.readouterr().err
