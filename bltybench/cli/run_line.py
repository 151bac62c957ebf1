"""A one-line summary of a run, from the files in its folder."""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bltybench.errors import UserError, reason
from bltybench.runs.attempt import Outcome
from bltybench.runs.files import read_json
from bltybench.runs.folder import RunFolder
from bltybench.runs.ownership import is_active
from bltybench.text import sanitize


class _Check(msgspec.Struct):
    passed: bool | None


class _Summary(msgspec.Struct):
    valid: bool
    checks: list[_Check]
    imported: msgspec.Raw | None = None


class RunLine(msgspec.Struct, kw_only=True):
    """Summary of one run in ``bltybench runs``. None means unknown."""

    run: str
    scenario: str | None = None
    target: str | None = None
    started: str | None = None
    """UTC, ISO 8601."""
    duration_s: float | None = None
    attempts: int | None = None
    accepted: int | None = None
    refused: int | None = None
    valid: bool | None = None
    checks_passed: int | None = None
    checks: int | None = None
    imported: bool = False
    """Whether it is from a log."""
    active: bool = False
    """Whether a process still writes to the run."""
    problem: str | None = None
    """Error in the folder. The other fields hold what could be read."""

    def started_text(self) -> str | None:
        """Return the start time to the second."""
        return self.started and self.started[:19].replace("T", " ")

    def duration_text(self) -> str | None:
        """Return the duration as text."""
        if self.duration_s is None:
            return None
        minutes, seconds = divmod(round(self.duration_s), 60)
        return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"

    def result_text(self) -> str:
        """Return VALID or INVALID and the number of passed checks."""
        if self.active:
            return "running"
        if self.valid is None:
            return "no report yet"
        word = "INVALID" if not self.valid else "IMPORTED" if self.imported else "VALID"
        return f"{word}, {self.checks_passed} of {self.checks} checks" if self.checks else word


def run_lines(reports: Path) -> list[RunLine]:
    """Return a line for each run in ``reports``, newest first. A damaged folder has a ``problem``."""
    if not reports.is_dir():
        return []
    try:
        folders = [RunFolder(path) for path in reports.iterdir() if os.path.isdir(path)]
    except OSError as error:
        raise UserError(f"can't list: {reason(error)}", where=str(reports.absolute())) from None
    lines = [_line(folder) for folder in folders if _is_run(folder)]
    return sorted(lines, key=lambda line: (line.started or "", line.run), reverse=True)


def to_json(lines: list[RunLine]) -> str:
    """Return the documented JSON format: a list of objects, indented."""
    return msgspec.json.format(msgspec.json.encode(lines), indent=2).decode()


def _is_run(folder: RunFolder) -> bool:
    marks = (folder.manifest_json, folder.attempts_parquet, folder.attempts_spool, folder.summary_json)
    return any(os.path.lexists(mark) for mark in marks)


def _line(folder: RunFolder) -> RunLine:
    line = RunLine(run=sanitize(folder.path.name))
    try:
        manifest = folder.manifest()
    except UserError as error:
        line.problem = sanitize(error.what)
        return line
    line.active = is_active(folder.path)
    line.scenario, line.target = sanitize(manifest.scenario), sanitize(manifest.target_names)
    line.started = datetime.fromtimestamp(manifest.clock.wall_ns / 1e9, UTC).isoformat(timespec="seconds")
    line.duration_s = None if manifest.ended_ns is None else manifest.ended_ns / 1e9
    _count(folder, line)
    _judge(folder, line)
    return line


def _count(folder: RunFolder, line: RunLine) -> None:
    if not os.path.lexists(folder.attempts_parquet):
        return
    # The imports cost more than everything else here, and a new folder does not need them.
    import pyarrow.compute as pc  # noqa: PLC0415

    from bltybench.runs.store import ATTEMPT_SCHEMA, attempt_columns  # noqa: PLC0415

    try:
        columns = dict(attempt_columns(folder, without={*ATTEMPT_SCHEMA.names} - {"outcome", "status"}))
    except UserError as error:
        line.problem = f"{folder.attempts_parquet.name} {sanitize(error.what)}"
        return
    outcomes, statuses = columns["outcome"], columns["status"]
    line.attempts = line.accepted = line.refused = 0
    # Compared with a value of its own column: Arrow would import pandas to convert one of Python.
    for outcome in outcomes.unique():
        for group in statuses.filter(pc.equal(outcomes, outcome)).value_counts().to_pylist():
            line.attempts += group["counts"]
            if outcome.as_py() == Outcome.RATE_LIMITED:
                line.refused += group["counts"]
            elif 200 <= (group["values"] or 0) < 300:
                line.accepted += group["counts"]


def _judge(folder: RunFolder, line: RunLine) -> None:
    try:
        summary = read_json(folder.summary_json, _Summary)
    except FileNotFoundError:
        return
    except UserError as error:
        line.problem = f"{folder.summary_json.name} {sanitize(error.what)}"
        return
    line.valid = summary.valid
    line.imported = summary.imported is not None
    line.checks = len(summary.checks)
    line.checks_passed = sum(check.passed is True for check in summary.checks)
