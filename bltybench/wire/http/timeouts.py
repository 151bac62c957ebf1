"""Which timeout of an exchange has passed, and when the next one is due."""

from __future__ import annotations

from bltybench.scenario.target import Timeouts
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.scheduling.lazy_timer import MIN_DELAY_S


def check_timeouts(
    exchange: Exchange, sent_ns: int, timeouts: Timeouts, previous_ns: int, now_ns: int, *, paused: bool
) -> Failure | float:
    """Return the failure if a timeout has passed, else the seconds until the next one.

    ``previous_ns`` is the arrival of the latest bytes. While reading is ``paused``, their absence is not the
    server's doing, so only the total timeout applies.
    """
    total_left_s = timeouts.total_s - (now_ns - sent_ns) / 1e9
    if total_left_s <= 0:
        return Failure(Fault.TOTAL_TIMEOUT, f"not finished within {timeouts.total_s:g} s")
    if exchange.headers_ns is None:
        kind, missing, limit_s, since_ns = Fault.HEADERS_TIMEOUT, "no headers", timeouts.headers_s, sent_ns
    else:
        kind, missing = Fault.IDLE_TIMEOUT, "nothing received"
        limit_s, since_ns = timeouts.between_events_s, previous_ns
    left_s = limit_s - (now_ns - since_ns) / 1e9
    if left_s <= 0 and not paused:
        return Failure(kind, f"{missing} for {limit_s:g} s")
    return min(total_left_s, max(left_s, MIN_DELAY_S))
