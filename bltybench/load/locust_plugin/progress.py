"""The progress line: one that rewrites itself on a terminal, a line now and then where output is piped."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import gevent

if TYPE_CHECKING:
    from bltybench.load.run.run import Run

PIPED_EVERY_S = 15


class Progress:
    """Shows how the run goes, on standard error."""

    def __init__(self, run: Run, total_s: float) -> None:
        self._run = run
        self._total_s = total_s

    def show_for_ever(self) -> None:
        """Show a line each second on a terminal, each quarter of a minute elsewhere. Runs as a greenlet."""
        on_terminal = sys.stderr.isatty()
        try:
            while True:
                gevent.sleep(1.0 if on_terminal else PIPED_EVERY_S)
                run = self._run
                line = run.live.line(run.now_s(), self._total_s, run.doing)
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
