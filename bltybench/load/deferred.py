"""Answers that nobody waits for: read and recorded together, at least once a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import gevent

from bltybench.wire.exchange import Exchange
from bltybench.wire.result import ExchangeResult
from bltybench.wire.scheduling.reader import Reader, slice_ns

MANY = 64
"""So many wait, then it is their turn: what a kill takes away, and what is in memory, stays little."""
MOST = 8 * MANY
"""More than this wait only where reading and recording are what the core cannot keep up with."""
PAUSE_S = 0.001
"""Between two slices. After a pause of 0 gevent would go on before it had looked at any socket."""


class DeferredRecorder:
    """Where ended exchanges wait until there are several, or until ``settle``.

    Code that has not run for some milliseconds costs several times what it does the second time: the
    processor has forgotten it while the event loop slept. Reading and recording are much code, and slow
    streams end one by one.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._waiting: deque[tuple[Exchange, Callable[[ExchangeResult], None]]] = deque()
        self._settler: gevent.Greenlet[[], None] | None = None

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether there is no place just now. Who comes so fast finds the code warm anyhow."""
        return len(self._waiting) >= MOST

    def add(self, exchange: Exchange, record: Callable[[ExchangeResult], None]) -> None:
        """Have an ended exchange read, and ``record`` called with what it came to. That must not raise."""
        self._waiting.append((exchange, record))
        if len(self._waiting) >= MANY and not self._settler:
            self._settler = gevent.spawn(self.settle)

    def settle(self) -> None:
        """Read and record all that wait, in slices behind the reads. Blocks this greenlet only."""
        until_ns = time.monotonic_ns() + slice_ns(len(self._waiting))
        while self._waiting:
            exchange, record = self._waiting.popleft()
            record(self._reader.read_now(exchange))
            if self._waiting and time.monotonic_ns() >= until_ns:
                gevent.sleep(PAUSE_S)
                until_ns = time.monotonic_ns() + slice_ns(len(self._waiting))
