"""Measuring the master's clock, in a worker on another machine."""

import platform
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import gevent
import msgspec
from gevent.event import Event
from locust.exception import RPCError

from bltybench.errors import UserError
from bltybench.runs.clocks import ClockSample
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Clock, boot_id
from bltybench.runs.spool import Spool

ASK_MESSAGE = "bltybench_clock"
"""Message to the process that owns the run, and its answer: what time is it?"""

FIRST_EXCHANGES = 10
"""Exchanges before the run. The fastest one counts."""
EXCHANGES = 4
"""Exchanges of each measurement during the run."""
PERIOD_S = 5.0
"""Interval of the measurements during the run, in seconds."""
MAX_ANSWER_S = 2.0
"""Time after which an answer no longer counts, in seconds."""
MAX_WALL_OFFSET_S = 60.0
"""Largest difference between the wall clocks of a worker and the master, in seconds."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's question for the time."""

    asked_ns: int
    """The worker's monotonic clock."""


class ClockAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a question."""

    asked_ns: int
    monotonic_ns: int
    wall_ns: int

    @classmethod
    def to(cls, question: Question) -> "ClockAnswer":
        """Return the answer at the current time."""
        return cls(asked_ns=question.asked_ns, monotonic_ns=time.monotonic_ns(), wall_ns=time.time_ns())


class _Exchange(NamedTuple):
    round_trip_ns: int
    asked_ns: int
    ahead_ns: int
    """The master's monotonic clock minus the worker's."""
    wall_ahead_ns: int


class MasterClock:
    """Follows the master's clock during one run."""

    def __init__(self, folder: RunFolder, worker: str, ask: Callable[[Question], None]) -> None:
        """Raise OSError if the measurements can't be stored in ``folder``."""
        self._spool = Spool(folder.clocks_spool / f"{worker}.jsonl")
        self._ask = ask
        self._answer: ClockAnswer | None = None
        self._answered = Event()
        self._asked_ns = self._answered_ns = 0
        self._first: _Exchange | None = None
        self._start_ns = 0
        """Zero of the run's axis on this machine's monotonic clock."""

    def take(self, answer: ClockAnswer) -> None:
        """Note an answer of the master."""
        if answer.asked_ns == self._asked_ns:
            self._answered_ns, self._answer = time.monotonic_ns(), answer
            self._answered.set()

    def measure_first(self) -> None:
        """Measure the clock before the run. Raise UserError if the wall clocks differ too much."""
        while (first := self._fastest(FIRST_EXCHANGES)) is None:
            pass
        self._first = first
        ahead_s = first.wall_ahead_ns / 1e9
        if abs(ahead_s) > MAX_WALL_OFFSET_S:
            direction = "behind" if ahead_s > 0 else "ahead of"
            raise UserError(
                f"the clock of {platform.node()} is {abs(ahead_s):,.0f} s {direction} that of the master",
                remedy="set the clocks of both machines, for example with NTP",
            )

    def translated(self, clock: Clock) -> Clock:
        """Return the anchor of the run's axis on this machine's clock. Later measurements refer to it."""
        if self._first is None:
            raise RuntimeError("the clock is measured before the run")
        self._start_ns = clock.monotonic_ns - self._first.ahead_ns
        self._store(self._first)
        return msgspec.structs.replace(clock, monotonic_ns=self._start_ns, boot_id=boot_id())

    def follow(self) -> None:
        """Measure the clock during the run, until the greenlet is killed."""
        while True:
            gevent.sleep(PERIOD_S)
            self.measure()

    def measure(self) -> None:
        """Measure the clock now if the run has begun and the master answers."""
        if self._start_ns and (fastest := self._fastest(EXCHANGES)):
            self._store(fastest)

    def close(self) -> None:
        """Close the file of the measurements."""
        self._spool.close()

    def _store(self, exchange: _Exchange) -> None:
        applied_ns = self._first.ahead_ns if self._first else 0
        middle_ns = exchange.asked_ns + exchange.round_trip_ns // 2
        self._spool.append(
            ClockSample(
                host=platform.node(),
                at_ns=middle_ns - self._start_ns,
                ahead_ns=exchange.ahead_ns - applied_ns,
                round_trip_ns=exchange.round_trip_ns,
                applied_ns=applied_ns,
            )
        )
        self._spool.flush()

    def _fastest(self, count: int) -> _Exchange | None:
        exchanges = [exchange for _ in range(count) if (exchange := self._exchange())]
        return min(exchanges, default=None)

    def _exchange(self) -> _Exchange | None:
        self._answered.clear()
        asked_ns, asked_wall_ns = time.monotonic_ns(), time.time_ns()
        self._asked_ns = asked_ns
        with suppress(RPCError):  # as if there were no answer
            self._ask(Question(asked_ns=asked_ns))
        if not self._answered.wait(MAX_ANSWER_S) or self._answer is None:
            return None
        answer = self._answer
        round_trip_ns = self._answered_ns - asked_ns
        half_ns = round_trip_ns // 2
        return _Exchange(
            round_trip_ns=round_trip_ns,
            asked_ns=asked_ns,
            ahead_ns=answer.monotonic_ns - asked_ns - half_ns,
            wall_ahead_ns=answer.wall_ns - asked_wall_ns - half_ns,
        )
