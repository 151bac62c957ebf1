"""What the master and its workers send each other during a run, carried by Locust."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import msgspec
from locust.runners import MasterRunner, WorkerRunner

from bltybench.load.run.live import Tick
from bltybench.load.run.run_spec import RunSpec

SPEC_OPTION = "bltybench_run_spec"
"""Locust's spawn message carries the parsed options to the workers. The specification is one of them."""
TICKS_KEY = "bltybench"
"""Key of the live counts in a worker's report."""
BUDGET_MESSAGE = "bltybench_budget_exhausted"
ACTIVITY_MESSAGE = "bltybench_activity"


def put_spec(options: Namespace, spec: RunSpec) -> None:
    """Add the specification to the options that the workers receive."""
    setattr(options, SPEC_OPTION, msgspec.to_builtins(spec))


def read_spec(options: Namespace) -> RunSpec:
    """Return the specification that the master sent."""
    return msgspec.convert(getattr(options, SPEC_OPTION), RunSpec)


def put_tick(report: dict[str, Any], tick: Tick) -> None:
    """Add live counts to a worker's report."""
    report[TICKS_KEY] = [msgspec.to_builtins(tick)]


def read_ticks(report: dict[str, Any]) -> list[Tick]:
    """Return the live counts in a worker's report."""
    return msgspec.convert(report.get(TICKS_KEY, []), list[Tick])


def listen(
    master: MasterRunner, on_budget_exhausted: Callable[[str], None], on_activity: Callable[[str], None]
) -> None:
    """Call back with the id of a worker whose budget is exhausted, and with what a worker is doing."""
    master.register_message(BUDGET_MESSAGE, lambda msg, **_: on_budget_exhausted(msg.node_id))
    master.register_message(ACTIVITY_MESSAGE, lambda msg, **_: on_activity(str(msg.data["activity"])))


def send_budget_exhausted(worker: WorkerRunner) -> None:
    """Report to the master that this worker's budget is exhausted."""
    worker.send_message(BUDGET_MESSAGE, {})


def send_activity(worker: WorkerRunner, activity: str) -> None:
    """Report to the master what this worker is doing."""
    worker.send_message(ACTIVITY_MESSAGE, {"activity": activity})
