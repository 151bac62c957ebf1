"""One process's part in the trials of a search: it sends its share of each, and tells what it saw."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Literal

import gevent
import msgspec
from gevent.event import Event

from bltybench.load.run.budget import share
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.scenario.arrivals.arrivals import Arrival, step_times
from bltybench.scenario.capacity import CapacitySearch, TrialAttempt

Short = Literal["requests", "budget"]

TELL_S = 0.2
"""How often a process tells what it has seen while a trial goes on."""

SETTLE_S = 10.0
"""How long the answers of a trial are waited for; a trial with answers outstanding then has failed."""


class TrialOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One trial, the same for every process: each works out its own share."""

    number: int
    stage: str
    load: float
    """Requests a minute, or users."""
    begin_s: float
    """On the run's axis; so is ``end_s``."""
    end_s: float
    first_index: int
    """The number of its first request in the run."""
    may_send: int
    """The most requests that all processes together may send in it, where users decide how many there are."""


class TrialReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a process saw since it last told."""

    number: int
    """The trial's."""
    sent: int
    """Attempts, the warm-up's included."""
    late: int
    """Arrivals that found no free user."""
    seen: list[TrialAttempt]
    """Attempts that count."""
    done: bool
    """It has sent all that it will and waited for the answers."""
    settled: bool
    """All of it was sent, and all answers came."""
    short: Short | None
    """It could not send its share any more: the search's requests are used up, or the target's budget."""


def trial_times(search: CapacitySearch, load: float, seed: int, number: int) -> list[float]:
    """Return when the requests of a trial of a rate are due (s), from its beginning."""
    rng = Random(f"{seed}:trial:{number}")
    return list(step_times(load, search.stage_s, search.spacing, rng))


