"""A disk that fills up during a run: the run ends with one message, and what was written is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_cli import bltybench
from support_locust import LOCUSTFILES, run_locust, write_scenarios
from support_sandbox import running_sandbox

from bltybench.runs.folder import list_runs
from bltybench.runs.store import read_attempts
from bltybench.scenario.target import SANDBOX_KEY

LONG = """
duration_s = 60
users = 8
arrivals = { kind = "closed", think_s = 0.05 }
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 128 KiB."""
    path = tmp_path / "reports"
    path.mkdir()
    if os.geteuid() != 0 or change_mounts("mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(path)):
        pytest.skip("needs the right to mount a file system")
    yield path
    assert change_mounts("umount", "--lazy", str(path)) == 0


def change_mounts(command: str, *arguments: str) -> int:
    """Run ``mount`` or ``umount`` and return its exit code."""
    found = shutil.which(command)
    return 127 if found is None else subprocess.run([found, *arguments], check=False).returncode


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_full_disk_ends_the_run_and_loses_nothing_already_written(
    tmp_path: Path, small_disk: Path, processes: tuple[str, ...]
) -> None:
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, LONG)
        done = run_locust(LOCUSTFILES / "chat.py", *processes, cwd=tmp_path, BLTYBENCH_TEST_KEY=SANDBOX_KEY)
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    assert done.output.count("records can't be written: No space left on device") == 1
    assert "everything already written is kept" in done.output
    (run,) = list_runs(small_disk)
    lines = sum(path.read_bytes().count(b"\n") for path in run.attempts_spool.glob("*.jsonl"))
    assert lines > 100

    full = bltybench("report", run.path.name, "--format", "json", cwd=tmp_path)
    assert full.returncode == 2, full.stdout
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    assert sum(path.read_bytes().count(b"\n") for path in run.attempts_spool.glob("*.jsonl")) == lines

    assert change_mounts("mount", "-o", "remount,size=64m", str(small_disk)) == 0
    reported = bltybench("report", run.path.name, "--format", "json", cwd=tmp_path)
    assert reported.returncode in {0, 1}, reported.stderr
    assert read_attempts(run).num_rows == lines
    assert not run.attempts_spool.exists()
