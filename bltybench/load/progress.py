"""The progress line: one that rewrites itself on a terminal, a line now and then where output is piped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

import gevent

from bltybench.load.live import Live

PIPED_EVERY_S = 15


class Progress:
    """Shows how the run goes, on standard error."""

    def __init__(self, live: Live, total_s: float, now_s: Callable[[], float]) -> None:
        self._live = live
        self._total_s = total_s
        self._now_s = now_s

    def show_for_ever(self) -> None:
        """Show a line each second on a terminal, each quarter of a minute elsewhere. Runs as a greenlet."""
        on_terminal = sys.stderr.isatty()
        try:
            while True:
                gevent.sleep(1.0 if on_terminal else PIPED_EVERY_S)
                line = self._live.line(self._now_s(), self._total_s)
                if on_terminal:
                    width = shutil.get_terminal_size().columns
                    sys.stderr.write(f"\r\x1b[2K{line[: width - 1]}")
                else:
                    sys.stderr.write(line + "\n")
                sys.stderr.flush()
        finally:
            if on_terminal:
                sys.stderr.write("\n")
                sys.stderr.flush()
