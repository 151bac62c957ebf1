"""A search between processes: orders go to those that make load, and what they saw comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from locust.runners import MasterRunner, Runner, WorkerRunner

from bltybench.load.capacity.search import Searcher
from bltybench.load.capacity.worker import (
    TrialOrder,
    TrialReport,
    TrialWorker,
    decode_order,
    decode_told,
    encode,
)
from bltybench.load.run.run import Run
from bltybench.scenario.capacity import CapacitySearch

ORDER_MESSAGE = "bltybench_trial"
CUT_MESSAGE = "bltybench_trial_cut"
TOLD_MESSAGE = "bltybench_trial_told"


class SearchLink:
    """Joins the one that decides with the parts; both are here where a single process does all.

    ``part`` gives this process's part in the run, where it has one.
    """

    def __init__(self, part: Callable[[], TrialWorker | None]) -> None:
        self._part = part
        self._runner: Runner | None = None
        self._searcher: Searcher | None = None

    def register(self, runner: Runner | None) -> None:
        """Listen to the other processes."""
        self._runner = runner
        if isinstance(runner, MasterRunner):
            runner.register_message(TOLD_MESSAGE, self._on_told)
        elif isinstance(runner, WorkerRunner):
            runner.register_message(ORDER_MESSAGE, self._on_order)
            runner.register_message(CUT_MESSAGE, self._on_cut)

    def begin(self, run: Run, runner: Runner | None) -> Searcher | None:
        """Prepare the search of a run; None where it does not search."""
        scenario = run.resolved.scenario
        self._runner, self._searcher = runner, None
        if isinstance(scenario.arrivals, CapacitySearch):
            self._searcher = Searcher(
                scenario.arrivals,
                scenario,
                parts=max(1, len(run.workers)),
                folder=run.folder,
                now_s=run.now_s,
                order=self._order,
                cut=self._cut,
            )
        return self._searcher

    def run(self) -> None:
        """Search, if this run does. Returns when the search is over."""
        if self._searcher is not None:
            self._searcher.run()

    @property
    def searches(self) -> bool:
        """Whether the run is a search that this process decides on."""
        return self._searcher is not None

    @property
    def ended(self) -> str | None:
        """Why the search came to its own end; None where it did not, or there is none."""
        return None if self._searcher is None else self._searcher.ended

    def all_users_are_there(self) -> None:
        """Let the search begin."""
        if self._searcher is not None:
            self._searcher.ready.set()

    def _order(self, order: TrialOrder) -> None:
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message(ORDER_MESSAGE, encode(order))
        else:
            self._play(order, self._take)

    def _cut(self, number: int) -> None:
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message(CUT_MESSAGE, {"number": number})
        elif (part := self._part()) is not None:
            part.cut(number)

    def _take(self, told: TrialReport) -> None:
        if self._searcher is not None:
            self._searcher.take(told)

    def _play(self, order: TrialOrder, tell: Callable[[TrialReport], None]) -> None:
        part = self._part()
        if part is not None:
            gevent.spawn(part.play, order, tell)

    # In the master

    def _on_told(self, msg: Any, **_: Any) -> None:
        self._take(decode_told(msg.data))

    # In a worker

    def _on_order(self, msg: Any, **_: Any) -> None:
        self._play(decode_order(msg.data), self._tell_master)

    def _on_cut(self, msg: Any, **_: Any) -> None:
        part = self._part()
        if part is not None:
            part.cut(int(msg.data["number"]))

    def _tell_master(self, told: TrialReport) -> None:
        if isinstance(self._runner, WorkerRunner):
            self._runner.send_message(TOLD_MESSAGE, encode(told))
