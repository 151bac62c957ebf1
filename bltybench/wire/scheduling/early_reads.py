"""Reads between two units of work, ahead of the event loop.

A read has one timestamp, that of its last byte, so an event that is still unread when the next one arrives
gets a later time. If hundreds of streams start or end together, their requests are composed and their
responses parsed for tens of milliseconds before the event loop reads again. Between two such units,
everything that has arrived is therefore read.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from gevent import monkey


class EarlyReads:
    """The sockets that one event loop watches, each with the callback that reads it."""

    def __init__(self, loop: Any) -> None:
        self._reads: dict[int, Callable[[], None]] = {}
        self._loop, self._epoll = loop, None
        if loop.backend == "epoll":  # else, arrivals are timestamped by this process anyway
            # A copy of the loop's own file. It reports what is readable until it is read, so the loop misses
            # nothing.
            self._epoll = monkey.get_original("select", "epoll").fromfd(os.dup(loop.fileno()))

    def add(self, fileno: int, read: Callable[[], None]) -> None:
        """Call ``read`` when there is something to read, as the event loop does."""
        self._reads[fileno] = read

    def remove(self, fileno: int) -> None:
        """Stop calling it."""
        self._reads.pop(fileno, None)

    def read(self) -> None:
        """Read everything that has arrived."""
        if self._epoll is None:
            return
        reads = self._reads
        for fileno, _ in self._epoll.poll(0):
            read = reads.get(fileno)  # the loop watches other files, too, and an earlier read can close one
            if read is not None:
                try:
                    read()
                except Exception:  # noqa: BLE001 - a bug there belongs to the loop, not to this greenlet
                    self._loop.handle_error(read, *sys.exc_info())
