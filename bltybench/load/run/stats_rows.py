"""Rows for TTFT, ITL, and 429s in Locust's table, excluded from its Aggregated row.

They are written to Locust's entries directly. Its request event would also add them to the Aggregated row,
where they would lower the percentiles and count as requests.
"""

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
"""Gaps to add in one batch: less than a millisecond's work, but enough to spread its fixed cost."""


def add_refusal(stats: RequestStats, name: str, latency_ms: float, length: int) -> None:
    """Count a refusal and its latency in its own row."""
    stats.get(name, REFUSED).log(round(latency_ms), length)


class TokenRows:
    """TTFT and ITL of streams, as rows of Locust's table.

    Locust's own ``log`` costs microseconds per value, which at thousands of events per second is more than
    measuring them costs. So values are collected, equal ones counted, and added in one batch by ``flush``.
    """

    def __init__(self, stats: RequestStats) -> None:
        self._stats = stats
        self._pending: dict[str, tuple[list[int], list[list[int]]]] = {}
        self._gaps = 0

    def add(self, name: str, ttft_ms: float, gaps_us: list[int]) -> None:
        """Add one stream."""
        pending = self._pending.get(name)
        if pending is None:
            pending = self._pending[name] = ([], [])
        pending[0].append(round(ttft_ms))
        pending[1].append(gaps_us)
        self._gaps += len(gaps_us)
        if self._gaps >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write pending values to the table."""
        for name, (ttft_ms, gaps_us) in self._pending.items():
            _add_batch(self._stats.get(name, TTFT), Counter(ttft_ms))
            gaps_ms = Counter(map(floordiv, chain.from_iterable(gaps_us), repeat(1000)))
            if gaps_ms:
                _add_batch(self._stats.get(name, ITL), gaps_ms)
        self._pending.clear()
        self._gaps = 0


def _add_batch(entry: StatsEntry, counts: Counter[int]) -> None:
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
