"""Algorithms of rate limiters, in a module without pydantic so that --help stays fast."""

from typing import Literal

Algorithm = Literal[
    "fixed_window",
    "first_hit_window",
    "sliding_log",
    "sliding_counter",
    "first_hit_counter",
    "token_bucket",
    "whole_token_bucket",
    "interval_refill",
    "leaky_queue",
]
