"""Streams that are open although their answer is complete: some servers never end the body.

Twice per second, one timer examines all open streams. A timer for each stream would wake the process for
each of them, and a search of each event for its finish reason would cost every stream more.
"""

import time
from collections.abc import Callable
from typing import Any

from bltybench.wire.exchange import MAX_SPLIT_DONE_BYTES, Exchange
from bltybench.wire.interpret import fold
from bltybench.wire.scheduling.aligned_timer import AlignedTimer

FINISH_GRACE_S = 1.5
"""Wait for more events after the one that completed the answer: the usage, ``[DONE]``, or the end."""
PERIOD_S = 0.5
"""Time between two examinations."""

OnFinished = Callable[[Exchange, int], None]


def finished_ns(exchange: Exchange, now_ns: int, grace_s: float = FINISH_GRACE_S) -> int | None:
    """Return when an open stream sent the last event of a complete answer, if that is ``grace_s`` ago."""
    latest_ns = now_ns - round(grace_s * 1e9)
    arrivals = exchange.arrivals
    if arrivals and arrivals[-1] > latest_ns and len(exchange.pieces[-1]) >= MAX_SPLIT_DONE_BYTES:
        return None  # it sends events; only comments are that short
    if not exchange.is_event_stream:
        return None
    at_ns = fold(exchange).finished_ns
    return at_ns if at_ns is not None and at_ns <= latest_ns else None


class OpenStreams:
    """The open responses of one event loop, each with the callback that ends it."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._timer: AlignedTimer | None = None
        self._open: dict[Exchange, OnFinished] = {}

    def add(self, exchange: Exchange, on_finished: OnFinished) -> None:
        """Call ``on_finished`` when the answer is complete and FINISH_GRACE_S have passed."""
        self._open[exchange] = on_finished
        if self._timer is None:
            self._timer = AlignedTimer(self._loop, PERIOD_S, self._on_timer)

    def remove(self, exchange: Exchange) -> None:
        """Stop examining a response."""
        self._open.pop(exchange, None)

    def _on_timer(self) -> None:
        if not self._open and self._timer is not None:
            self._timer.close()  # only now: a closed loop would start and stop it with each request
            self._timer = None
            return
        now_ns = time.monotonic_ns()
        for exchange, on_finished in list(self._open.items()):
            at_ns = finished_ns(exchange, now_ns)
            if at_ns is not None:
                on_finished(exchange, at_ns)
