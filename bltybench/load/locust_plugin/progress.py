"""The progress line of a run, on standard error."""

from __future__ import annotations

import shutil
import sys

import gevent

from bltybench.load.run.run import Run

INTERVAL_S = 1.0
"""Seconds between two updates on a terminal."""
PIPED_INTERVAL_S = 15.0
"""Seconds between two lines if the output is not a terminal."""


def show_progress(run: Run) -> None:
    """Update the line on a terminal, or print a new one now and then elsewhere. Runs as a greenlet."""
    on_terminal = sys.stderr.isatty()
    try:
        while True:
            gevent.sleep(INTERVAL_S if on_terminal else PIPED_INTERVAL_S)
            line = run.live.line(run.now_s(), run.resolved.scenario.duration_s, run.activity)
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
