"""The run folder: paths of a run's files, and how to find a run."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from bltybench.errors import UserError, reason
from bltybench.runs.attempt import FORMAT_VERSION
from bltybench.runs.files import read_json
from bltybench.runs.manifest import Manifest
from bltybench.runs.ownership import is_active

logger = logging.getLogger("bltybench")

REPORTS = Path("reports")
"""Default folder for runs, below the current directory."""
RESULT_FILES = ("probe.json", "limits.json", "limits.toml")
"""Files that a probe writes to the run's directory. They change until it has finished."""
PARTIAL = ".partial"
"""End of the names of temporary files."""


class _File:
    """A path in a run folder, as an attribute of RunFolder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: RunFolder, _: type[RunFolder]) -> Path:
        return folder.path / self._name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run. Any of them may be missing, because a run can be killed at any time."""

    path: Path

    manifest_json = _File("manifest.json")
    attempts_spool = _File("attempts")
    """Append-only JSON lines during the run, one file per process."""
    generator_spool = _File("generator")
    """The same for the self-audit."""
    clocks_spool = _File("clocks")
    """Measurements of the clocks of workers on other machines."""
    attempts_parquet = _File("attempts.parquet")
    """All attempts, after the run is sealed."""
    generator_parquet = _File("generator.parquet")
    search_json = _File("search.json")
    """Result of a capacity search. Only in runs that searched."""
    tournament_json = _File("tournament.json")
    """Course of a tournament of client policies. Only in runs that had one."""
    summary_json = _File("summary.json")
    """The summary, for programs."""
    report_html = _File("report.html")
    junit_xml = _File("junit.xml")
    """The checks, for CI servers."""
    summary_md = _File("summary.md")
    """The summary, for a pull request."""
    metrics_prom = _File("metrics.prom")
    spill_json = _File("spill.json")
    """Only in the directory of a worker that does not see that of the run: to which run it belongs."""

    def spool_files(self, worker: str) -> list[str]:
        """Return the names of the files to which a worker appends during a run."""
        spools = (self.clocks_spool, self.attempts_spool, self.generator_spool)
        return [f"{spool.name}/{worker}.jsonl" for spool in spools]

    def make_spools(self) -> None:
        """Create the directories of the spool files. Raise OSError if that fails."""
        for spool in (self.clocks_spool, self.attempts_spool, self.generator_spool):
            spool.mkdir()

    def final_files(self, worker: str) -> list[str]:
        """Return the names of files that are complete when a worker has finished. The last one says so."""
        return [*RESULT_FILES, f"{self.attempts_spool.name}/{worker}.part"]

    def manifest(self) -> Manifest:
        """Read the manifest. Raise UserError if it is missing, damaged, or in a newer format."""
        try:
            manifest = read_json(self.manifest_json, Manifest)
        except FileNotFoundError:
            raise UserError("no manifest.json: this is not a run folder", where=str(self.path)) from None
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


class Spill(msgspec.Struct, frozen=True, kw_only=True):
    """``spill.json``: the owner of the records of a worker that does not see the run's directory."""

    run_id: Annotated[str, msgspec.Meta(pattern=r"^[^/]+$")]
    worker: Annotated[str, msgspec.Meta(pattern=r"^w\d{1,6}$")]
    """The worker's name in the records."""


def create_spill(reports: Path, spill: Spill) -> RunFolder:
    """Create a directory for the records of one worker of a run. Raise UserError if that fails."""
    folder = RunFolder(reports / f"spill-{spill.worker}" / spill.run_id)
    try:
        folder.path.mkdir(parents=True)
        folder.make_spools()
        folder.spill_json.write_bytes(msgspec.json.encode(spill))
    except OSError as error:
        raise _no_storage(reports, reason(error)) from None
    return folder


def remove_spill(folder: RunFolder) -> None:
    """Remove the directory of a worker's records."""
    shutil.rmtree(folder.path)
    with suppress(OSError):  # it holds the records of another run
        folder.path.parent.rmdir()


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file, then rename it to its final name. Raise UserError if that fails."""
    partial = partial_name(path)
    try:
        with partial.open("xb") as file:
            file.write(data)
        replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"can't be written: {reason(error)}", where=str(path)) from None


def partial_name(path: Path) -> Path:
    """Return a name for a temporary file next to ``path`` that no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}{PARTIAL}")


def replace(partial: Path, path: Path) -> None:
    """Rename a complete temporary file to ``path``. A power failure leaves the old file or the new."""
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create_run(reports: Path, scenario: str) -> RunFolder:
    """Create an empty run folder with a unique ID. Raise UserError if that fails.

    The ID sorts by time and names the scenario: ``20261122-141530-quickstart``.
    """
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{scenario}"
    why = "it is not a folder"
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = RunFolder(reports / f"{run_id}{suffix}")
        try:
            folder.path.mkdir(parents=True)
            folder.make_spools()
        except FileExistsError:
            if not reports.is_dir():
                break
        except OSError as error:
            why = reason(error)
            break
        else:
            return folder
    raise _no_storage(reports, why)


def make_reports(reports: Path) -> None:
    """Create the folder of the runs if it does not exist. Raise UserError if it can't hold runs."""
    try:
        reports.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise _no_storage(reports, "it is not a folder") from None
    except OSError as error:
        raise _no_storage(reports, reason(error)) from None


def _no_storage(reports: Path, why: str) -> UserError:
    return UserError(
        f"cannot store a run here: {why}",
        where=str(reports.absolute()),
        remedy="make the folder writable, or choose another with --reports DIR",
    )


def list_runs(reports: Path = REPORTS) -> list[RunFolder]:
    """Return the run folders in ``reports``, newest ID first. Renamed folders come last."""
    if not reports.is_dir():
        return []
    runs = [RunFolder(path) for path in reports.iterdir() if os.path.isfile(path / "manifest.json")]
    return sorted(runs, key=lambda run: (run.path.name[:1].isdigit(), run.path.name), reverse=True)


def find_run(ref: str | None = None, reports: Path = REPORTS) -> RunFolder:
    """Return the run that ``ref`` names: a path, an ID, or an ID prefix. None means the newest run
    that has ended.

    Raise UserError if there is no such run or the prefix is ambiguous.
    """
    runs = list_runs(reports)
    if ref is None:
        if not runs:
            raise UserError(
                "no runs here yet",
                where=str(reports.absolute()),
                remedy="start one: locust -f locustfiles/mixed.py --headless",
            )
        return _newest(runs)
    if os.path.isfile(Path(ref) / "manifest.json"):
        return RunFolder(Path(ref))
    matches = [run for run in runs if ref and run.path.name.startswith(ref)]
    exact = [run for run in matches if run.path.name == ref]
    if exact or len(matches) == 1:
        return (exact or matches)[0]
    if matches:
        names = ", ".join(run.path.name for run in matches[:5])
        raise UserError(f"'{ref}' matches several runs: {names}", remedy="type more of the ID")
    raise UserError(
        f"no such run: '{ref}'", where=str(reports.absolute()), remedy="list the runs with `bltybench runs`"
    )


def _newest(runs: list[RunFolder]) -> RunFolder:
    """Return the newest run that has ended."""
    ended = next((run for run in runs if not is_active(run.path)), None)
    if ended is None:
        raise UserError(
            "the run is still active", where=str(runs[0].path), remedy="try again when it has ended"
        )
    if ended is not runs[0]:
        logger.warning("bltybench: %s is still active; using %s", runs[0].path.name, ended.path.name)
    return ended
