"""One owner of a run folder at a time: writers, reports, and what a kill leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support_runs import realistic, write_run

from bltybench.errors import UserError
from bltybench.runs.folder import RunFolder, find_run
from bltybench.runs.ownership import WriterLock, is_active, sole_owner
from bltybench.runs.sealing import seal as sealing
from bltybench.runs.sealing.seal import seal
from bltybench.runs.store import read_attempts, readable

TRIES = 20


def test_report_on_a_live_run_is_refused_and_leaves_its_spools(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "20261122-141510-made", realistic())
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    first, second = WriterLock(folder.path), WriterLock(folder.path)
    for _ in range(2):
        assert is_active(folder.path)
        with pytest.raises(UserError, match="still active"), sole_owner(folder.path):
            seal(folder)
        with pytest.raises(UserError, match="still active"), readable(folder):
            read_attempts(folder)
        first.release()
    second.release()
    assert not is_active(folder.path)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl")) == before
    with sole_owner(folder.path):
        assert not is_active(folder.path)
        seal(folder)
    assert read_attempts(folder).num_rows == len(realistic())


def test_writer_cannot_join_a_run_that_is_being_reported(tmp_path: Path) -> None:
    with sole_owner(tmp_path), pytest.raises(UserError, match="has ended and is being reported"):
        WriterLock(tmp_path)


def test_default_run_is_the_newest_that_has_ended(tmp_path: Path) -> None:
    ended = write_run(tmp_path / "20261121-090000-made", [])
    live = write_run(tmp_path / "20261122-090000-made", [])
    lock = WriterLock(live.path)
    assert find_run(None, tmp_path) == ended
    other = WriterLock(ended.path)
    with pytest.raises(UserError, match="still active"):
        find_run(None, tmp_path)
    lock.release()
    other.release()
    assert find_run(None, tmp_path) == live


def test_lock_ends_with_a_killed_process_even_if_its_child_survives(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from bltybench.runs.ownership import WriterLock
lock = WriterLock(Path({str(tmp_path)!r}))
if os.fork() == 0:
    time.sleep(30)
    os._exit(0)
print("locked", flush=True)
time.sleep(30)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert is_active(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        assert not is_active(tmp_path)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_two_concurrent_seals_lose_no_record_in_20_tries(tmp_path: Path) -> None:
    attempts = realistic()
    script = f"""
import sys
from pathlib import Path
from bltybench.runs.folder import RunFolder
from bltybench.runs.ownership import sole_owner
from bltybench.runs.sealing.seal import seal
from bltybench.runs.store import read_attempts
sys.stdin.readline()
for index in range({TRIES}):
    folder = RunFolder(Path({str(tmp_path)!r}) / f"run-{{index}}")
    with sole_owner(folder.path):
        seal(folder)
    assert read_attempts(folder).num_rows == {len(attempts)}
"""
    for index in range(TRIES):
        write_run(tmp_path / f"run-{index}", attempts)
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    time.sleep(1)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    for index in range(TRIES):
        assert read_attempts(RunFolder(tmp_path / f"run-{index}")).num_rows == len(attempts)


def test_waiting_owner_continues_when_the_other_has_finished(tmp_path: Path) -> None:
    owned, order = threading.Event(), []

    def report() -> None:
        with sole_owner(tmp_path):
            owned.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=report)
    thread.start()
    assert owned.wait(5)
    with sole_owner(tmp_path):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("step", ["replace", "rmtree"])
def test_seal_that_dies_at_any_step_can_be_repeated(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = realistic()
    folder = write_run(tmp_path / "run", attempts)

    def die(*_: object, **__: object) -> None:
        raise OSError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(sealing if step == "replace" else shutil, step, die)
        with pytest.raises((OSError, UserError), match="killed here"):
            seal(folder)
    assert read_attempts(folder).num_rows == len(attempts)
    seal(folder)
    assert read_attempts(folder).num_rows == len(attempts)
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "attempts.parquet",
        "generator.parquet",
        "manifest.json",
    ]


@pytest.mark.parametrize("damage", ["truncated", "empty", "fewer rows"])
def test_seal_replaces_a_worse_parquet_file_while_the_spools_exist(tmp_path: Path, damage: str) -> None:
    attempts = realistic()
    other = write_run(tmp_path / "other", attempts[:5])
    seal(other)
    folder = write_run(tmp_path / "run", attempts)
    data = other.attempts_parquet.read_bytes()
    parts = {"truncated": data[: len(data) // 2], "empty": b"", "fewer rows": data}
    folder.attempts_parquet.write_bytes(parts[damage])
    seal(folder)
    assert read_attempts(folder).num_rows == len(attempts)


def test_seal_keeps_a_parquet_file_with_more_rows_than_the_spools(tmp_path: Path) -> None:
    attempts = realistic()
    folder = write_run(tmp_path / "run", attempts)
    seal(folder)
    folder.attempts_spool.mkdir()
    seal(folder)
    assert read_attempts(folder).num_rows == len(attempts)


def test_records_that_cannot_be_read_back_keep_their_spools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "run", realistic())
    monkeypatch.setattr(sealing, "_rows", lambda _: 3)
    with pytest.raises(UserError, match="3 can be read back"):
        seal(folder)
    assert [path.name for path in folder.attempts_spool.iterdir()] == ["w0.jsonl"]
    assert not folder.attempts_parquet.exists()