class TrialWorker:
    """The ``index``-th of ``workers`` processes. Its users ask what to send, ``tell`` gets what was seen.

    ``spent`` says whether the target's budget is used up here.
    """

    def __init__(
        self,
        search: CapacitySearch,
        *,
        seed: int,
        warm_up_s: float,
        index: int,
        workers: int,
        now_s: Callable[[], float],
        spent: Callable[[], bool],
    ) -> None:
        self._search = search
        self._seed = seed
        self._warm_up_s = warm_up_s
        self._index = index
        self._workers = workers
        self._now_s = now_s
        self._spent = spent
        self._queue: deque[Arrival] = deque()
        self._changed = Event()
        self._cut = Event()
        self._over = False
        self._order: TrialOrder | None = None
        self._active = self._left = self._open = 0
        self._first_due_ns: dict[str, int] = {}
        self._forget()

    def _forget(self) -> None:
        self._sent = self._late = 0
        self._seen: list[TrialAttempt] = []

    @property
    def stage(self) -> str | None:
        """The trial that goes on; None between trials."""
        return None if self._order is None else self._order.stage

    # What users ask

    def next_arrival(self) -> Arrival | None:
        """Return the next arrival when it is due, or at once where it was due before; None at the end.

        Users wait here and not on their own: a trial that is cut takes back what was claimed and not yet due.
        """
        while not self._over:
            if not self._queue:
                self._changed.wait()
                continue
            arrival = self._queue.popleft()
            self._open += 1
            left_s = arrival.at_s - self._now_s()
            self._late += left_s < 0
            if left_s <= 0 or not self._cut.wait(left_s):
                return arrival
            self._open -= 1
        return None

    def wait_for_place(self, user: int) -> bool:
        """Wait until ``user`` is among those that a trial wants; False when the search is over."""
        while not self._over:
            if user < self._active and self._left > 0:
                self._open += 1
                return True
            self._changed.wait()
        return False

    def call_ended(self) -> None:
        """Note that a call that was handed out is over, whatever became of it."""
        self._open -= 1

    def note(self, attempt: Attempt) -> None:
        """Take in an attempt."""
        sent = attempt.sent_ns is not None
        self._sent += sent
        self._left -= sent
        first_due_ns = self._first_due_ns.setdefault(attempt.call_id, attempt.due_ns)
        order = self._order
        if order is None or attempt.stage != order.stage or attempt.outcome is Outcome.CANCELLED:
            return
        if first_due_ns / 1e9 >= order.begin_s + self._warm_up_s:
            self._seen.append(_seen(attempt, first_due_ns))

    # What the search says

    def stop(self) -> None:
        """Send nothing more."""
        self._over = True
        self._active = 0
        self._queue.clear()
        self._cut.set()
        self._wake()

    def cut(self, number: int) -> None:
        """End a trial before its time: what was not sent yet is not sent."""
        if self._order is not None and self._order.number == number:
            self._cut.set()

    def play(self, order: TrialOrder, tell: Callable[[TrialReport], None]) -> None:
        """Send this process's share of a trial. Runs as a greenlet, until all was told."""
        self._order = order
        self._first_due_ns.clear()
        self._forget()
        self._cut.clear()
        self._left = share(order.may_send, self._index, self._workers) or 0
        rate = self._search.load == "rate"
        if rate:
            self._queue.extend(self._own_arrivals(order))
        else:
            gevent.sleep(max(0.0, order.begin_s - self._now_s()))
            self._active = int(order.load)
        self._wake()
        while (left_s := order.end_s - self._now_s()) > 0 and not self._cut.wait(min(TELL_S, left_s)):
            tell(self._told(order.number))
            if self._short() is not None:
                self._cut.set()
        short = self._short()
        self._active = 0
        if self._cut.is_set():
            self._queue.clear()
        settled = self._settle()
        # The next order may come while this is told.
        self._order = None
        if not self._over:
            tell(self._told(order.number, done=True, settled=settled, short=short))

    def _own_arrivals(self, order: TrialOrder) -> list[Arrival]:
        return [
            Arrival(order.first_index + place, order.begin_s + at_s, None, None, stage=order.stage)
            for place, at_s in enumerate(trial_times(self._search, order.load, self._seed, order.number))
            if place % self._workers == self._index
        ]

    def _settle(self) -> bool:
        """Wait for the answers to what was sent; say whether all was sent and all came."""
        give_up_s = self._now_s() + SETTLE_S
        while (self._open or self._queue) and self._now_s() < give_up_s and not self._over:
            gevent.sleep(0.01)
        unsent = bool(self._queue)
        self._queue.clear()
        return self._open == 0 and not unsent

    def _short(self) -> Short | None:
        if self._spent():
            return "budget"
        return "requests" if self._search.load == "users" and self._left <= 0 else None

    def _told(
        self, number: int, *, done: bool = False, settled: bool = False, short: Short | None = None
    ) -> TrialReport:
        told = TrialReport(
            number=number,
            sent=self._sent,
            late=self._late,
            seen=self._seen,
            done=done,
            settled=settled,
            short=short,
        )
        self._forget()
        return told

    def _wake(self) -> None:
        changed, self._changed = self._changed, Event()
        changed.set()


def encode(message: TrialOrder | TrialReport) -> dict[str, Any]:
    """Return a message as plain values that Locust can carry."""
    values: dict[str, Any] = msgspec.to_builtins(message)
    return values


def decode_order(values: Any) -> TrialOrder:
    """Return an order from plain values. Raises msgspec.ValidationError on anything else."""
    return msgspec.convert(values, TrialOrder)


def decode_told(values: Any) -> TrialReport:
    """Return what was told from plain values. Raises msgspec.ValidationError on anything else."""
    return msgspec.convert(values, TrialReport)


def _seen(attempt: Attempt, first_due_ns: int) -> TrialAttempt:
    if attempt.outcome is not Outcome.OK or attempt.sent_ns is None:
        refused = attempt.outcome is Outcome.RATE_LIMITED
        return TrialAttempt(attempt.call_id, "refused" if refused else "error")
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
