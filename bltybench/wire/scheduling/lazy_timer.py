"""A timer that is moved often and rings seldom."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class LazyTimer:
    """Calls ``ring`` at the moment that it was last set to.

    Every exchange has its timeouts and hardly any comes to one, so moving the moment must cost next to
    nothing: the event loop's timer is left as it is, and where it fires too early it is started again for
    what is left.
    """

    __slots__ = ("_at_s", "_fires_s", "_loop", "_ring", "_timer")

    def __init__(self, loop: Any, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: Any = None
        self._fires_s = 0.0
        self._at_s: float | None = None

    def set(self, after_s: float) -> None:
        """Ring in ``after_s`` seconds, and not when it was to ring before."""
        self._at_s = at_s = time.monotonic() + after_s
        if self._timer is None or self._fires_s > at_s:
            self._start(after_s)

    def clear(self) -> None:
        """Do not ring."""
        self._at_s = None

    def close(self) -> None:
        """Do not ring, and let go of the timer."""
        self._at_s = None
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _start(self, after_s: float) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        after_s = max(after_s, 0.001)
        self._fires_s = time.monotonic() + after_s
        # Not a reason for the loop to go on by itself: where an answer is awaited, its socket is one.
        self._timer = self._loop.timer(after_s, ref=False)
        self._timer.start(self._on_timer)

    def _on_timer(self) -> None:
        self._timer.stop()
        self._timer.close()
        self._timer = None
        if self._at_s is None:
            return
        left_s = self._at_s - time.monotonic()
        if left_s > 0:
            self._start(left_s)
        else:
            self._at_s = None
            self._ring()
