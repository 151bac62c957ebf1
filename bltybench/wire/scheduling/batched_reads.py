"""Slow streams are read in rounds, as a network card collects packets before it interrupts.

Waking up costs several times what reading does, and a stream of 50 events a second wakes the process for each
of them. The kernel stamps what arrives, so nothing is lost by looking once in some milliseconds instead, as
long as the stream's next event does not come sooner. So only those streams are read in rounds whose events
keep coming far apart, one a read; the first that comes close to another ends it. A connection stays from one
stream to the next if the one was slow from its first event on, as leaving and coming back costs as much as
some reads. Where there are too few of them for rounds to pay, they too are read at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gevent import monkey

from bltybench.wire.scheduling.aligned_timer import AlignedTimer

ROUND_S = 0.01
"""libev waits in whole milliseconds: a round comes up to one late, more where others are in its way."""
FAR_NS = 12_000_000
"""Events further apart than this are more than a round apart."""
FAR_READS = 5
"""So many reads in a row make a stream a slow one: those of uneven streams are hardly ever so far apart."""
FAR_READS_AGAIN = 2
"""So many do where the stream before it on its connection was slow to its end, if not from its beginning."""

_EDGE = 1 | 1 << 31
"""EPOLLIN, and EPOLLET: tell of new bytes once. Otherwise a socket is looked at again in the next round, for
nothing. Who reads so much that some may be left leaves the rounds, and is then told of what is left."""
_SAMPLE = 64
_PAYS_PER_S = 300.0
"""Rounds wake the process up 100 times a second, however little there is to read."""


class BatchedReads:
    """Reads the slow streams of one event loop: in rounds while there are many, else as their bytes come."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._epoll: Any = None
        self._watch: Any = None
        self._beat: AlignedTimer | None = None
        self._reads: dict[int, Callable[[], None]] = {}
        self._served = self._rounds = 0
        self._since_s = 0.0

    def __len__(self) -> int:
        """Return the number of slow streams, and of idle connections that had one last."""
        return len(self._reads)

    @property
    def ticking(self) -> bool:
        """Whether they are read in rounds now."""
        return self._beat is not None

    def add(self, fileno: int, read: Callable[[], None]) -> None:
        """Have ``read`` called when there is something to read."""
        if self._epoll is None:
            # gevent takes epoll out of the module, as its wait would block the loop; here it never waits.
            # Kernel stamps are Linux's, as epoll is: nothing is added elsewhere.
            self._epoll = monkey.get_original("select", "epoll")()
            self._watch = self._loop.io(self._epoll.fileno(), 1)
        if not self._reads:
            self._watch_it()
        self._reads[fileno] = read
        self._epoll.register(fileno, _EDGE)

    def remove(self, fileno: int) -> None:
        """Have it called no longer."""
        del self._reads[fileno]
        self._epoll.unregister(fileno)
        if not self._reads:
            self._stop_ticking()
            self._watch.stop()

    def _serve(self) -> None:
        found = self._epoll.poll(0)
        self._served += len(found)
        reads = self._reads
        for fileno, _ in found:
            read = reads.get(fileno)
            if read is not None:  # a read before it may have ended others
                read()

    def _watch_it(self) -> None:
        self._served, self._since_s = 0, time.monotonic()
        self._watch.start(self._on_watch)

    def _on_watch(self) -> None:
        self._serve()
        if self._served < _SAMPLE:
            return
        now_s = time.monotonic()
        often = self._served > _PAYS_PER_S * (now_s - self._since_s)
        self._served, self._since_s = 0, now_s
        if often and self._reads:
            self._watch.stop()
            self._rounds = 0
            self._beat = AlignedTimer(self._loop, ROUND_S, self._on_round)

    def _on_round(self) -> None:
        self._serve()
        self._rounds += 1
        if self._rounds < _SAMPLE:
            return
        if self._served < _SAMPLE and self._reads:
            self._stop_ticking()
            self._watch_it()
        self._rounds = self._served = 0

    def _stop_ticking(self) -> None:
        if self._beat is not None:
            self._beat.close()
            self._beat = None
