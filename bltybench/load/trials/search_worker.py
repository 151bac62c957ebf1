"""One process's part in the trials of a capacity search."""

from collections.abc import Callable
from random import Random

import gevent

from bltybench.limits.observations.classify import classify
from bltybench.load.trials.worker import Shortfall, TrialOrder, TrialReport, TrialWorker
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.scenario.arrivals.arrivals import Arrival, step_times
from bltybench.scenario.trials.capacity import CapacitySearch, TrialAttempt
from bltybench.scenario.workload import Scenario


def trial_times(search: CapacitySearch, load: float, seed: int, number: int) -> list[float]:
    """Return when the requests of an open-loop trial are due, in seconds from its start."""
    rng = Random(f"{seed}:trial:{number}")
    return list(step_times(load, search.stage_s, search.spacing, rng))


class SearchWorker(TrialWorker):
    """Sends the trials of a search: arrivals at a rate, or a closed loop of users."""

    def __init__(
        self,
        search: CapacitySearch,
        scenario: Scenario,
        *,
        index: int,
        workers: int,
        now_s: Callable[[], float],
        budget_exhausted: Callable[[], bool],
    ) -> None:
        super().__init__(index, workers, now_s, budget_exhausted)
        self._search, self._scenario = search, scenario
        self._active_users = self._requests_left = 0
        self._first_due_ns: dict[str, int] = {}

    def wait_for_place(self, user: int) -> bool:
        """Wait until a trial includes ``user``. Return False when the search is over."""
        while not self._stopped:
            if user < self._active_users and self._requests_left > 0:
                self._open_calls += 1
                return True
            self._changed.wait()
        return False

    def note(self, attempt: Attempt) -> None:
        """Add an attempt to the next report."""
        super().note(attempt)
        self._requests_left -= attempt.sent_ns is not None
        first_due_ns = self._first_due_ns.setdefault(attempt.call_id, attempt.due_ns)
        order = self._order
        if order is None or attempt.stage != order.stage or attempt.outcome is Outcome.CANCELLED:
            return
        if first_due_ns / 1e9 >= order.begin_s + self._scenario.warm_up_s:
            self._report.attempts.append(_trial_attempt(attempt, first_due_ns))

    def stop(self) -> None:
        """Send nothing more."""
        self._active_users = 0
        super().stop()

    def run_trial(self, order: TrialOrder, report: Callable[[TrialReport], None]) -> None:
        """Send this process's share of a trial. Runs as a greenlet until the last report is sent."""
        self._first_due_ns.clear()
        self._requests_left = len(range(self._index, order.max_requests, self._workers))
        super().run_trial(order, report)

    def _begin(self, order: TrialOrder) -> list[Arrival]:
        if self._search.load == "rate":
            times_s = trial_times(self._search, order.load, self._scenario.seed, order.number)
            return [
                Arrival(order.first_index + place, order.begin_s + times_s[place], stage=order.stage)
                for place in range(self._index, len(times_s), self._workers)
            ]
        gevent.sleep(max(0.0, order.begin_s - self._now_s()))
        self._active_users = int(order.load)
        return []

    def _settle(self) -> bool:
        self._active_users = 0
        return super()._settle()

    def _shortfall(self) -> Shortfall | None:
        spent = super()._shortfall()
        return (
            "requests" if not spent and self._search.load == "users" and self._requests_left <= 0 else spent
        )


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
