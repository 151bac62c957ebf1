"""Recurring timers that fire together.

Each event-loop sleep costs about 0.1 ms of CPU time, because caches go cold and a virtual machine yields the
core. Recurring timers therefore fire together.
"""

import time
from collections.abc import Callable
from typing import Any


class AlignedTimer:
    """Calls ``callback`` at each multiple of ``period_s`` on the monotonic clock, until ``close``.

    If one period is a multiple of another, both timers fire in the same iteration of the event loop. A timer
    that fires one or more periods late fires once for all the periods that it missed.
    """

    def __init__(self, loop: Any, period_s: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._period_s = period_s
        self._callback = callback
        self.late_s = 0.0
        """Delay of the latest firing, in seconds."""
        self._start()

    def close(self) -> None:
        """Stop firing."""
        self._timer.stop()
        self._timer.close()

    def _start(self) -> None:
        now_s = time.monotonic()
        self._due_s = (now_s // self._period_s + 1) * self._period_s
        self._timer = self._loop.timer(self._due_s - now_s, self._period_s)
        # With update, libev counts from now and not from the start of this loop iteration.
        self._timer.start(self._on_timer, update=True)

    def _on_timer(self) -> None:
        self.late_s = time.monotonic() - self._due_s
        self._due_s += self._period_s
        if self.late_s >= self._period_s:
            # libev would count its periods from the late one on.
            self.close()
            self._start()
        self._callback()
