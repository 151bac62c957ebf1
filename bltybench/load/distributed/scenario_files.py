"""The files of a scenario on the machines of a run: the same on all of them, or the worker is refused."""

import hashlib
from pathlib import Path

import msgspec

from bltybench.errors import UserError
from bltybench.scenario.file.resolve import Resolved, named_files
from bltybench.scenario.file.scenario_file import DEFAULT_FILE
from bltybench.scenario.files import unreadable


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """A file, and the hash of its content."""

    name: str
    """Path, relative to the directory of scenarios.toml."""
    sha256: str


class ScenarioFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files from which the master made a run."""

    base_dir: str
    """The master's directory to which the names are relative."""
    scenarios: FileDigest
    """scenarios.toml, or the file of --scenario-file."""
    named: list[FileDigest]
    """Files that the scenario names: traces, conversations, and recorded requests."""

    @classmethod
    def of(cls, resolved: Resolved) -> "ScenarioFiles":
        """Return the files of a scenario. Raise UserError if one can't be read."""
        base_dir = resolved.base_dir.absolute()
        return cls(
            base_dir=str(base_dir),
            scenarios=_digest(resolved.path.name, resolved.path),
            named=[_digest(name, base_dir / name) for _, name in named_files(resolved.scenario)],
        )

    def find(self, own: Path | None) -> Path:
        """Return the directory of the same files on this machine.

        ``own`` is this process's --scenario-file; by default, ./scenarios.toml if it exists. A worker needs
        none, because the master sends the scenario, but must not have another one. Raise UserError for a
        file that differs or is missing.
        """
        if own is None and DEFAULT_FILE.exists():
            own = DEFAULT_FILE
        if own is not None:
            _require(self.scenarios, own)
        base_dir = Path(self.base_dir) if own is None else own.parent.absolute()
        if not base_dir.is_dir():
            base_dir = Path.cwd()
        for file in self.named:
            _require(file, base_dir / file.name)
        return base_dir


def _require(file: FileDigest, path: Path) -> None:
    if _digest(file.name, path).sha256 != file.sha256:
        raise UserError(
            "differs from that of the master", where=str(path.absolute()), remedy="copy the master's"
        )


def _digest(name: str, path: Path) -> FileDigest:
    try:
        with path.open("rb") as file:
            return FileDigest(name=name, sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise unreadable(path, error, what="file of the scenario") from None
