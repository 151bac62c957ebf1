"""Limiter models: pure objects over times in seconds that the caller passes. No sockets, files, or clocks."""

from bltybench.limits.models.banned import Banned
from bltybench.limits.models.base import Admission, Limiter, Model
from bltybench.limits.models.composite import AllOf, Both
from bltybench.limits.models.concurrency import Concurrency
from bltybench.limits.models.fixed_window import FirstHitWindow, FixedWindow
from bltybench.limits.models.interval_refill import IntervalRefill
from bltybench.limits.models.leaky_queue import LeakyQueue, Waiting
from bltybench.limits.models.sliding_counter import FirstHitCounter, SlidingCounter
from bltybench.limits.models.sliding_log import SlidingLog
from bltybench.limits.models.token_bucket import TokenBucket, WholeTokenBucket

__all__ = [
    "Admission",
    "AllOf",
    "Banned",
    "Both",
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
    "Waiting",
    "WholeTokenBucket",
]
