"""The process that owns a run of trials: it orders one after another, and listens to the reports."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from gevent.event import Event

from bltybench.load.trials.worker import TrialOrder, TrialReport

LEAD_S = 0.1
LEAD_WORKERS_S = 0.5
"""Seconds from the decision on a trial to its first request: time for the order to reach all workers."""
WORKER_GRACE_S = 10.0
"""Grace period, in seconds, for an overdue worker report. After it, the trials end."""


class TrialOwner(ABC):
    """Decides what the workers send."""

    def __init__(
        self,
        workers: int,
        now_s: Callable[[], float],
        show: Callable[[str], None],
        start_trial: Callable[[TrialOrder], None],
    ) -> None:
        """``show`` displays what is being done."""
        self._workers, self._now_s, self._show, self._start_trial = workers, now_s, show, start_trial
        self._number = self._sent = 0
        self._reports: list[TrialReport] = []
        self._reported = Event()
        self.ready = Event()
        """To be set when all users have spawned."""
        self.ended: str | None = None
        """Why the trials ended by themselves; None while they run, and if they were stopped."""

    @abstractmethod
    def run(self) -> None:
        """Order trials until nothing is left to do, or something runs out. Runs as a greenlet."""

    @abstractmethod
    def end(self, why: str) -> None:
        """Store the result of trials that ended."""

    def take(self, report: TrialReport) -> None:
        """Add a report from a worker."""
        self._sent += report.sent
        if report.number == self._number:
            self._reports.append(report)
            self._reported.set()

    @property
    def _lead_s(self) -> float:
        return LEAD_WORKERS_S if self._workers > 1 else LEAD_S

    def _next_begin_s(self) -> float:
        """Begin the next trial: return when its load begins."""
        self._number += 1
        self._reports = []
        return max(0.0, self._now_s()) + self._lead_s

    def _listen(self, give_up_s: float, on_report: Callable[[], None] = lambda: None) -> bool:
        """Wait until all workers are done. Return False if a worker was lost: it has not reported by then."""
        while sum(report.done for report in self._reports) < self._workers:
            self._reported.clear()
            if not self._reported.wait(max(0.0, give_up_s + WORKER_GRACE_S - self._now_s())):
                return False
            on_report()
        return True
