"""The connection between a capacity search and the processes that generate its load."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import msgspec
from locust.rpc import Message
from locust.runners import LocalRunner, Runner

from bltybench.load.capacity.search import Searcher
from bltybench.load.capacity.worker import TrialOrder, TrialReport, TrialWorker
from bltybench.runs.folder import RunFolder
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.workload import Scenario

ORDER_MESSAGE = "bltybench_trial"
CUT_MESSAGE = "bltybench_trial_cut"
REPORT_MESSAGE = "bltybench_trial_report"


class SearchLink:
    """Carries orders to the trial workers, and their reports back. A single process sends them to itself."""

    def __init__(self, worker: Callable[[], TrialWorker | None]) -> None:
        self._worker = worker
        self._runner: Runner
        self.searcher: Searcher | None = None
        """The search that this process decides about."""

    def register(self, runner: Runner) -> None:
        """Listen to the other processes."""
        self._runner = runner
        runner.register_message(ORDER_MESSAGE, self._on_order)
        runner.register_message(CUT_MESSAGE, self._on_cut)
        runner.register_message(REPORT_MESSAGE, self._on_report)

    def begin(
        self, scenario: Scenario, *, workers: int, folder: RunFolder, now_s: Callable[[], float]
    ) -> Searcher | None:
        """Create the search of a run and return it; None if its scenario has none."""
        search, self.searcher = scenario.arrivals, None
        if isinstance(search, CapacitySearch):
            order = partial(self._send, ORDER_MESSAGE)
            self.searcher = Searcher(search, scenario, workers, folder, now_s, order, self._cut)
        return self.searcher

    def lose_worker(self) -> None:
        """End the search because a worker was lost."""
        if self.searcher is not None:
            self.searcher.end("worker lost")

    def _send(self, message: str, data: msgspec.Struct) -> None:
        local = isinstance(self._runner, LocalRunner)
        self._runner.send_message(message, data if local else msgspec.to_builtins(data))

    def _cut(self, number: int) -> None:
        self._runner.send_message(CUT_MESSAGE, {"number": number})

    def _on_order(self, msg: Message, **_: Any) -> None:
        if (worker := self._worker()) is not None:
            order, report = msgspec.convert(msg.data, TrialOrder), partial(self._send, REPORT_MESSAGE)
            gevent.spawn(worker.run_trial, order, report)

    def _on_cut(self, msg: Message, **_: Any) -> None:
        if (worker := self._worker()) is not None:
            worker.cut(msg.data["number"])

    def _on_report(self, msg: Message, **_: Any) -> None:
        if self.searcher is not None:
            self.searcher.take(msgspec.convert(msg.data, TrialReport))
