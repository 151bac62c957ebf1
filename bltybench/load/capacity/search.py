"""The search for the capacity, at work: one trial after another, each a stage of the run.

It runs in the process that owns the run and decides alone. The load of a trial is made by that process, or by
all workers together: each gets the order, sends its share, and tells what it saw.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
import msgspec
from gevent.event import Event

from bltybench.load.capacity.worker import SETTLE_S, TrialOrder, TrialReport, trial_times
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.search import SearchResult, Trial
from bltybench.scenario.bracket import Bracket
from bltybench.scenario.capacity import CapacitySearch, TrialAttempt, hopeless, measure
from bltybench.scenario.workload import Scenario

logger = logging.getLogger("bltybench")

LEAD_S = 0.1
LEAD_WORKERS_S = 0.5
"""From the decision on a trial to its first request: time for the order to come everywhere."""

LOST_S = 10.0
"""A worker that has told nothing so long after it should have is lost, and the search ends."""

LATE_SHARE = 0.01
"""The most arrivals of a trial that may have found no free user; with more it has failed."""


class Searcher:
    """Decides what is sent in a run that searches.

    ``order`` gives a trial to all ``parts`` (processes that make load), ``cut`` ends it in them.
    """

    def __init__(
        self,
        search: CapacitySearch,
        scenario: Scenario,
        *,
        parts: int,
        folder: RunFolder,
        now_s: Callable[[], float],
        order: Callable[[TrialOrder], None],
        cut: Callable[[int], None],
    ) -> None:
        self._search = search
        self._scenario = scenario
        self._parts = parts
        self._folder = folder
        self._now_s = now_s
        self._order = order
        self._cut = cut
        self._bracket = Bracket(
            search.start,
            search.max,
            precision=search.precision,
            confirm=search.confirm,
            whole=search.load == "users",
            step=search.step,
        )
        self._attempts_each = 1 if scenario.retry.policy == "none" else scenario.retry.max_attempts
        self._trials: list[Trial] = []
        self._index = self._sent = 0
        self._number = 0
        self._told: list[TrialReport] = []
        self._seen: list[TrialAttempt] = []
        self._heard = Event()
        self.ready = Event()
        """To be set when all users are there."""
        self.ended: str | None = None
        """Why it came to its own end; None while it goes on, and where it was stopped."""

    def take(self, told: TrialReport) -> None:
        """Take in what a process saw."""
        self._sent += told.sent
        if told.number == self._number:
            self._told.append(told)
            self._seen.extend(told.seen)
            self._heard.set()

    def run(self) -> None:
        """Search until it is decided or a budget is spent. Runs as a greenlet."""
        self.ready.wait()
        ended = self._step()
        while ended is None:
            self._write(None)
            gevent.sleep(self._search.pause_s)
            ended = self._step()
        logger.info("%s", self._write(ended).sentence())
        self.ended = ended

    def _step(self) -> str | None:
        """Make one trial; return why the search ends, None where it goes on."""
        if self._sent + self._expected(self._bracket.level) > self._search.requests:
            return "requests"
        trial = self._try(self._bracket.level)
        if trial is None:
            return "worker lost"
        short = next((told.short for told in self._told if told.short is not None), None)
        if short is not None:
            return short
        self._trials.append(trial)
        logger.info("%s", trial.sentence())
        if trial.held is None:
            return "too few answers"
        self._bracket.add(trial.held)
        return "found" if self._bracket.done else None

    def _expected(self, level: float) -> int:
        """Return how many requests a trial sends; of users, as many each as in the trial before."""
        if self._search.load == "rate":
            return round(level * self._search.stage_s / 60)
        last = self._trials[-1] if self._trials else None
        return 0 if last is None else round(last.sent * level / last.load)

    def _try(self, level: float) -> Trial | None:
        """Make a trial; None where a process was lost."""
        search = self._search
        unit = "/min" if search.load == "rate" else " users"
        self._number += 1
        self._told, self._seen = [], []
        sent_before = self._sent
        begin_s = max(0.0, self._now_s()) + (LEAD_WORKERS_S if self._parts > 1 else LEAD_S)
        order = TrialOrder(
            number=self._number,
            stage=f"trial {self._number}: {level:.6g}{unit}",
            load=level,
            begin_s=begin_s,
            end_s=begin_s + search.stage_s,
            first_index=self._index,
            may_send=max(0, search.requests - self._sent),
        )
        due: list[float] = []
        if search.load == "rate":
            due = trial_times(search, level, self._scenario.seed, self._number)
            self._index += len(due)
        self._order(order)
        counted_due = sum(at_s >= self._scenario.warm_up_s for at_s in due)
        was_cut = self._listen(order, counted_due)
        if was_cut is None:
            return None
        values = {check.metric: measure(self._seen, check.metric) for check in search.checks}
        late = sum(told.late for told in self._told)
        settled = was_cut or all(told.settled for told in self._told if told.done)
        return Trial(
            stage=order.stage,
            load=level,
            held=not was_cut and settled and late <= LATE_SHARE * len(due) and self._verdict(values),
            sent=self._sent - sent_before,
            counted=len(self._seen),
            settled=settled,
            cut=was_cut,
            no_free_user=late,
            values=values,
        )

    def _verdict(self, values: dict[str, float | None]) -> bool | None:
        """Return whether the objectives held; None where those that are known did and another is not."""
        known = [
            (check, value) for check in self._search.checks if (value := values[check.metric]) is not None
        ]
        if not all(check.holds(value) for check, value in known):
            return False
        return True if len(known) == len(self._search.checks) else None

    def _listen(self, order: TrialOrder, calls: int) -> bool | None:
        """Hear what is seen until all are done; say whether the trial was cut, None where one was lost.

        It is cut as soon as it cannot hold any more. How much users will send is not known: theirs is not.
        """
        was_cut = False
        give_up_s = order.end_s + SETTLE_S + LOST_S
        while sum(told.done for told in self._told) < self._parts:
            self._heard.clear()
            if not self._heard.wait(max(0.0, give_up_s - self._now_s())):
                return None
            if (
                calls
                and not was_cut
                and hopeless(self._seen, self._search.checks, calls, self._attempts_each)
            ):
                was_cut = True
                self._cut(order.number)
        return was_cut

    def _write(self, ended: str | None) -> SearchResult:
        result = SearchResult(
            load=self._search.load,
            objectives=dict(self._search.objectives),
            precision=self._search.precision,
            confirm=self._search.confirm,
            holds=self._bracket.holds,
            fails=self._bracket.fails,
            ended=ended,
            requests=self._sent,
            trials=self._trials,
        )
        write_atomically(self._folder.search_json, msgspec.json.format(msgspec.json.encode(result), indent=2))
        return result
