"""The parse queue: answers are looked at in short slices, behind all reads.

The kernel keeps one stamp a read, so whatever delays reads spoils stamps. Streams that end together
would delay them by tens of milliseconds if each were parsed at its end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Waiter

from bltybench.wire.exchange import Exchange, Failure
from bltybench.wire.interpret import Reading, conclude, fold
from bltybench.wire.scheduling.batched_reads import BatchedReads

SLICE_NS = 1_000_000
SLICE_NS_PER_JOB = 20_000
"""A longer queue gets longer slices: under a load that never pauses it must not grow without bound."""
MAX_SLICE_NS = 20_000_000
MOST_WAITING = 256
"""Where so many answers, or parts of them, wait, what an open stream has kept is folded at once: after a
stall a thousand long streams have, in one go, all that the kernel kept for them."""
INLINE_BYTES = 4096
"""An answer this small is read at once: queueing would cost more than reading."""

Folded = Callable[[Exchange, Failure | None], None]


def slice_ns(waiting: int) -> int:
    """Return how long it may be worked at what is waiting before the next reads."""
    return min(MAX_SLICE_NS, SLICE_NS + SLICE_NS_PER_JOB * waiting)


class Reader:
    """Reads answers for all connections of one event loop."""

    def __init__(self) -> None:
        self._loop = gevent.get_hub().loop
        self.rounds = BatchedReads(self._loop)
        """Of its connections: those whose streams are slow."""
        self._jobs: deque[tuple[Exchange, Any, Folded | None]] = deque()
        # A timer of lower priority: libev serves it once a round, after the sockets of that round.
        # An idle watcher would starve while any socket is busy; a loop callback runs before sockets.
        self._timer = self._loop.timer(0.0, priority=-1)
        self.unread = 0
        """Answers that have ended and wait to be read."""

    @property
    def backlog(self) -> int:
        """Answers, or parts of them, received and not yet looked at."""
        return len(self._jobs)

    def ended(self, exchange: Exchange, waiter: Any) -> None:
        """An exchange has ended: have a longer stream read in its turn, then wake who waits for it.

        Woken once and not twice, which is what a stream's user costs most. Who does not need the Reading is
        woken at once.
        """
        if exchange.awaited and exchange.stream and (exchange.kept_bytes > INLINE_BYTES or exchange.queued):
            self.unread += 1
            self._enqueue(exchange, waiter, None)
        else:
            # Not switched to from here: what the user's code does next must wait behind the other reads.
            self._loop.run_callback(waiter.switch, None)

    def read(self, exchange: Exchange) -> Reading:
        """Return what an ended exchange came to; may block this greenlet until its turn has come."""
        if not exchange.done:
            raise RuntimeError("the exchange has not ended")
        if exchange.reading is None and (exchange.kept_bytes > INLINE_BYTES or exchange.queued):
            waiter = Waiter()
            self.unread += 1
            self._enqueue(exchange, waiter, None)
            waiter.get()
        return self.read_now(exchange)

    def read_now(self, exchange: Exchange) -> Reading:
        """Return what an ended exchange came to, whatever else waits. Any other time it is the same."""
        if exchange.reading is None:
            exchange.reading = conclude(exchange)
        return exchange.reading

    def fold(self, exchange: Exchange, folded: Folded) -> None:
        """Have an open stream folded soon, then call ``folded``. Once queued it is not queued again."""
        if exchange.queued:
            return
        if len(self._jobs) >= MOST_WAITING:
            folded(exchange, fold(exchange))
        else:
            exchange.queued = True
            self._enqueue(exchange, None, folded)

    def _enqueue(self, exchange: Exchange, waiter: Any, folded: Folded | None) -> None:
        self._jobs.append((exchange, waiter, folded))
        if len(self._jobs) == 1:
            self._timer.start(self._serve)

    def _serve(self) -> None:
        jobs = self._jobs
        self._timer.stop()
        until_ns = time.monotonic_ns() + slice_ns(len(jobs))
        try:
            while jobs:
                self._do(*jobs.popleft())
                if time.monotonic_ns() >= until_ns:
                    break
        finally:
            if jobs and not self._timer.active:
                self._timer.start(self._serve)

    def _do(self, exchange: Exchange, waiter: Any, folded: Folded | None) -> None:
        if folded is not None:
            exchange.queued = False
            folded(exchange, fold(exchange))
            return
        self.unread -= 1
        try:
            self.read_now(exchange)
        except Exception as error:  # noqa: BLE001 - a bug here belongs to who waits, not to the event loop
            self._loop.run_callback(waiter.throw, error)
        else:
            # Not switched to from here: the user's code would run inside the slice.
            self._loop.run_callback(waiter.switch, None)
