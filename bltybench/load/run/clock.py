"""The time axis of a run, as the users of one process see it."""

import time

from gevent.event import Event

from bltybench.runs.manifest import Clock
from bltybench.wire.exchange import Exchange

UNCONNECTED_PAUSE_NS = 500_000_000
"""Minimum time between a failed connection of a user and its next call, in nanoseconds."""


class RunClock:
    """Nanoseconds since the load began, and the events that end the load."""

    def __init__(self, clock: Clock, duration_s: float) -> None:
        self._duration_s = duration_s
        self.is_known = False
        """Whether the zero of the axis is known."""
        self._begun = Event()
        self.over = Event()
        """Set when the scenario's time is over. No new calls or retries start, except arrivals due before."""
        self.stopping = Event()
        """Set when the run ends. Nothing is sent from then on, but requests in flight may finish."""
        self._set(clock)

    def begin(self, clock: Clock) -> None:
        """Let the load begin at the zero of ``clock``."""
        self._set(clock)
        self.is_known = True
        self._begun.set()

    def wait_until_known(self) -> None:
        """Wait until the zero of the axis is known: when all processes are ready. Or until the run ends."""
        if not self.is_known:
            self._begun.wait()

    def _set(self, clock: Clock) -> None:
        self.start_ns = clock.local_start_ns()
        self.start_wall_ns = clock.wall_ns

    def now_ns(self) -> int:
        """Return the current time on the run's axis."""
        return time.monotonic_ns() - self.start_ns

    def now_s(self) -> float:
        """Return the current time on the run's axis, in seconds."""
        return self.now_ns() / 1e9

    def axis_s(self, monotonic_ns: int | None) -> float:
        """Return a time of the monotonic clock, or the current one, in seconds on the run's axis."""
        return self.now_s() if monotonic_ns is None else (monotonic_ns - self.start_ns) / 1e9

    def wait_until(self, at_ns: int, over: Event | None = None) -> bool:
        """Sleep until ``at_ns`` on the run's axis. Return False if the time of the load is over before.

        ``over`` is the event that ends it, by default that of the scenario.
        """
        self.wait_until_known()
        over = over or self.over
        left_s = (at_ns - self.now_ns()) / 1e9
        if left_s <= 0:
            return not over.is_set()
        return not over.wait(left_s)

    def wait_to_call(self, last: Exchange | None, due_ns: int | None = None) -> None:
        """Wait until the run begins. Then, unless a schedule set ``due_ns``, pause if ``last`` can't connect.

        Users without think time would otherwise try thousands of times per second. The call is due after the
        pause.
        """
        self.wait_until(0)
        if due_ns is None and last is not None and last.sent_ns is None and last.end_ns is not None:
            self.wait_until(last.end_ns - self.start_ns + UNCONNECTED_PAUSE_NS)

    def run_out(self) -> None:
        """Set ``over`` at the end of the scenario's time. Runs as a greenlet."""
        self.wait_until(round(self._duration_s * 1e9))
        self.over.set()

    def stop(self) -> None:
        """End the load now."""
        self.over.set()
        self.stopping.set()
        self._begun.set()
