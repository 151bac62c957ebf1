"""The specification of one run, the same for all processes that generate its load."""

import os
from pathlib import Path
from typing import Any, Self

import msgspec

from bltybench import __version__
from bltybench.errors import UserError
from bltybench.load.distributed.scenario_files import ScenarioFiles
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Clock

TOO_LATE = "this worker connected after the run had started"


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a process needs to take part in a run. The master sends it in Locust's spawn message."""

    version: str = ""
    """Version of bltybench that created the specification."""
    run_path: str
    """Absolute path of the run's directory."""
    clock: Clock
    """Provisional. The master sends the zero of the run's axis when all processes are ready."""
    files: ScenarioFiles
    scenario_name: str
    scenario: dict[str, Any]
    targets: dict[str, dict[str, Any]]
    """By name, the first one first."""
    workers: list[str]
    """Locust's ids of the participating workers, in order. Empty if a single process does everything."""

    @classmethod
    def received(cls, message: object) -> Self:
        """Return the specification in a master's message. Raises UserError if this process can't use it."""
        other = UserError(
            "the master sent no run that this bltybench understands",
            remedy=f"use bltybench {__version__} and the same locustfile for the master and all workers",
        )
        version = message.get("version", "") if isinstance(message, dict) else __version__
        if isinstance(message, dict) and "workers" in message and version != __version__:
            raise UserError(
                f"the master runs bltybench {version or 'before 0.2'}, this worker {__version__}",
                remedy="install the same version for the master and all workers",
            )
        try:
            return msgspec.convert(message, cls)
        except msgspec.ValidationError:
            raise other from None

    @property
    def folder(self) -> RunFolder:
        """The run's directory."""
        return RunFolder(Path(self.run_path))

    @property
    def sees_folder(self) -> bool:
        """Whether the run's directory is on this machine, or on a shared disk."""
        # Path.is_file would raise an error without permission.
        if not os.path.isfile(self.folder.manifest_json):
            return False
        # Another machine can have a run with the same path.
        return self.folder.manifest().clock == self.clock

    def index_of(self, client_id: str) -> int:
        """Return the index of a Locust worker. Raises UserError if it can't take part in the run."""
        if client_id not in self.workers:
            raise UserError(TOO_LATE, remedy="start all workers before starting the run")
        return self.workers.index(client_id)
