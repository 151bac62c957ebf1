"""Rows in Locust's own table: TTFT, ITL and 429s beside the requests, and not in its Aggregated row.

Entries are written to directly. The request event would add them to the Aggregated row, where they would pull
the percentiles down and count as requests that nobody made.
"""

from __future__ import annotations

import time
from collections import Counter

from locust import stats as locust_stats
from locust.stats import RequestStats, StatsEntry

TTFT = "TTFT"
ITL = "ITL"
REFUSED = "429"


def add_refusal(stats: RequestStats, name: str, latency_ms: float, length: int) -> None:
    """Count a refusal and its latency in a row of its own."""
    stats.get(name, REFUSED).log(round(latency_ms), length)


def add_ttft(stats: RequestStats, name: str, ttft_ms: float) -> None:
    """Add one TTFT."""
    stats.get(name, TTFT).log(round(ttft_ms), 0)


def add_gaps(stats: RequestStats, name: str, gaps_us: list[int]) -> None:
    """Add the gaps of one stream.

    Locust's own ``log`` costs microseconds a value, which at thousands of events a second is more than
    measuring them did; so equal values are counted first and added together.
    """
    if gaps_us:
        _add_many(stats.get(name, ITL), Counter([gap // 1000 for gap in gaps_us]))


def _add_many(entry: StatsEntry, counts: Counter[int]) -> None:
    now = time.time()
    n = counts.total()
    low, high = min(counts), max(counts)
    entry.num_requests += n
    entry.num_reqs_per_sec[int(now)] += n
    entry.last_request_timestamp = now
    entry.total_response_time += sum(value * count for value, count in counts.items())
    entry.min_response_time = low if entry.min_response_time is None else min(entry.min_response_time, low)
    entry.max_response_time = max(entry.max_response_time, high)
    for value, count in counts.items():
        entry.response_times[locust_stats.bucket_response_time(value)] += count
