"""The search for the capacity, at work: one trial after another, each a stage of the run."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from random import Random

import gevent
import msgspec
from gevent.event import Event

from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.search import SearchResult, Trial
from bltybench.scenario.arrivals import Arrival, step_times
from bltybench.scenario.capacity import Bracket, Search, Seen, measure

logger = logging.getLogger("bltybench")

LEAD_S = 0.1
"""From the decision on a trial to its first request."""

SETTLE_S = 10.0
"""How long the answers of a trial are waited for; a trial with answers outstanding then has failed."""

LATE_SHARE = 0.01
"""The most arrivals of a trial that may have found no free user; with more it has failed."""


class Searcher:
    """Decides what is sent in a run that searches. One process only: every trial is judged as a whole."""

    def __init__(
        self, search: Search, *, seed: int, warm_up_s: float, folder: RunFolder, now_s: Callable[[], float]
    ) -> None:
        self._search = search
        self._warm_up_s = warm_up_s
        self._folder = folder
        self._now_s = now_s
        self._rng = Random(f"{seed}:arrivals")
        self._bracket = Bracket(
            search.start,
            search.max,
            precision=search.precision,
            confirm=search.confirm,
            whole=search.load == "users",
        )
        self._trials: list[Trial] = []
        self._queue: deque[Arrival] = deque()
        self._changed = Event()
        self._index = self._sent = self._open = self._late = 0
        self._active = 0
        self._begin_s = 0.0
        self._first_due_ns: dict[str, int] = {}
        self._seen: list[Seen] = []
        self.stage: str | None = None
        """The trial that goes on; None between trials."""
        self.finished = False
        """Nothing more is sent."""
        self.decided = False
        """It came to its own end."""

    # What users ask

    def next_arrival(self) -> Arrival | None:
        """Return the next arrival, waiting for the next trial if need be; None when the search is over."""
        while not self._queue:
            if self.finished:
                return None
            self._wait()
        arrival = self._queue.popleft()
        self._open += 1
        if self._now_s() > arrival.at_s:
            self._late += 1
        return arrival

    def wait_for_place(self, user: int) -> bool:
        """Wait until ``user`` is among those that a trial wants; False when the search is over."""
        while not self.finished:
            if user < self._active and self._sent < self._search.requests:
                self._open += 1
                return True
            self._wait()
        return False

    def _wait(self) -> None:
        self._changed.wait()

    def call_ended(self) -> None:
        """Note that a call that was handed out is over, whatever became of it."""
        self._open -= 1

    def note(self, attempt: Attempt) -> None:
        """Take in an attempt."""
        self._sent += attempt.sent_ns is not None
        first_due_ns = self._first_due_ns.setdefault(attempt.call_id, attempt.due_ns)
        if attempt.stage != self.stage or attempt.outcome is Outcome.CANCELLED:
            return
        if first_due_ns / 1e9 >= self._begin_s + self._warm_up_s:
            self._seen.append(_seen(attempt, first_due_ns))

    # The search itself

    def run(self) -> None:
        """Search until it is decided or the budget is spent. Runs as a greenlet."""
        search, bracket = self._search, self._bracket
        ended = "found"
        while not bracket.done:
            if self._sent + self._expected(bracket.level) > search.requests:
                ended = "requests"
                break
            trial = self._try(bracket.level)
            self._trials.append(trial)
            logger.info("%s", trial.sentence())
            if trial.held is None:
                ended = "too few answers"
                break
            bracket.add(trial.held)
            self._write(None)
            gevent.sleep(search.pause_s)
        self._write(ended)
        self.decided = True
        self.stop()

    def stop(self) -> None:
        """Send nothing more."""
        self.finished = True
        self._active = 0
        self._queue.clear()
        self._changed.set()

    def _expected(self, level: float) -> int:
        """Return how many requests a trial sends; of users, as many each as in the trial before."""
        if self._search.load == "rate":
            return round(level * self._search.stage_s / 60)
        last = self._trials[-1] if self._trials else None
        return 0 if last is None else round(last.sent * level / last.load)

    def _try(self, level: float) -> Trial:
        search = self._search
        unit = "/min" if search.load == "rate" else " users"
        self.stage = f"trial {len(self._trials) + 1}: {level:.6g}{unit}"
        self._begin_s = self._now_s() + LEAD_S
        self._first_due_ns.clear()
        self._seen = []
        self._late, sent_before = 0, self._sent
        due = 0
        if search.load == "rate":
            for at_s in step_times(level, search.stage_s, search.spacing, self._rng):
                self._queue.append(Arrival(self._index, self._begin_s + at_s, None, None, stage=self.stage))
                self._index += 1
                due += 1
        else:
            gevent.sleep(LEAD_S)
            self._active = int(level)
        self._wake()
        gevent.sleep(max(0.0, self._begin_s + search.stage_s - self._now_s()))
        self._active = 0
        settled = self._settle()
        values = {check.metric: measure(self._seen, check.metric) for check in search.checks}
        held: bool | None = settled and self._late <= LATE_SHARE * due
        known = [(check, value) for check in search.checks if (value := values[check.metric]) is not None]
        if held and len(known) < len(search.checks) and not any(not c.holds(v) for c, v in known):
            held = None
        elif held:
            held = all(check.holds(value) for check, value in known)
        trial = Trial(
            stage=self.stage,
            load=level,
            held=held,
            sent=self._sent - sent_before,
            counted=len(self._seen),
            settled=settled,
            no_free_user=self._late,
            values=values,
        )
        self.stage = None
        return trial

    def _settle(self) -> bool:
        """Wait for the answers to what was sent; say whether all came."""
        give_up_s = self._now_s() + SETTLE_S
        while (self._open or self._queue) and self._now_s() < give_up_s:
            gevent.sleep(0.01)
        self._queue.clear()
        return self._open == 0

    def _wake(self) -> None:
        changed, self._changed = self._changed, Event()
        changed.set()

    def _write(self, ended: str | None) -> None:
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


def _seen(attempt: Attempt, first_due_ns: int) -> Seen:
    if attempt.outcome is not Outcome.OK or attempt.sent_ns is None:
        refused = attempt.outcome is Outcome.RATE_LIMITED
        return Seen(attempt.call_id, "refused" if refused else "error")
    ttft = tpot = None
    if attempt.first_token_ns is not None:
        ttft = (attempt.first_token_ns - attempt.sent_ns) / 1e6
        steps = (attempt.completion_tokens or 0) - 1
        if attempt.last_token_ns is not None and steps > 0:
            tpot = (attempt.last_token_ns - attempt.first_token_ns) / 1e6 / steps
    return Seen(
        attempt.call_id,
        "ok",
        ttft=ttft,
        tpot=tpot,
        latency=(attempt.end_ns - first_due_ns) / 1e6,
        attempt_latency=(attempt.end_ns - attempt.sent_ns) / 1e6,
    )
