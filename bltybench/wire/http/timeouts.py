"""Which timeout of an exchange has passed, and when the next one is due."""

import time

from bltybench.scenario.api.endpoint import Timeouts
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.scheduling.lazy_timer import MIN_DELAY_S

DONE_GRACE_S = 0.1
"""Wait for the end of the body after ``[DONE]``, so that the connection can be reused. Most servers send both
together; some keep the body open."""

CROSSING_S = 0.3
"""Maximum time after sending in which a close can still have crossed the request on its way: a round trip,
and the delay of a busy event loop. A later one is the server's reaction to the request."""


def closed_before(exchange: Exchange) -> bool:
    """Return whether the server probably closed a kept-alive connection before it received the request.

    llama.cpp closes one after each stream, and uvicorn after an unhandled exception, without announcing it.
    """
    reused = exchange.connect_ns is None
    return reused and time.monotonic_ns() - (exchange.sent_ns or 0) < CROSSING_S * 1e9


def total_timeout(total_s: float) -> Failure:
    """Return the failure of an exchange that exceeds the total timeout."""
    return _failure(Fault.TOTAL_TIMEOUT, f"not finished within {total_s:g} s", "total_s")


def connect_timeout(timeouts: Timeouts) -> Failure:
    """Return the failure of an exchange that has no connection when its first timeout is due."""
    if timeouts.total_s < timeouts.connect_s:
        return total_timeout(timeouts.total_s)
    return _failure(Fault.CONNECT_TIMEOUT, f"no connection within {timeouts.connect_s:g} s", "connect_s")


def check_timeouts(
    exchange: Exchange, began_ns: int, timeouts: Timeouts, previous_ns: int, now_ns: int, *, paused: bool
) -> Failure | float:
    """Return the failure if a timeout has passed, else the seconds until the next one.

    ``began_ns`` is the start of the exchange, before connecting, and ``previous_ns`` the arrival of the
    latest bytes. While reading is ``paused``, their absence is not the server's doing, so only the total
    timeout applies.
    """
    total_left_s = timeouts.total_s - (now_ns - began_ns) / 1e9
    if total_left_s <= 0:
        return total_timeout(timeouts.total_s)
    if exchange.headers_ns is None:
        kind, missing, key = Fault.HEADERS_TIMEOUT, "no headers", "headers_s"
        limit_s, since_ns = timeouts.headers_s, exchange.sent_ns or began_ns
    else:
        kind, missing, key = Fault.IDLE_TIMEOUT, "nothing received", "between_events_s"
        limit_s, since_ns = timeouts.between_events_s, previous_ns
    left_s = limit_s - (now_ns - since_ns) / 1e9
    if left_s <= 0 and not paused:
        return _failure(kind, f"{missing} for {limit_s:g} s", key)
    return min(total_left_s, max(left_s, MIN_DELAY_S))


def _failure(kind: Fault, what: str, key: str) -> Failure:
    return Failure(kind, f"{what}: raise timeouts.{key} of the target")
