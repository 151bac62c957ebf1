"""Rows in Locust's own table: TTFT, ITL and 429s beside the requests, and not in its Aggregated row.

Entries are written to directly. The request event would add them to the Aggregated row, where they would pull
the percentiles down and count as requests that nobody made.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import chain, repeat
from operator import floordiv

from locust import stats as locust_stats
from locust.stats import RequestStats, StatsEntry

TTFT = "TTFT"
ITL = "ITL"
REFUSED = "429"

BATCH = 2_000
"""So many gaps are added at once: a fraction of a millisecond's work, and enough to share its fixed part."""


def add_refusal(stats: RequestStats, name: str, latency_ms: float, length: int) -> None:
    """Count a refusal and its latency in a row of its own."""
    stats.get(name, REFUSED).log(round(latency_ms), length)


class TokenRows:
    """TTFT and ITL of streams, as rows of Locust's table.

    Locust's own ``log`` costs microseconds a value, which at thousands of events a second is more than
    measuring them did. So values wait here, equal ones are counted first, and ``flush`` adds them together:
    once a second, and whenever very many wait.
    """

    def __init__(self, stats: RequestStats) -> None:
        self._stats = stats
        self._waiting: dict[str, tuple[list[int], list[list[int]]]] = {}
        self._gaps = 0

    def add(self, name: str, ttft_ms: float, gaps_us: list[int]) -> None:
        """Take in one stream."""
        waiting = self._waiting.get(name)
        if waiting is None:
            waiting = self._waiting[name] = ([], [])
        waiting[0].append(round(ttft_ms))
        waiting[1].append(gaps_us)
        self._gaps += len(gaps_us)
        if self._gaps >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Put into the table what waits."""
        for name, (ttft_ms, gaps_us) in self._waiting.items():
            _add_many(self._stats.get(name, TTFT), Counter(ttft_ms))
            gaps_ms = Counter(map(floordiv, chain.from_iterable(gaps_us), repeat(1000)))
            if gaps_ms:
                _add_many(self._stats.get(name, ITL), gaps_ms)
        self._waiting.clear()
        self._gaps = 0


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
