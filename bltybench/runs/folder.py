"""The run folder: paths of a run's files, and how to find a run."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bltybench.errors import UserError
from bltybench.runs.attempt import FORMAT_VERSION
from bltybench.runs.manifest import Manifest

REPORTS = Path("reports")
"""Default folder for runs, below the current directory."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run. Any of them may be missing, because a run can be killed at any time."""

    path: Path

    @property
    def manifest_json(self) -> Path:
        """Description of the run."""
        return self.path / "manifest.json"

    @property
    def attempts_spool(self) -> Path:
        """Append-only JSON lines during the run, one file per process."""
        return self.path / "attempts"

    @property
    def generator_spool(self) -> Path:
        """The self-audit during the run, one file per process."""
        return self.path / "generator"

    @property
    def attempts_parquet(self) -> Path:
        """All attempts, after the run is sealed."""
        return self.path / "attempts.parquet"

    @property
    def generator_parquet(self) -> Path:
        """The self-audit, after the run is sealed."""
        return self.path / "generator.parquet"

    @property
    def search_json(self) -> Path:
        """Result of a capacity search. Only in runs that searched."""
        return self.path / "search.json"

    @property
    def summary_json(self) -> Path:
        """The summary, for programs."""
        return self.path / "summary.json"

    @property
    def report_html(self) -> Path:
        """The report page."""
        return self.path / "report.html"

    @property
    def junit_xml(self) -> Path:
        """The checks, for CI servers."""
        return self.path / "junit.xml"

    @property
    def summary_md(self) -> Path:
        """The summary, for a pull request."""
        return self.path / "summary.md"

    @property
    def metrics_prom(self) -> Path:
        """The summary, as Prometheus text."""
        return self.path / "metrics.prom"

    def manifest(self) -> Manifest:
        """Read the manifest. Raise UserError if it is missing, damaged, or in a newer format."""
        try:
            manifest = msgspec.json.decode(self.manifest_json.read_bytes(), type=Manifest)
        except FileNotFoundError:
            raise UserError("no manifest.json: this is not a run folder", where=str(self.path)) from None
        except (msgspec.DecodeError, OSError) as error:
            raise UserError(f"cannot be read: {error}", where=str(self.manifest_json)) from None
        if manifest.format_version > FORMAT_VERSION:
            raise UserError(
                f"format version {manifest.format_version} is newer than this bltybench supports "
                f"({FORMAT_VERSION})",
                where=str(self.manifest_json),
                remedy="use the bltybench version that wrote it, or a newer one",
            )
        return manifest

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest atomically."""
        write_atomically(self.manifest_json, msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file, then rename it to its final name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def new_run_id(scenario: str, now: datetime | None = None) -> str:
    """Return an ID that sorts by time and names the scenario: ``20261122-141530-quickstart``."""
    return f"{(now or datetime.now(UTC)):%Y%m%d-%H%M%S}-{scenario}"


def create_run(reports: Path, scenario: str) -> RunFolder:
    """Create an empty run folder with a unique ID. Raise UserError if that fails."""
    run_id = new_run_id(scenario)
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = RunFolder(reports / f"{run_id}{suffix}")
        try:
            folder.path.mkdir(parents=True)
            folder.attempts_spool.mkdir()
            folder.generator_spool.mkdir()
        except FileExistsError:
            if not reports.is_dir():
                break
            continue
        except OSError as error:
            raise _unwritable(reports, error.strerror or str(error)) from None
        return folder
    raise _unwritable(reports, "it is not a folder")


def _unwritable(reports: Path, why: str) -> UserError:
    return UserError(
        f"cannot store a run here: {why}",
        where=str(reports.absolute()),
        remedy="make the folder writable, or choose another with --reports DIR",
    )


def list_runs(reports: Path = REPORTS) -> list[RunFolder]:
    """Return the run folders in ``reports``, newest ID first. Renamed folders come last."""
    if not reports.is_dir():
        return []
    found = [RunFolder(path) for path in reports.iterdir() if (path / "manifest.json").is_file()]
    return sorted(found, key=lambda run: (run.path.name[:1].isdigit(), run.path.name), reverse=True)


def find_run(ref: str | None = None, reports: Path = REPORTS) -> RunFolder:
    """Return the run that ``ref`` names: a path, an ID, or an ID prefix. None means the newest run.

    Raise UserError if there is no such run or the prefix is ambiguous.
    """
    runs = list_runs(reports)
    if ref is None:
        if not runs:
            raise UserError("no runs here yet", where=str(reports.absolute()), remedy="start one: make bench")
        return runs[0]
    path = Path(ref)
    if (path / "manifest.json").is_file():
        return RunFolder(path)
    fitting = [run for run in runs if run.path.name.startswith(ref)]
    if len(fitting) == 1 or any(run.path.name == ref for run in fitting):
        return next((run for run in fitting if run.path.name == ref), fitting[0])
    if fitting:
        names = ", ".join(run.path.name for run in fitting[:5])
        raise UserError(f"'{ref}' matches several runs: {names}", remedy="type more of the ID")
    raise UserError(
        f"no such run: '{ref}'",
        where=str(reports.absolute()),
        remedy="list the runs with `bltybench runs`",
    )


def remove_spools(folder: RunFolder) -> None:
    """Delete the spools of a sealed run. Its Parquet files hold the same rows."""
    for spool in (folder.attempts_spool, folder.generator_spool):
        shutil.rmtree(spool, ignore_errors=True)
