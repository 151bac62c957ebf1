"""One process's part in the trials of a run: what it sends in each, and what it reports."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

import gevent
import msgspec
from gevent.event import Event

from bltybench.runs.attempt import Attempt
from bltybench.scenario.arrivals.arrivals import Arrival
from bltybench.scenario.trials.capacity import TrialAttempt

Shortfall = Literal["requests", "budget"]

REPORT_INTERVAL_S = 0.2
"""Seconds between two reports of a process during a trial."""
MAX_SETTLE_S = 10.0
"""Maximum wait for the responses of a trial, in seconds."""


class TrialOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One trial, the same for every process. Each process derives its own share."""

    number: int
    stage: str
    """Name of the stage; in a tournament, also that of the policy."""
    load: float = 0.0
    """Requests per minute, or users. 0 in a tournament."""
    begin_s: float
    """On the run's axis, as is ``end_s``."""
    end_s: float
    first_index: int = 0
    """Number of the trial's first request in the run."""
    max_requests: int = 0
    """Maximum requests of all processes together if users decide how many they send."""


class TrialReport(msgspec.Struct):
    """What a process has sent and received since its last report."""

    number: int
    """Number of the trial."""
    sent: int = 0
    """Attempts, including those of the warm-up."""
    late: int = 0
    """Arrivals that found no idle user."""
    attempts: list[TrialAttempt] = []
    """Attempts of a search after the warm-up."""
    refills_s: float | None = None
    """Latest time at which, by a response, a limit refills. None if no response announced one."""
    done: bool = False
    """Whether the process has sent its share and stopped waiting for responses."""
    settled: bool = False
    """Whether everything was sent and every response arrived."""
    shortfall: Shortfall | None = None
    """What ran out before the process had sent its share: the search's requests, or the target's budget."""


class TrialWorker(ABC):
    """Hands out the requests of worker ``index`` of ``workers`` to its users, and reports the results."""

    def __init__(
        self, index: int, workers: int, now_s: Callable[[], float], budget_exhausted: Callable[[], bool]
    ) -> None:
        self._index, self._workers = index, workers
        self._now_s, self._budget_exhausted = now_s, budget_exhausted
        self._queue: deque[Arrival] = deque()
        self._changed = Event()
        self._cut = Event()
        self._stopped = False
        self._order: TrialOrder | None = None
        self._open_calls = 0
        self._report = TrialReport(0)

    @property
    def stage(self) -> str | None:
        """Name of the current trial; None between trials."""
        return None if self._order is None else self._order.stage

    # Called by users

    def next_arrival(self) -> Arrival | None:
        """Wait until the next arrival is due and return it; None after the last trial.

        Users wait here because a trial that is cut withdraws arrivals that were claimed but are not yet due.
        """
        while not self._stopped:
            if not self._queue:
                self._changed.wait()
                continue
            arrival = self._queue.popleft()
            self._open_calls += 1
            left_s = arrival.at_s - self._now_s()
            self._report.late += left_s < 0 and self._lacks_users()
            if left_s <= 0 or not self._cut.wait(left_s):
                return arrival
            self._open_calls -= 1
        return None

    def wait_for_place(self, user: int) -> bool:
        """Wait until a closed loop includes ``user``. Return False after the last trial."""
        del user
        return False

    def call_ended(self) -> None:
        """Count a call as ended, whatever its outcome."""
        self._open_calls -= 1

    def note(self, attempt: Attempt) -> None:
        """Add an attempt to the next report."""
        self._report.sent += attempt.sent_ns is not None

    # Called by the owner of the trials

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        self._queue.clear()
        self._cut.set()
        self._wake_users()

    def cut(self, number: int) -> None:
        """End a trial early: don't send the rest of it."""
        if self._order is not None and self._order.number == number:
            self._cut.set()

    def run_trial(self, order: TrialOrder, report: Callable[[TrialReport], None]) -> None:
        """Send this process's share of a trial. Runs as a greenlet until the last report is sent."""
        self._order = order
        self._report = TrialReport(order.number)
        self._cut.clear()
        self._queue.extend(self._begin(order))
        self._wake_users()
        while (left_s := order.end_s - self._now_s()) > 0:
            if self._cut.wait(min(REPORT_INTERVAL_S, left_s)):
                break
            report(self._take_report())
            if self._shortfall() is not None:
                self._cut.set()
        if self._cut.is_set():
            self._queue.clear()
        shortfall = self._shortfall()
        settled = self._settle()
        if shortfall is None and self._budget_exhausted():
            shortfall = "budget"
        # The next order can arrive while the report is sent.
        self._order = None
        if not self._stopped:
            last = self._take_report()
            last.done, last.settled, last.shortfall = True, settled, shortfall
            report(last)

    @abstractmethod
    def _begin(self, order: TrialOrder) -> Iterable[Arrival]:
        """Return this process's arrivals of a trial; none if users decide when to send."""

    def _settle(self) -> bool:
        """Wait for outstanding responses. Return whether everything was sent and every response arrived."""
        settled = self._wait_for_calls(MAX_SETTLE_S)
        self._queue.clear()
        return settled

    def _wait_for_calls(self, wait_s: float) -> bool:
        """Wait until everything was sent and every call has ended. Return whether that was in time."""
        give_up_s = self._now_s() + wait_s
        while self._now_s() < give_up_s and not self._stopped:
            # Without a budget, the rest can't be sent.
            if not self._open_calls and (not self._queue or self._budget_exhausted()):
                break
            gevent.sleep(0.01)
        return not self._open_calls and not self._queue

    def _lacks_users(self) -> bool:
        """Return whether an arrival that is claimed late lacked a user."""
        return True

    def _shortfall(self) -> Shortfall | None:
        return "budget" if self._budget_exhausted() else None

    def _take_report(self) -> TrialReport:
        report, self._report = self._report, TrialReport(self._report.number)
        return report

    def _wake_users(self) -> None:
        changed, self._changed = self._changed, Event()
        changed.set()
