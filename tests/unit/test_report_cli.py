"""``bltybench report``: output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_cli import invoke
from support_runs import generator_seconds, manifest, realistic, write_run

from bltybench.errors import UserError


def test_report_defaults_to_the_newest_run_and_exits_with_0_if_it_passes(tmp_path: Path) -> None:
    write_run(tmp_path / "20261121-090000-made", [])
    newest = write_run(tmp_path / "20261122-141510-made", realistic())
    code, out = invoke("report", tmp_path)
    assert code == 0
    assert "VALID the load generator was not the bottleneck" in out
    assert "✓ accepted.rpm >= 55" in out
    assert f"{newest.path.name}/report.html" in out
    assert newest.report_html.is_file()


def test_failed_check_exits_with_1_and_stdout_has_only_json(tmp_path: Path) -> None:
    checks = manifest().resolved | {"checks": {"refused.count": "== 0"}}
    write_run(tmp_path / "20261122-141510-made", realistic(), about=manifest(resolved=checks))
    code, out = invoke("report", tmp_path, "20261122", "--json", "--format", "json")
    assert code == 1
    assert json.loads(out)["checks"][0]["passed"] is False


@pytest.mark.parametrize(("asked", "code"), [(True, 1), (False, 0)])
def test_invalid_run_fails_if_the_scenario_checks_validity(asked: bool, code: int, tmp_path: Path) -> None:
    checks = manifest().resolved | {"checks": {"audit.valid": True} if asked else {}}
    stalled = generator_seconds(90, stall_us=900_000)
    write_run(
        tmp_path / "20261122-141510-made", realistic(), seconds=stalled, about=manifest(resolved=checks)
    )
    found, out = invoke("report", tmp_path, "--format", "junit")
    assert found == code
    assert "INVALID" in out
    assert "stalled for 900 ms" in out


def test_missing_run_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs here yet"):
        invoke("report", tmp_path)
