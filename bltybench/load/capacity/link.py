"""The connection between a capacity search and the processes that generate its load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gevent
import msgspec
from locust.runners import MasterRunner, Runner, WorkerRunner

from bltybench.load.capacity.search import Searcher
from bltybench.load.capacity.worker import TrialOrder, TrialReport, TrialWorker
from bltybench.runs.folder import RunFolder
from bltybench.scenario.capacity import CapacitySearch
from bltybench.scenario.workload import Scenario

T = TypeVar("T")

ORDER_MESSAGE = "bltybench_trial"
CUT_MESSAGE = "bltybench_trial_cut"
REPORT_MESSAGE = "bltybench_trial_report"


class SearchLink:
    """Carries orders to the trial workers, and their reports back.

    In a single process, both ends are here. ``worker`` returns this process's trial worker, if it has one.
    """

    def __init__(self, worker: Callable[[], TrialWorker | None]) -> None:
        self._worker = worker
        self._runner: Runner | None = None
        self._searcher: Searcher | None = None

    def register(self, runner: Runner | None) -> None:
        """Listen to the other processes."""
        self._runner = runner
        if isinstance(runner, MasterRunner):
            runner.register_message(REPORT_MESSAGE, lambda msg, **_: self._report(_read(msg, TrialReport)))
        elif isinstance(runner, WorkerRunner):
            runner.register_message(ORDER_MESSAGE, lambda msg, **_: self._run_here(_read(msg, TrialOrder)))
            runner.register_message(CUT_MESSAGE, lambda msg, **_: self._cut_here(msg.data["number"]))

    def begin(
        self, scenario: Scenario, *, workers: int, folder: RunFolder, now_s: Callable[[], float]
    ) -> Searcher | None:
        """Return the search of a run; None if its scenario has none."""
        self._searcher = None
        search = scenario.arrivals
        if isinstance(search, CapacitySearch):
            self._searcher = Searcher(
                search,
                scenario,
                workers=workers,
                folder=folder,
                now_s=now_s,
                start_trial=self._start_trial,
                cut_trial=self._cut_trial,
            )
        return self._searcher

    @property
    def searches(self) -> bool:
        """Whether this process decides about the trials of a search."""
        return self._searcher is not None

    @property
    def ended(self) -> str | None:
        """Why the search ended by itself; None if it did not, or if there is none."""
        return None if self._searcher is None else self._searcher.ended

    def all_users_spawned(self) -> None:
        """Let the search start."""
        if self._searcher is not None:
            self._searcher.ready.set()

    def _start_trial(self, order: TrialOrder) -> None:
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message(ORDER_MESSAGE, msgspec.to_builtins(order))
        else:
            self._run_here(order)

    def _cut_trial(self, number: int) -> None:
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message(CUT_MESSAGE, {"number": number})
        else:
            self._cut_here(number)

    def _run_here(self, order: TrialOrder) -> None:
        if (worker := self._worker()) is not None:
            gevent.spawn(worker.run_trial, order, self._report)

    def _cut_here(self, number: int) -> None:
        if (worker := self._worker()) is not None:
            worker.cut(number)

    def _report(self, report: TrialReport) -> None:
        if isinstance(self._runner, WorkerRunner):
            self._runner.send_message(REPORT_MESSAGE, msgspec.to_builtins(report))
        elif self._searcher is not None:
            self._searcher.take(report)


def _read(message: Any, kind: type[T]) -> T:
    return msgspec.convert(message.data, kind)
