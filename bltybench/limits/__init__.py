"""Limiter models: small pure objects over seconds that the caller gives. No sockets, files or clocks.

``FAMILIES`` names every time-based model that needs no more than a limit and a period. A new family is one
module with one class derived from ``Model``, and one line here; the property tests then cover it.
"""

from __future__ import annotations

from collections.abc import Callable

from bltybench.limits.all_of import AllOf
from bltybench.limits.base import Decision, Limiter, Model
from bltybench.limits.concurrency import Concurrency
from bltybench.limits.fixed_window import FixedWindow
from bltybench.limits.sliding_counter import SlidingCounter
from bltybench.limits.sliding_log import SlidingLog
from bltybench.limits.token_bucket import TokenBucket

FAMILIES: dict[str, Callable[[int, float], Model]] = {
    "fixed_window": FixedWindow,
    "sliding_log": SlidingLog,
    "sliding_counter": SlidingCounter,
    "token_bucket": TokenBucket,
}
"""Name of a family -> its maker, called with the limit and the period in seconds."""

__all__ = [
    "FAMILIES",
    "AllOf",
    "Concurrency",
    "Decision",
    "FixedWindow",
    "Limiter",
    "Model",
    "SlidingCounter",
    "SlidingLog",
    "TokenBucket",
]
