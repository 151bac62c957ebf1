"""The connection between the owner of trials and the processes that generate their load."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import msgspec
from locust.rpc import Message
from locust.runners import LocalRunner, Runner

from bltybench.load.client_policy import limits_to_keep
from bltybench.load.trials.owner import TrialOwner
from bltybench.load.trials.search import Searcher
from bltybench.load.trials.tournament import TournamentOwner
from bltybench.load.trials.worker import TrialOrder, TrialReport, TrialWorker
from bltybench.runs.folder import RunFolder
from bltybench.scenario.file.resolve import Resolved
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.trials.tournament import Tournament

ORDER_MESSAGE = "bltybench_trial"
CUT_MESSAGE = "bltybench_trial_cut"
REPORT_MESSAGE = "bltybench_trial_report"


class TrialLink:
    """Carries orders to the workers, and their reports back. A single process sends them to itself."""

    def __init__(self, worker: Callable[[], TrialWorker | None]) -> None:
        self._worker = worker
        self._runner: Runner
        self.owner: TrialOwner | None = None
        """The owner of the trials, if this process has it."""

    def register(self, runner: Runner) -> None:
        """Listen to the other processes."""
        self._runner = runner
        runner.register_message(ORDER_MESSAGE, self._on_order)
        runner.register_message(CUT_MESSAGE, self._on_cut)
        runner.register_message(REPORT_MESSAGE, self._on_report)

    def begin(
        self,
        resolved: Resolved,
        workers: int,
        folder: RunFolder,
        *,
        now_s: Callable[[], float],
        show: Callable[[str], None],
    ) -> TrialOwner | None:
        """Create the owner of a run's trials and return it; None if its scenario has none."""
        scenario, self.owner = resolved.scenario, None
        arrivals, order = scenario.arrivals, partial(self._send, ORDER_MESSAGE)
        if isinstance(arrivals, CapacitySearch):
            self.owner = Searcher(
                arrivals,
                scenario,
                folder,
                workers=workers,
                now_s=now_s,
                show=show,
                start_trial=order,
                cut_trial=self._cut,
            )
        elif isinstance(arrivals, Tournament):
            limits = limits_to_keep(scenario, resolved.targets, resolved.base_dir)
            is_sandbox = all(target.sandbox is not None for target in resolved.targets.values())
            self.owner = TournamentOwner(
                arrivals,
                limits,
                folder,
                exact=arrivals.limits is not None or is_sandbox,
                workers=workers,
                now_s=now_s,
                show=show,
                start_trial=order,
            )
        return self.owner

    def lose_worker(self) -> None:
        """End the trials because a worker was lost."""
        if self.owner is not None:
            self.owner.end("worker lost")

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
        if self.owner is not None:
            self.owner.take(msgspec.convert(msg.data, TrialReport))
