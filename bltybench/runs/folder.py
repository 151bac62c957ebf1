"""The run folder: where each file of a run lies, and how a run is found again."""

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
"""Where runs land, below the folder that the user stands in."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run. Any of them may be missing: a run can be killed at any moment."""

    path: Path

    @property
    def manifest_json(self) -> Path:
        """What the run was."""
        return self.path / "manifest.json"

    @property
    def attempts_spool(self) -> Path:
        """Append-only JSON lines while the run goes on, a file for each process."""
        return self.path / "attempts"

    @property
    def generator_spool(self) -> Path:
        """The self-audit while the run goes on, a file for each process."""
        return self.path / "generator"

    @property
    def attempts_parquet(self) -> Path:
        """All attempts, once the run is sealed."""
        return self.path / "attempts.parquet"

    @property
    def generator_parquet(self) -> Path:
        """The self-audit, once the run is sealed."""
        return self.path / "generator.parquet"

    @property
    def summary_json(self) -> Path:
        """What was found, for programs."""
        return self.path / "summary.json"

    @property
    def report_html(self) -> Path:
        """What was found, for people."""
        return self.path / "report.html"

    @property
    def junit_xml(self) -> Path:
        """The checks, for CI servers."""
        return self.path / "junit.xml"

    @property
    def summary_md(self) -> Path:
        """What was found, for a pull request."""
        return self.path / "summary.md"

    @property
    def metrics_prom(self) -> Path:
        """What was found, as Prometheus text."""
        return self.path / "metrics.prom"

    def manifest(self) -> Manifest:
        """Read the manifest. Raises UserError where it is missing, damaged or of a newer format."""
        try:
            manifest = msgspec.json.decode(self.manifest_json.read_bytes(), type=Manifest)
        except FileNotFoundError:
            raise UserError("no manifest.json: this is not a run folder", where=str(self.path)) from None
        except (msgspec.DecodeError, OSError) as error:
            raise UserError(f"cannot be read: {error}", where=str(self.manifest_json)) from None
        if manifest.format_version > FORMAT_VERSION:
            raise UserError(
                f"has format version {manifest.format_version}; this bltybench reads up to {FORMAT_VERSION}",
                where=str(self.manifest_json),
                remedy="read it with the version of bltybench that wrote it, or a newer one",
            )
        return manifest

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest so that a reader never sees half of it."""
        write_atomically(self.manifest_json, msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` in place under its final name in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def new_run_id(scenario: str, now: datetime | None = None) -> str:
    """Return an id that sorts by time and says what ran: ``20261122-141530-quickstart``."""
    return f"{(now or datetime.now(UTC)):%Y%m%d-%H%M%S}-{scenario}"


def create_run(reports: Path, scenario: str) -> RunFolder:
    """Make a new, empty run folder with an id of its own. Raises UserError where that cannot be."""
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
        f"no run can be stored here: {why}",
        where=str(reports.absolute()),
        remedy="make the folder writable, or name another with --reports DIR",
    )


def list_runs(reports: Path = REPORTS) -> list[RunFolder]:
    """Return the run folders below ``reports``, newest first by their id; renamed ones come last."""
    if not reports.is_dir():
        return []
    found = [RunFolder(path) for path in reports.iterdir() if (path / "manifest.json").is_file()]
    return sorted(found, key=lambda run: (run.path.name[:1].isdigit(), run.path.name), reverse=True)


def find_run(ref: str | None = None, reports: Path = REPORTS) -> RunFolder:
    """Return the run that ``ref`` means: a folder's path, an id or its beginning; None is the newest run.

    Raises UserError where there is none, or where the beginning fits several.
    """
    runs = list_runs(reports)
    if ref is None:
        if not runs:
            raise UserError("there are no runs here yet", where=str(reports.absolute()), remedy="make bench")
        return runs[0]
    path = Path(ref)
    if (path / "manifest.json").is_file():
        return RunFolder(path)
    fitting = [run for run in runs if run.path.name.startswith(ref)]
    if len(fitting) == 1 or any(run.path.name == ref for run in fitting):
        return next((run for run in fitting if run.path.name == ref), fitting[0])
    if fitting:
        names = ", ".join(run.path.name for run in fitting[:5])
        raise UserError(f"'{ref}' fits several runs: {names}", remedy="type more of the id")
    raise UserError(
        f"there is no run '{ref}'",
        where=str(reports.absolute()),
        remedy="`bltybench runs` lists them",
    )


def remove_spools(folder: RunFolder) -> None:
    """Delete the spools of a sealed run; its Parquet files hold the same rows."""
    for spool in (folder.attempts_spool, folder.generator_spool):
        shutil.rmtree(spool, ignore_errors=True)
