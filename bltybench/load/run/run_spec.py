"""The specification of one run, the same for all processes that generate its load."""

from pathlib import Path
from typing import Any

import msgspec

from bltybench.errors import UserError
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Clock


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a process needs to take part in a run. The master sends it in Locust's spawn message."""

    run_path: str
    """Absolute path of the run's directory."""
    clock: Clock
    """Its zero is when the load begins, shortly after the master creates the specification."""
    base_dir: str
    """Directory to which the scenario's file names are relative."""
    scenario_name: str
    scenario: dict[str, Any]
    target_name: str
    target: dict[str, Any]
    workers: list[str]
    """Locust's ids of the participating workers, in order. Empty if a single process does everything."""

    @property
    def folder(self) -> RunFolder:
        """The run's directory."""
        return RunFolder(Path(self.run_path))

    def index_of(self, client_id: str) -> int:
        """Return the index of a Locust worker. Raises UserError if it can't take part in the run."""
        if not self.folder.manifest_json.is_file():
            raise UserError(
                "the run's directory does not exist on this machine",
                where=self.run_path,
                remedy="start workers on the master's machine (--processes), or share its reports directory",
            )
        if client_id not in self.workers:
            raise UserError(
                "this worker connected after the run had started",
                remedy="start all workers before starting the run",
            )
        return self.workers.index(client_id)
