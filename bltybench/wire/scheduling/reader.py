"""The parse queue: responses are parsed in short time slices, behind all socket reads.

The kernel keeps one timestamp per read, so anything that delays reads degrades the timestamps. Streams that
end together would delay reads by tens of milliseconds if each were parsed as it ends.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Waiter

from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure
from bltybench.wire.interpret import fold, interpret
from bltybench.wire.result import ExchangeResult
from bltybench.wire.scheduling.batched_reads import BatchedReads
from bltybench.wire.scheduling.early_reads import EarlyReads
from bltybench.wire.scheduling.open_streams import OpenStreams

MIN_SLICE_NS = 1_000_000
SLICE_NS_PER_JOB = 20_000
"""Longer queues get longer slices, so that the queue stays bounded under a load that never pauses."""
MAX_SLICE_NS = 20_000_000
MAX_QUEUED_FOLDS = 256
"""With this many jobs in the queue, open streams are folded immediately. After a stall, a thousand long
streams deliver everything that the kernel kept for them in one batch."""
MAX_INLINE_BYTES = 4096
"""Responses up to this size are parsed immediately, because queueing would cost more than parsing."""

OnFolded = Callable[[Exchange, Failure | None], None]


def slice_ns(queued: int) -> int:
    """Return the time slice for parsing queued responses before the next socket reads."""
    return min(MAX_SLICE_NS, MIN_SLICE_NS + SLICE_NS_PER_JOB * queued)


class Reader:
    """Interprets the responses of all connections of one event loop."""

    def __init__(self) -> None:
        self._loop = gevent.get_hub().loop
        self.batched_reads = BatchedReads(self._loop)
        """The connections with slow streams."""
        self.early_reads = EarlyReads(self._loop)
        """The other connections."""
        self.open_streams = OpenStreams(self._loop)
        self._jobs: deque[tuple[Exchange, Any, OnFolded | None]] = deque()
        # A timer of lower priority: libev serves it once per iteration, after the sockets. An idle watcher
        # would starve while any socket is busy, and a loop callback runs before the sockets.
        self._timer = self._loop.timer(0.0, priority=-1)
        self.unread = 0
        """Number of ended exchanges that wait to be interpreted."""

    @property
    def backlog(self) -> int:
        """Number of responses, or parts of responses, that are received but not yet parsed."""
        return len(self._jobs)

    def read_arrived(self) -> None:
        """Read everything that has arrived. Call this between units of work that are not reads."""
        self.early_reads.read()
        self.batched_reads.read_ready()

    def ended(self, exchange: Exchange, waiter: Any) -> None:
        """Wake the sender of an ended exchange: after parsing if it awaits a long stream, else immediately.

        Parsing first saves a second wakeup, which is most of what a stream costs its user.
        """
        long = exchange.kept_bytes > MAX_INLINE_BYTES or exchange.queued
        if long and exchange.awaited and exchange.stream:
            self.unread += 1
            self._enqueue(exchange, waiter, None)
        else:
            # A callback, not a switch: what the user's code does next must wait behind the other reads.
            self._loop.run_callback(waiter.switch, None)

    def read(self, exchange: Exchange) -> ExchangeResult:
        """Return the result of an ended exchange. Can block this greenlet until the queue gets to it."""
        if not exchange.done:
            raise RuntimeError("the exchange has not ended")
        if exchange.result is None and (exchange.kept_bytes > MAX_INLINE_BYTES or exchange.queued):
            waiter = Waiter()
            self.unread += 1
            self._enqueue(exchange, waiter, None)
            waiter.get()
        return self.read_now(exchange)

    def read_now(self, exchange: Exchange) -> ExchangeResult:
        """Return the result of an ended exchange, ahead of the queue. Later calls return the same object."""
        if exchange.result is None:
            exchange.result = interpret(exchange)
        return exchange.result

    def fold(self, exchange: Exchange, on_folded: OnFolded) -> None:
        """Fold an open stream soon, then call ``on_folded``. Does nothing if it is queued already."""
        if exchange.queued:
            return
        if len(self._jobs) >= MAX_QUEUED_FOLDS:
            on_folded(exchange, fold(exchange).overrun())
        else:
            exchange.queued = True
            self._enqueue(exchange, None, on_folded)

    def _enqueue(self, exchange: Exchange, waiter: Any, on_folded: OnFolded | None) -> None:
        self._jobs.append((exchange, waiter, on_folded))
        if len(self._jobs) == 1:
            self._timer.start(self._run_slice)

    def _run_slice(self) -> None:
        jobs = self._jobs
        self._timer.stop()
        until_ns = time.monotonic_ns() + slice_ns(len(jobs))
        try:
            while jobs:
                self.read_arrived()
                self._run(*jobs.popleft())
                if time.monotonic_ns() >= until_ns:
                    break
        finally:
            if jobs and not self._timer.active:
                self._timer.start(self._run_slice)

    def _run(self, exchange: Exchange, waiter: Any, on_folded: OnFolded | None) -> None:
        if on_folded is not None:
            exchange.queued = False
            on_folded(exchange, fold(exchange).overrun())
            return
        self.unread -= 1
        try:
            self.read_now(exchange)
        except Exception as error:  # noqa: BLE001 - a bug here belongs to the waiting caller, not to the loop
            self._loop.run_callback(waiter.throw, error)
        else:
            # A callback, not a switch: the user's code would run within the slice.
            self._loop.run_callback(waiter.switch, None)
