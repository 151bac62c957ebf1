"""Limiter models: small pure objects over seconds that the caller gives. No sockets, files or clocks.

``FAMILIES`` names every time-based model that needs no more than a limit and a period. A new family is one
module with one class derived from ``Model``, and one line here; the property tests then cover it.
"""

from __future__ import annotations

from collections.abc import Callable

from bltybench.limits.models.base import Admission, Limiter, Model
from bltybench.limits.models.composite import AllOf
from bltybench.limits.models.concurrency import Concurrency
from bltybench.limits.models.fixed_window import FirstHitWindow, FixedWindow
from bltybench.limits.models.interval_refill import IntervalRefill
from bltybench.limits.models.leaky_queue import LeakyQueue
from bltybench.limits.models.sliding_counter import FirstHitCounter, SlidingCounter
from bltybench.limits.models.sliding_log import SlidingLog
from bltybench.limits.models.token_bucket import TokenBucket

FAMILIES: dict[str, Callable[..., Model]] = {
    "fixed_window": FixedWindow,
    "first_hit_window": FirstHitWindow,
    "sliding_log": SlidingLog,
    "sliding_counter": SlidingCounter,
    "first_hit_counter": FirstHitCounter,
    "token_bucket": TokenBucket,
    "interval_refill": IntervalRefill,
    "leaky_queue": LeakyQueue,
}
"""Name of a family -> its maker, called with the limit, the period in seconds, and its options."""

__all__ = [
    "FAMILIES",
    "Admission",
    "AllOf",
    "Concurrency",
    "FirstHitCounter",
    "FirstHitWindow",
    "FixedWindow",
    "IntervalRefill",
    "LeakyQueue",
    "Limiter",
    "Model",
    "SlidingCounter",
    "SlidingLog",
    "TokenBucket",
]
