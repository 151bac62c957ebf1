"""Timers that ring together.

A nap of the event loop costs some 0.1 ms of CPU time however little there was to do: meanwhile the processor
has forgotten the code, and a virtual machine has given the core away. So what recurs shares its naps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class AlignedTimer:
    """Calls ``ring`` at each multiple of ``period_s`` on the monotonic clock, from now until ``close``.

    Where one's period is a multiple of another's, both ring in the same turn of the event loop. A beat that
    comes a period late or more stands for those that were missed.
    """

    def __init__(self, loop: Any, period_s: float, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._period_s = period_s
        self._ring = ring
        self.late_s = 0.0
        """How late the last one came."""
        self._start()

    def close(self) -> None:
        """Ring no longer."""
        self._timer.stop()
        self._timer.close()

    def _start(self) -> None:
        now_s = time.monotonic()
        self._due_s = (now_s // self._period_s + 1) * self._period_s
        self._timer = self._loop.timer(self._due_s - now_s, self._period_s)
        # With update: counted from now, and not from when this turn of the loop began.
        self._timer.start(self._on_timer, update=True)

    def _on_timer(self) -> None:
        self.late_s = time.monotonic() - self._due_s
        self._due_s += self._period_s
        if self.late_s >= self._period_s:
            # libev would count its periods from the late one on.
            self.close()
            self._start()
        self._ring()
