"""One process's part in a tournament of client policies."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from gevent.event import Event

from bltybench.load.client_policy import ClientPolicy
from bltybench.load.trials.worker import MAX_SETTLE_S, TrialOrder, TrialWorker
from bltybench.policies.tournament import variant
from bltybench.runs.attempt import Attempt
from bltybench.scenario.arrivals.arrivals import Arrival, schedule
from bltybench.scenario.pacing import Pacing
from bltybench.scenario.trials.tournament import Tournament, competitor
from bltybench.scenario.workload import Scenario


class TournamentWorker(TrialWorker):
    """Sends the same calls with one policy after another."""

    def __init__(
        self,
        tournament: Tournament,
        scenario: Scenario,
        policy: ClientPolicy,
        base_dir: Path,
        *,
        index: int,
        workers: int,
        now_s: Callable[[], float],
        budget_exhausted: Callable[[], bool],
    ) -> None:
        super().__init__(index, workers, now_s, budget_exhausted)
        self._tournament, self._scenario = tournament, scenario
        self._policy, self._base_dir = policy, base_dir
        self.ended = Event()
        """Set when the calls of the current policy are cut off, and at the end of the run."""

    def note(self, attempt: Attempt) -> None:
        """Add an attempt to the next report."""
        super().note(attempt)
        announced_s = (attempt.reset_requests_s, attempt.reset_tokens_s, attempt.retry_after_s)
        longest_s = max((wait_s for wait_s in announced_s if wait_s is not None), default=None)
        if longest_s is not None:
            self._report.refills_s = max(self._report.refills_s or 0.0, attempt.end_ns / 1e9 + longest_s)

    def stop(self) -> None:
        """Send nothing more."""
        self.ended.set()
        super().stop()

    def _begin(self, order: TrialOrder) -> Iterator[Arrival]:
        chosen = competitor(order.stage)
        self.ended = Event()
        retry, pacing = variant(self._scenario.retry, chosen.retry), Pacing(policy=chosen.pacing)
        self._policy.use(retry, pacing, begin_s=order.begin_s)
        one = self._scenario.of_one_policy()
        for arrival in schedule(one.arrivals, one.duration_s, one.seed, self._base_dir):
            if arrival.worker(self._workers) == self._index:
                yield replace(arrival, at_s=order.begin_s + arrival.at_s, stage=order.stage)

    def _settle(self) -> bool:
        """Wait for the calls to end. Then cut off those that wait, and let those in flight end."""
        if self._wait_for_calls(self._tournament.max_drain_s):
            return True
        self._queue.clear()
        self.ended.set()
        self._wait_for_calls(MAX_SETTLE_S)
        return False

    def _lacks_users(self) -> bool:
        return not self._policy.holding
