"""The capacity search at work: one trial after another, each a stage of the run.

The process that owns the run decides about the trials. It generates their load itself, or its workers do.
"""

import logging
from collections.abc import Callable

import gevent
import msgspec

from bltybench.load.trials.owner import TrialOwner
from bltybench.load.trials.search_worker import trial_times
from bltybench.load.trials.worker import MAX_SETTLE_S, TrialOrder, TrialReport
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.trials.search import SearchResult, Trial
from bltybench.scenario.trials.bracket import Bracket
from bltybench.scenario.trials.capacity import CapacitySearch, TrialAttempt, cannot_pass, measure
from bltybench.scenario.workload import Scenario

logger = logging.getLogger("bltybench")

MAX_LATE_FRACTION = 0.01
"""Maximum fraction of a trial's arrivals that find no idle user. Above it, the trial fails."""


class Searcher(TrialOwner):
    """Decides what is sent during a capacity search."""

    def __init__(
        self,
        search: CapacitySearch,
        scenario: Scenario,
        folder: RunFolder,
        *,
        workers: int,
        now_s: Callable[[], float],
        show: Callable[[str], None],
        start_trial: Callable[[TrialOrder], None],
        cut_trial: Callable[[int], None],
    ) -> None:
        super().__init__(workers, now_s, show, start_trial)
        self.search, self.scenario, self._folder, self._cut_trial = search, scenario, folder, cut_trial
        self._bracket = Bracket(
            search.start,
            search.max,
            precision=search.precision,
            confirm=search.confirm,
            whole=search.load == "users",
            step=search.step,
        )
        retry = self.scenario.retry
        self._max_attempts = 1 if retry.policy == "none" else retry.max_attempts
        self._trials: list[Trial] = []
        self._next_index = 0
        self._attempts: list[TrialAttempt] = []

    def take(self, report: TrialReport) -> None:
        """Add a report from a worker."""
        super().take(report)
        if report.number == self._number:
            self._attempts.extend(report.attempts)

    def run(self) -> None:
        """Search until the capacity is found or something runs out. Runs as a greenlet."""
        self.ready.wait()
        while (ended := self._step()) is None:
            self._write(None)
            gevent.sleep(self.search.pause_s)
        self.end(ended)

    def end(self, why: str) -> None:
        """Store the result of a search that ended."""
        self.ended = why
        logger.info("%s", self._write(why).sentence())

    def _step(self) -> str | None:
        """Make one trial. Return why the search ends; None if it continues."""
        if self._sent + self._expected_requests() > self.search.requests:
            return "requests"
        trial = self._make_trial(self._bracket.level)
        if trial is None:
            return "worker lost"
        shortfall = next((report.shortfall for report in self._reports if report.shortfall), None)
        if shortfall is not None:
            return shortfall
        self._trials.append(trial)
        logger.info("%s", trial.sentence())
        if trial.held is None:
            return "too few answers"
        self._bracket.add(trial.held)
        return "found" if self._bracket.done else None

    def _expected_requests(self) -> int:
        """Return how many requests the next trial sends. Users send as many as in the last trial."""
        if self.search.load == "rate":
            return round(self._bracket.level * self.search.stage_s / 60)
        last = self._trials[-1] if self._trials else None
        return 0 if last is None else round(last.sent * self._bracket.level / last.load)

    def _make_trial(self, load: float) -> Trial | None:
        """Run one trial; None if a worker was lost."""
        search = self.search
        unit = "/min" if search.load == "rate" else " users"
        sent_before, begin_s = self._sent, self._next_begin_s()
        self._attempts = []
        order = TrialOrder(
            number=self._number,
            stage=f"trial {self._number}: {round(load, 1):g}{unit}",
            load=load,
            begin_s=begin_s,
            end_s=begin_s + search.stage_s,
            first_index=self._next_index,
            max_requests=max(0, search.requests - self._sent),
        )
        due_s: list[float] = []
        if search.load == "rate":
            due_s = trial_times(search, load, self.scenario.seed, self._number)
            self._next_index += len(due_s)
        self._show(order.stage)
        self._start_trial(order)
        was_cut = self._wait(order, calls=sum(at_s >= self.scenario.warm_up_s for at_s in due_s))
        if was_cut is None:
            return None
        values = {check.metric: measure(self._attempts, check.metric) for check in search.checks}
        late = sum(report.late for report in self._reports)
        settled = was_cut or all(report.settled for report in self._reports if report.done)
        valid = not was_cut and settled and late <= MAX_LATE_FRACTION * len(due_s)
        return Trial(
            stage=order.stage,
            load=load,
            held=valid and self._held(values),
            sent=self._sent - sent_before,
            counted=len(self._attempts),
            settled=settled,
            cut=was_cut,
            no_free_user=late,
            values=values,
        )

    def _held(self, values: dict[str, float | None]) -> bool | None:
        """Return whether the objectives held; None if no known one failed but another is unknown."""
        known = [
            (check, value) for check in self.search.checks if (value := values[check.metric]) is not None
        ]
        if not all(check.holds(value) for check, value in known):
            return False
        return True if len(known) == len(self.search.checks) else None

    def _wait(self, order: TrialOrder, *, calls: int) -> bool | None:
        """Wait until all workers are done. Return whether the trial was cut; None if a worker was lost.

        The trial is cut as soon as it can't pass any more. That is unknown in a closed loop, where ``calls``,
        the number of calls that will be sent, is 0.
        """
        was_cut = False

        def cut_if_failed() -> None:
            nonlocal was_cut
            if not calls or was_cut:
                return
            if cannot_pass(self._attempts, self.search.checks, calls, self._max_attempts):
                was_cut = True
                self._cut_trial(order.number)

        return was_cut if self._listen(order.end_s + MAX_SETTLE_S, cut_if_failed) else None

    def _write(self, ended: str | None) -> SearchResult:
        result = SearchResult(
            load=self.search.load,
            objectives=dict(self.search.objectives),
            precision=self.search.precision,
            confirm=self.search.confirm,
            holds=self._bracket.holds,
            fails=self._bracket.fails,
            ended=ended,
            requests=self._sent,
            trials=self._trials,
        )
        write_atomically(self._folder.search_json, msgspec.json.format(msgspec.json.encode(result), indent=2))
        return result
