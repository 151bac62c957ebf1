"""The self-audit: per second, how well this process keeps up. It decides whether a run is VALID."""

import time
from pathlib import Path

import gevent
import psutil

from bltybench.percentiles import percentile
from bltybench.runs.attempt import Attempt, GeneratorSecond
from bltybench.wire.scheduling.aligned_timer import AlignedTimer
from bltybench.wire.scheduling.batched_reads import BATCH_PERIOD_S

PROBE_INTERVAL_S = 2 * BATCH_PERIOD_S
"""Interval of the checks that the event loop serves timers on time. It shares wakeups with batched reads."""
PROC_SCHEDSTAT = Path("/proc/self/schedstat")
"""The main thread, which runs the event loop: ns on a core, ns waiting for one, number of time slices."""


class Audit:
    """One second's facts about this process, from the recorder and from a timer."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._process = psutil.Process()
        self._timer: AlignedTimer | None = None
        self._begin()

    def _begin(self) -> None:
        self._cpu_s = time.process_time()
        self._waited_s = _waited_s()
        self._wall_s = time.monotonic()
        self._steal = _steal_s()
        self._worst_stall_s = 0.0
        self._delays_us: list[int] = []
        self._lags_us: list[int] = []
        self._sent = self._events = self._coalesced = self._bytes = self._no_free_user = 0

    def late_claim(self) -> None:
        """Count an arrival that was due before a user was idle."""
        self._no_free_user += 1

    def sent(self, delay_us: int) -> None:
        """Count an attempt and its schedule delay."""
        self._sent += 1
        self._delays_us.append(delay_us)

    def ended(self, attempt: Attempt, events: int) -> None:
        """Count an attempt that has ended and the number of its events."""
        self._events += events
        self._coalesced += attempt.coalesced_events or 0
        self._bytes += attempt.bytes_received or 0
        if attempt.observer_lag_us is not None:
            self._lags_us.append(attempt.observer_lag_us)

    def watch(self) -> None:
        """Begin the first second, and measure how late timers fire, until ``close``.

        A greenlet that sleeps would cost more than a timer.
        """
        self._begin()
        self._timer = AlignedTimer(gevent.get_hub().loop, PROBE_INTERVAL_S, self._on_timer)

    def _on_timer(self) -> None:
        if self._timer is not None:
            self._worst_stall_s = max(self._worst_stall_s, self._timer.late_s)

    def close(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def second(
        self, at_ns: int, *, users: int, in_flight: int, backlog: int, never_sent: int = 0, paced: int = 0
    ) -> GeneratorSecond:
        """Return the facts gathered since the last call, and start again."""
        now_s, cpu_s, steal = time.monotonic(), time.process_time(), _steal_s()
        waited_s, wall_s = _waited_s(), max(1e-9, now_s - self._wall_s)
        delays, lags = sorted(self._delays_us), sorted(self._lags_us)
        row = GeneratorSecond(
            worker=self._worker,
            at_ns=at_ns,
            stall_us=round(self._worst_stall_s * 1e6),
            cpu_share=(cpu_s - self._cpu_s) / wall_s,
            cpu_wait_share=None if waited_s is None else (waited_s - (self._waited_s or 0.0)) / wall_s,
            steal_share=_steal_fraction(self._steal, steal),
            rss_bytes=self._process.memory_info().rss,
            users=users,
            in_flight=in_flight,
            sent=self._sent,
            schedule_delay_p50_us=percentile(delays, 0.5),
            schedule_delay_p99_us=percentile(delays, 0.99),
            schedule_delay_max_us=percentile(delays, 1.0),
            observer_lag_p50_us=percentile(lags, 0.5),
            observer_lag_p99_us=percentile(lags, 0.99),
            observer_lag_max_us=percentile(lags, 1.0),
            events=self._events,
            coalesced_events=self._coalesced,
            bytes_received=self._bytes,
            no_free_user=self._no_free_user,
            never_sent=never_sent,
            paced=paced,
            backlog=backlog,
        )
        self._begin()
        return row


def _waited_s() -> float | None:
    """Return how long the main thread has waited for a core; None if the system does not report it."""
    try:
        return int(PROC_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _steal_s() -> tuple[float, float] | None:
    """Return (stolen, all) CPU time of the machine since boot; None if the system does not report it."""
    times = psutil.cpu_times()
    # After these eight come the times of guests, which the first two include.
    return (times.steal, sum(times[:8])) if hasattr(times, "steal") else None


def _steal_fraction(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
