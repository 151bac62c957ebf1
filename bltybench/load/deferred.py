"""Responses that no user waits for, parsed and recorded in batches."""

import time
from collections import deque
from collections.abc import Callable

import gevent

from bltybench.wire.exchange import Exchange
from bltybench.wire.result import ExchangeResult
from bltybench.wire.scheduling.reader import Reader, slice_ns

BATCH_SIZE = 64
"""Exchanges that start a batch. It bounds the memory used, and the records lost if the process is killed."""
MAX_QUEUED = 8 * BATCH_SIZE
"""Maximum exchanges in the queue. It fills up only if the core can't keep up with parsing and recording."""
PAUSE_S = 0.001
"""Pause between two slices, in seconds. After a pause of 0, gevent resumes without polling any socket."""


class DeferredRecorder:
    """A queue of ended exchanges, recorded in batches or by ``settle``.

    Code that has not run for some milliseconds costs several times as much, because CPU caches go cold while
    the event loop sleeps. Parsing and recording are much code, and slow streams end one at a time.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._queue: deque[tuple[Exchange, Callable[[ExchangeResult], None]]] = deque()
        self._settler: gevent.Greenlet[[], None] | None = None

    def __len__(self) -> int:
        """Return the number of queued exchanges."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether the queue is full. At that rate the code stays in cache, so batching gains nothing."""
        return len(self._queue) >= MAX_QUEUED

    def add(self, exchange: Exchange, record: Callable[[ExchangeResult], None]) -> None:
        """Queue an ended exchange. ``record`` is later called with its result and must not raise."""
        self._queue.append((exchange, record))
        if len(self._queue) >= BATCH_SIZE and not self._settler:
            self._settler = gevent.spawn(self.settle)

    def settle(self) -> None:
        """Record what is queued now, in slices that let socket reads go first. Blocks this greenlet only.

        What is queued meanwhile waits for the next call: at full load, the queue is never empty.
        """
        until_ns = time.monotonic_ns() + slice_ns(len(self._queue))
        for _ in range(len(self._queue)):
            if not self._queue:  # another greenlet was faster
                return
            self._reader.read_arrived()
            exchange, record = self._queue.popleft()
            record(self._reader.read_now(exchange))
            if self._queue and time.monotonic_ns() >= until_ns:
                gevent.sleep(PAUSE_S)
                until_ns = time.monotonic_ns() + slice_ns(len(self._queue))
