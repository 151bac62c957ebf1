"""The connection between a capacity search and the processes that generate its load."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import msgspec
from locust.runners import MasterRunner, Runner, WorkerRunner

from bltybench.load.capacity.search import Searcher
from bltybench.load.capacity.worker import TrialOrder, TrialReport, TrialWorker
from bltybench.runs.folder import RunFolder
from bltybench.scenario.capacity import CapacitySearch
from bltybench.scenario.workload import Scenario

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
        self.searcher: Searcher | None = None
        """The search that this process decides about."""

    def register(self, runner: Runner | None) -> None:
        """Listen to the other processes."""
        self._runner = runner
        if isinstance(runner, MasterRunner):
            runner.register_message(
                REPORT_MESSAGE, lambda msg, **_: self._report(msgspec.convert(msg.data, TrialReport))
            )
        elif isinstance(runner, WorkerRunner):
            runner.register_message(
                ORDER_MESSAGE, lambda msg, **_: self._run_here(msgspec.convert(msg.data, TrialOrder))
            )
            runner.register_message(CUT_MESSAGE, lambda msg, **_: self._cut_here(msg.data["number"]))

    def begin(
        self, scenario: Scenario, *, workers: int, folder: RunFolder, now_s: Callable[[], float]
    ) -> Searcher | None:
        """Create the search of a run and return it; None if its scenario has none."""
        search, self.searcher = scenario.arrivals, None
        if isinstance(search, CapacitySearch):
            self.searcher = Searcher(
                search, scenario, workers, folder, now_s, self._start_trial, self._cut_trial
            )
        return self.searcher

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
        elif self.searcher is not None:
            self.searcher.take(report)
