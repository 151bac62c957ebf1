"""A timer that is set often and fires rarely."""

import time
from collections.abc import Callable
from typing import Any

MIN_DELAY_S = 0.001


class LazyTimer:
    """Calls ``callback`` at the time that was set last.

    Every exchange sets timeouts and hardly any of them fires, so setting one must cost almost nothing. The
    event loop's timer therefore stays as it is, and is restarted for the remaining time if it fires early.
    """

    def __init__(self, loop: Any, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._timer: Any = None
        self._fires_s = 0.0
        self._at_s: float | None = None

    def set(self, after_s: float) -> None:
        """Fire in ``after_s`` seconds, instead of at the time that was set before."""
        self._at_s = at_s = time.monotonic() + after_s
        if self._timer is None or self._fires_s > at_s:
            self._start(after_s)

    def clear(self) -> None:
        """Do not fire."""
        self._at_s = None

    def close(self) -> None:
        """Do not fire, and release the event loop's timer."""
        self._at_s = None
        self._release()

    def _start(self, after_s: float) -> None:
        self._release()
        after_s = max(after_s, MIN_DELAY_S)
        self._fires_s = time.monotonic() + after_s
        # Without ref, the timer alone does not keep the loop running. The awaited socket does.
        self._timer = self._loop.timer(after_s, ref=False)
        self._timer.start(self._on_timer)

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _on_timer(self) -> None:
        self._release()
        if self._at_s is None:
            return
        remaining_s = self._at_s - time.monotonic()
        if remaining_s > 0:
            self._start(remaining_s)
        else:
            self._at_s = None
            self._callback()
