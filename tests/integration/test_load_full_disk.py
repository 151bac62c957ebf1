"""A disk that fills up during a run: the run ends with one message, and what was written is kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
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

SHORT = """
duration_s = 2
users = 2
arrivals = { kind = "closed", think_s = 0.2 }
"""
KEY = {"BLTYBENCH_TEST_KEY": SANDBOX_KEY}


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


def outputs(folder: Path) -> list[str]:
    """Return the options that let Locust write all its files into ``folder``."""
    files = ["--csv", f"{folder}/out", "--html", f"{folder}/out.html", "--json-file", f"{folder}/out"]
    return [*files, "--csv-full-history"]


def failures(output: str, option: str) -> int:
    """Return how often the output says that one of Locust's files can't be written."""
    return len(
        re.findall(rf"^bltybench: {option} \S+: can't be written: No space left on device$", output, re.M)
    )


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_full_disk_ends_the_run_and_loses_nothing_already_written(
    tmp_path: Path, small_disk: Path, processes: tuple[str, ...]
) -> None:
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, LONG)
        done = run_locust(LOCUSTFILES / "chat.py", *processes, *outputs(small_disk), cwd=tmp_path, **KEY)
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    assert failures(done.output, "--html") == 1
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


def test_full_disk_of_locusts_own_files_does_not_affect_the_run_or_its_report(
    tmp_path: Path, small_disk: Path
) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    with running_sandbox() as sandbox:
        write_scenarios(tmp_path, sandbox.base_url, SHORT)
        reports = ("--reports", str(tmp_path / "elsewhere"))
        done = run_locust(LOCUSTFILES / "chat.py", *reports, *outputs(small_disk), cwd=tmp_path, **KEY)
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    assert [failures(done.output, option) for option in ("--csv", "--html", "--json-file")] == [1, 1, 1]
    (run,) = list_runs(tmp_path / "elsewhere")
    assert run.manifest().ended == "completed"
    assert read_attempts(run).num_rows >= 10
    assert "VALID" in done.output
