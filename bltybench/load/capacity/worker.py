"""One process's part in the trials of a capacity search."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

import gevent
import msgspec
from gevent.event import Event

from bltybench.limits.observations.classify import classify
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.scenario.arrivals.arrivals import Arrival, step_times
from bltybench.scenario.trials.capacity import CapacitySearch, TrialAttempt
from bltybench.scenario.workload import Scenario

Shortfall = Literal["requests", "budget"]

REPORT_INTERVAL_S = 0.2
"""Seconds between two reports of a process during a trial."""
MAX_SETTLE_S = 10.0
"""Maximum wait for the responses of a trial, in seconds. A trial with responses outstanding has failed."""


class TrialOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One trial, the same for every process. Each process derives its own share."""

    number: int
    stage: str
    load: float
    """Requests per minute, or users."""
    begin_s: float
    """On the run's axis, as is ``end_s``."""
    end_s: float
    first_index: int
    """Number of the trial's first request in the run."""
    max_requests: int
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
    """Attempts after the warm-up."""
    done: bool = False
    """Whether the process has sent its share and stopped waiting for responses."""
    settled: bool = False
    """Whether everything was sent and every response arrived."""
    shortfall: Shortfall | None = None
    """What ran out before the process had sent its share: the search's requests, or the target's budget."""


def trial_times(search: CapacitySearch, load: float, seed: int, number: int) -> list[float]:
    """Return when the requests of an open-loop trial are due, in seconds from its start."""
    rng = Random(f"{seed}:trial:{number}")
    return list(step_times(load, search.stage_s, search.spacing, rng))


@dataclass(eq=False)
class TrialWorker:
    """Hands out the requests of worker ``index`` of ``workers`` to its users, and reports the results."""

    search: CapacitySearch
    scenario: Scenario
    index: int
    workers: int
    now_s: Callable[[], float]
    budget_exhausted: Callable[[], bool]

    def __post_init__(self) -> None:
        self._queue: deque[Arrival] = deque()
        self._changed = Event()
        self._cut = Event()
        self._stopped = False
        self._order: TrialOrder | None = None
        self._active_users = self._requests_left = self._open_calls = 0
        self._first_due_ns: dict[str, int] = {}
        self._report = TrialReport(0)

    @property
    def stage(self) -> str | None:
        """Name of the current trial; None between trials."""
        return None if self._order is None else self._order.stage

    # Called by users

    def next_arrival(self) -> Arrival | None:
        """Wait until the next arrival is due and return it; None at the end of the search.

        Users wait here because a trial that is cut withdraws arrivals that were claimed but are not yet due.
        """
        while not self._stopped:
            if not self._queue:
                self._changed.wait()
                continue
            arrival = self._queue.popleft()
            self._open_calls += 1
            left_s = arrival.at_s - self.now_s()
            self._report.late += left_s < 0
            if left_s <= 0 or not self._cut.wait(left_s):
                return arrival
            self._open_calls -= 1
        return None

    def wait_for_place(self, user: int) -> bool:
        """Wait until a trial includes ``user``. Return False when the search is over."""
        while not self._stopped:
            if user < self._active_users and self._requests_left > 0:
                self._open_calls += 1
                return True
            self._changed.wait()
        return False

    def call_ended(self) -> None:
        """Count a call as ended, whatever its outcome."""
        self._open_calls -= 1

    def note(self, attempt: Attempt) -> None:
        """Add an attempt to the next report."""
        sent = attempt.sent_ns is not None
        self._report.sent += sent
        self._requests_left -= sent
        first_due_ns = self._first_due_ns.setdefault(attempt.call_id, attempt.due_ns)
        order = self._order
        if order is None or attempt.stage != order.stage or attempt.outcome is Outcome.CANCELLED:
            return
        if first_due_ns / 1e9 >= order.begin_s + self.scenario.warm_up_s:
            self._report.attempts.append(_trial_attempt(attempt, first_due_ns))

    # Called by the search

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        self._active_users = 0
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
        self._first_due_ns.clear()
        self._report = TrialReport(order.number)
        self._cut.clear()
        self._requests_left = len(range(self.index, order.max_requests, self.workers))
        if self.search.load == "rate":
            self._queue.extend(self._own_arrivals(order))
        else:
            gevent.sleep(max(0.0, order.begin_s - self.now_s()))
            self._active_users = int(order.load)
        self._wake_users()
        while (left_s := order.end_s - self.now_s()) > 0:
            if self._cut.wait(min(REPORT_INTERVAL_S, left_s)):
                break
            report(self._take_report())
            if self._shortfall() is not None:
                self._cut.set()
        shortfall = self._shortfall()
        self._active_users = 0
        if self._cut.is_set():
            self._queue.clear()
        settled = self._settle()
        # The next order can arrive while the report is sent.
        self._order = None
        if not self._stopped:
            last = self._take_report()
            last.done, last.settled, last.shortfall = True, settled, shortfall
            report(last)

    def _own_arrivals(self, order: TrialOrder) -> list[Arrival]:
        times_s = trial_times(self.search, order.load, self.scenario.seed, order.number)
        return [
            Arrival(order.first_index + place, order.begin_s + times_s[place], None, None, stage=order.stage)
            for place in range(self.index, len(times_s), self.workers)
        ]

    def _settle(self) -> bool:
        """Wait for outstanding responses. Return whether everything was sent and every response arrived."""
        give_up_s = self.now_s() + MAX_SETTLE_S
        while (self._open_calls or self._queue) and self.now_s() < give_up_s and not self._stopped:
            gevent.sleep(0.01)
        unsent = bool(self._queue)
        self._queue.clear()
        return self._open_calls == 0 and not unsent

    def _shortfall(self) -> Shortfall | None:
        if self.budget_exhausted():
            return "budget"
        return "requests" if self.search.load == "users" and self._requests_left <= 0 else None

    def _take_report(self) -> TrialReport:
        report, self._report = self._report, TrialReport(self._report.number)
        return report

    def _wake_users(self) -> None:
        changed, self._changed = self._changed, Event()
        changed.set()


def _trial_attempt(attempt: Attempt, first_due_ns: int) -> TrialAttempt:
    if attempt.outcome is not Outcome.OK or attempt.sent_ns is None:
        return TrialAttempt(attempt.call_id, "refused" if classify(attempt).refused else "error")
    ttft = tpot = None
    if attempt.first_token_ns is not None and attempt.ttft_ns is not None:
        ttft = attempt.ttft_ns / 1e6
        steps = (attempt.completion_tokens or 0) - 1
        if attempt.last_token_ns is not None and steps > 0:
            tpot = (attempt.last_token_ns - attempt.first_token_ns) / 1e6 / steps
    return TrialAttempt(
        attempt.call_id,
        "ok",
        ttft=ttft,
        tpot=tpot,
        latency=(attempt.end_ns - first_due_ns) / 1e6,
        attempt_latency=(attempt.end_ns - attempt.sent_ns) / 1e6,
    )
