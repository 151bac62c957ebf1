"""Runs as data frames, for Jupyter, marimo, and scripts. ``analysis/README.md`` documents the frames.

Two lines get the newest run:

    from bltybench.analysis import load
    run = load()
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from bltybench.errors import UserError
from bltybench.metrics import analysis
from bltybench.metrics.analysis import Analysis
from bltybench.report.notebooks import RUN_VARIABLE
from bltybench.report.page.limits_section import LimitsSection, limits_section
from bltybench.runs.folder import REPORTS, RunFolder, find_run, list_runs

__all__ = ["Analysis", "LimitsSection", "load", "load_several", "rate_limits"]

MAX_OTHERS = 4
"""Maximum earlier runs that ``load_several`` adds to a run by itself."""

logger = logging.getLogger("bltybench")


def load(run: str | Path | None = None) -> Analysis:
    """Return all data frames of a run: a directory, an id, or the start of an id.

    None means the run in the environment variable ``BLTYBENCH_RUN``, or else the newest that has ended. Runs
    are in ``reports``, in the current directory or the one above. Raise UserError if there is no such run.
    """
    return analysis.load(_find(run))


def load_several(runs: Sequence[str | Path] | None = None) -> list[Analysis]:
    """Return several runs. The first is the base with which the others are compared.

    None means the run that ``load`` returns, after up to 4 earlier runs of its scenario, oldest first.
    Earlier runs that can't be read are skipped with a warning.
    """
    if runs is not None:
        return [load(run) for run in runs]
    chosen = _find(None)
    newest = analysis.load(chosen)
    earlier: list[Analysis] = []
    for folder in list_runs(chosen.path.absolute().parent):
        if len(earlier) < MAX_OTHERS and folder.path.name < chosen.path.absolute().name:
            try:
                if folder.manifest().scenario == newest.manifest.scenario:
                    earlier.append(analysis.load(folder))
            except UserError as error:
                logger.warning("bltybench: not compared: %s", error)
    return [*reversed(earlier), newest]


def rate_limits(run: str | Path | None = None) -> LimitsSection | None:
    """Return what a run shows about the server's limits; None if nothing was sent."""
    return limits_section(_find(run))


def _find(run: str | Path | None) -> RunFolder:
    ref = os.environ.get(RUN_VARIABLE) if run is None else str(run)
    # Jupyter runs a notebook in its own directory, analysis/, which is next to reports/.
    places = (REPORTS, Path("..") / REPORTS)
    return find_run(ref, next((place for place in places if list_runs(place)), REPORTS))
