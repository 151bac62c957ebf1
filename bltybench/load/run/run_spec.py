"""The order for one run: made by the master (or the only process), obeyed alike by every worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bltybench.errors import UserError
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Clock
from bltybench.scenario.target import Target
from bltybench.scenario.workload import Scenario


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a process needs to take its part in a run. Travels as plain values in Locust's spawn message."""

    run_path: str
    """The run's folder, absolute."""
    clock: Clock
    """Its zero is the moment when the load begins, a little after the order is given."""
    base_dir: str
    """The folder that the scenario's file names start from."""
    scenario_name: str
    scenario: dict[str, Any]
    target_name: str
    target: dict[str, Any]
    workers: list[str]
    """Locust's ids of the workers that take part, in order; empty where one process does all."""

    def read_scenario(self) -> Scenario:
        """Return the scenario as it was resolved."""
        return Scenario.model_validate(self.scenario)

    def read_target(self) -> Target:
        """Return the target as it was resolved."""
        return Target.model_validate(self.target)

    def place_of(self, client_id: str) -> int:
        """Return which of the run's workers that is. Raises UserError where it cannot take part."""
        if not RunFolder(Path(self.run_path)).manifest_json.is_file():
            raise UserError(
                "the folder of the run is not on this machine",
                where=self.run_path,
                remedy="start workers on the master's machine (--processes), or share its reports folder",
            )
        if client_id not in self.workers:
            raise UserError(
                "this worker came after the run had begun", remedy="start all workers, then the run"
            )
        return self.workers.index(client_id)

    @property
    def base(self) -> Path:
        """The folder that the scenario's file names start from."""
        return Path(self.base_dir)


def encode(job: RunSpec) -> dict[str, Any]:
    """Return the order as plain values."""
    values: dict[str, Any] = msgspec.to_builtins(job)
    return values


def decode(values: Any) -> RunSpec:
    """Return the order from plain values. Raises msgspec.ValidationError on anything else."""
    return msgspec.convert(values, RunSpec)
