from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support_cli import bltybench, free_port, listens, sandbox_target, write_book
from support_runs import manifest, realistic, write_run

from bltybench.runs.folder import PARTIAL
from bltybench.runs.store import read_attempts

ROOT = Path(__file__).parents[2]


def test_ctrl_c_prints_one_line_and_stops_the_sandbox(tmp_path: Path) -> None:
    port = free_port()
    # A long window, so that the check is still waiting when it is interrupted.
    write_book(tmp_path, sandbox_target(port, limit=12, period_s=60))
    process = subprocess.Popen(
        [sys.executable, "-m", "bltybench", "check", "--target", "mine"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # In background test runs, Ctrl-C is ignored by this process and its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Waiting"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "bltybench: interrupted\n")
    assert not listens(port)


def test_unknown_target_lists_the_known_ones(tmp_path: Path) -> None:
    write_book(tmp_path, sandbox_target(free_port()))
    done = bltybench("check", "--target", "mien", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bltybench: ")
    assert "mine" in done.stderr
    assert "Traceback" not in done.stderr


def test_broken_scenarios_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "scenarios.toml").write_text("targets = [\n")
    done = bltybench("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "scenarios.toml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("env", "coloured"), [({"FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1"}, False), ({}, False)]
)
def test_colors_are_used_on_terminals_only(tmp_path: Path, env: dict[str, str], coloured: bool) -> None:
    write_run(tmp_path / "reports" / "a", [], about=manifest(run_id="a"))
    done = bltybench("runs", cwd=tmp_path, env=env)
    assert done.returncode == 0
    assert ("\x1b[" in done.stdout) == coloured


def test_closed_output_pipe_gives_no_traceback(tmp_path: Path) -> None:
    for number in range(50):
        write_run(tmp_path / "reports" / f"r{number}", [], about=manifest(run_id=f"r{number}"))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "bltybench", "runs"],
            cwd=tmp_path,
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert "Traceback" not in done.stderr


def test_wheel_contains_the_starter_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("scenarios.toml", "locustfiles/mixed.py", "locustfiles/chat.py", "locustfiles/stream.py"):
        assert f"bltybench/starter/{name}" in names
    assert {"bltybench/py.typed", "bltybench/scenario/prompts/sentences.txt"} <= names
    analysis = {path.name for path in (ROOT / "analysis").iterdir() if path.suffix in {".ipynb", ".md"}}
    assert analysis == {Path(name).name for name in names if name.startswith("bltybench/starter/analysis/")}
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_two_reports_of_a_killed_run_at_the_same_time_both_succeed(tmp_path: Path) -> None:
    attempts = realistic()
    folder = write_run(tmp_path / "run", attempts)
    command = [sys.executable, "-m", "bltybench", "report", str(folder.path), "--format", "json,csv"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "ab"
    ]
    outputs = [process.communicate(timeout=90)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert read_attempts(folder).num_rows == len(attempts)
    assert not [path for path in folder.path.iterdir() if path.name.endswith(PARTIAL)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize("command", [("runs",), ("report", "run", "--format", "json")])
def test_output_that_cannot_be_written_gives_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_run(tmp_path / "reports" / "run", [])
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bltybench", *command],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, "bltybench: No space left on device\n")
