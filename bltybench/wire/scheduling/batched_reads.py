"""Batched reads of slow streams, as a network card collects packets before it interrupts.

A wakeup costs several times what a read does, and a stream of 50 events per second would wake the process for
each one. The kernel timestamps arrivals, so reading every few milliseconds instead loses nothing, as long as
the stream's next event does not arrive sooner. Only streams whose events keep arriving far apart, one per
read, are batched; the first event that arrives close to another ends it. A connection stays batched from one
stream to the next if the first was slow from its first event on, because leaving and rejoining costs as much
as a few reads. If too few streams are slow for batches to pay, they are read as their bytes arrive.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

from gevent import monkey

from bltybench.wire.scheduling.aligned_timer import AlignedTimer

BATCH_PERIOD_S = 0.01
"""Time between batches. libev waits in whole milliseconds, so a batch is up to one late, more if delayed."""
MIN_GAP_NS = 12_000_000
"""Gap between events of a slow stream: more than the time between two batches."""
MIN_SLOW_READS = 5
"""Consecutive reads after MIN_GAP_NS that make a stream slow. Uneven streams hardly ever have that many."""
MIN_SLOW_READS_AGAIN = 2
"""The same if the connection's previous stream was slow at its end, though not from its beginning."""

_EDGE_TRIGGERED_READ = 1 | 1 << 31
"""EPOLLIN and EPOLLET: report new bytes once, not again in every batch. If a read is so large that bytes can
remain, its stream leaves the batches, and its own watcher reports the rest."""
_SAMPLE_SIZE = 64
"""Reads, or batches, after which batching starts or stops."""
_MIN_READS_PER_S = 300.0
"""Read rate at which batches pay. They wake the process 100 times per second, whatever there is to read."""


class Batchable(Protocol):
    """A connection that can be read in batches."""

    batched: bool

    def batch(self) -> None:
        """Read it in batches."""

    def resume(self) -> None:
        """Read it as its bytes arrive."""


class ReadPace:
    """Whether the streams of one connection are slow: single pieces, far apart, with kernel timestamps."""

    def __init__(self) -> None:
        self._slow_reads = 0
        self.always_slow = False
        """Whether the stream was slow from its first event on."""
        self.ended_slow = False
        """Whether the previous stream was slow at its end."""

    def begin(self) -> None:
        """Begin a stream."""
        self._slow_reads, self.always_slow = 0, True

    def adapt(self, io: Batchable, *, slow: bool) -> None:
        """Batch the reads of a slow stream after a read that was slow or not.

        The read that completes a response is not considered, because servers send the last events together.
        """
        if not slow:
            self._slow_reads, self.always_slow = 0, False
            if io.batched:
                io.resume()
            return
        self._slow_reads += 1
        if self._slow_reads >= (MIN_SLOW_READS_AGAIN if self.ended_slow else MIN_SLOW_READS):
            io.batch()


class BatchedReads:
    """Reads the slow streams of one event loop: in batches if there are many, else as their bytes arrive."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._epoll: Any = None
        self._watcher: Any = None
        self._timer: AlignedTimer | None = None
        self._reads: dict[int, Callable[[], None]] = {}
        self._read_count = self._batch_count = 0
        self._since_s = 0.0

    def __len__(self) -> int:
        """Return the number of slow streams, and of idle connections whose last stream was slow."""
        return len(self._reads)

    @property
    def batching(self) -> bool:
        """Whether they are read in batches now."""
        return self._timer is not None

    def add(self, fileno: int, read: Callable[[], None]) -> None:
        """Call ``read`` when there is something to read."""
        if self._epoll is None:
            # gevent removes epoll from the module because its wait would block the loop; here it never waits.
            # Only Linux has kernel timestamps, and so does epoll: elsewhere nothing is added.
            self._epoll = monkey.get_original("select", "epoll")()
            self._watcher = self._loop.io(self._epoll.fileno(), 1)
        if not self._reads:
            self._start_watching()
        self._reads[fileno] = read
        self._epoll.register(fileno, _EDGE_TRIGGERED_READ)

    def remove(self, fileno: int) -> None:
        """Stop calling it."""
        del self._reads[fileno]
        self._epoll.unregister(fileno)
        if not self._reads:
            self._stop_batching()
            self._watcher.stop()

    def read_ready(self) -> None:
        """Read everything that has arrived."""
        if not self._reads:
            return
        ready = self._epoll.poll(0)
        self._read_count += len(ready)
        reads = self._reads
        for fileno, _ in ready:
            read = reads.get(fileno)
            if read is not None:  # an earlier read can have removed it
                read()

    def _start_watching(self) -> None:
        self._read_count, self._since_s = 0, time.monotonic()
        self._watcher.start(self._on_readable)

    def _on_readable(self) -> None:
        self.read_ready()
        if self._read_count < _SAMPLE_SIZE:
            return
        now_s = time.monotonic()
        many = self._read_count > _MIN_READS_PER_S * (now_s - self._since_s)
        self._read_count, self._since_s = 0, now_s
        if many and self._reads:
            self._watcher.stop()
            self._batch_count = 0
            self._timer = AlignedTimer(self._loop, BATCH_PERIOD_S, self._on_timer)

    def _on_timer(self) -> None:
        self.read_ready()
        self._batch_count += 1
        if self._batch_count < _SAMPLE_SIZE:
            return
        if self._read_count < _SAMPLE_SIZE and self._reads:
            self._stop_batching()
            self._start_watching()
        self._batch_count = self._read_count = 0

    def _stop_batching(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
