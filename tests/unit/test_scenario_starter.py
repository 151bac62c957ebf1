from __future__ import annotations

from pathlib import Path

import pytest

from bltybench.errors import UserError
from bltybench.scenario.file import starter

ROOT = Path(__file__).resolve().parents[2]


def test_checkout_uses_its_own_files() -> None:
    assert starter.starter_file("scenarios.toml") == ROOT / "scenarios.toml"
    assert starter.starter_file("locustfiles") == ROOT / "locustfiles"
    assert starter.starter_file("analysis") == ROOT / "analysis"


def test_package_uses_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "bltybench"
    (package / "starter").mkdir(parents=True)
    (package / "starter" / "scenarios.toml").touch()
    (tmp_path / "scenarios.toml").touch()
    monkeypatch.setattr(starter, "PACKAGE", package)
    assert starter.starter_file("scenarios.toml") == package / "starter" / "scenarios.toml"


def test_broken_installation_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "PACKAGE", tmp_path / "bltybench")
    with pytest.raises(UserError, match="the packaged analysis is missing"):
        starter.starter_file("analysis")
