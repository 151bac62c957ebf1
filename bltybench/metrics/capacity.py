"""How far a service keeps up with what is asked of it: stages in order of load, and the knee."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from bltybench.limits.probe.protocol import STAGE_PREFIX
from bltybench.metrics.frame import floats

KEEPS_UP = {"rate": 0.95, "users": 0.80}
"""A load is kept up with where at least this share of the ideal was accepted.

The ideal of a rate is the rate. That of users is what the fewest of them got, in proportion; calls that take
a little longer when more are in flight are no knee yet.
"""

COLUMNS = ["stage", "load", "ideal_per_min", "accepted_per_min", "refused_share", "ttft_p95_ms", "keeps_up"]


class Capacity(NamedTuple):
    """Stages by load, and where keeping up ends."""

    unit: Literal["rate", "users"]
    points: pd.DataFrame
    """COLUMNS, in order of load: calls a minute that were due, or users."""
    knee: float | None
    """The highest load up to which every one is kept up with; None: not even the lowest."""
    beyond: float | None
    """The next load, which is not; None: every one that was tried is kept up with."""


def capacity(stages: pd.DataFrame) -> Capacity | None:
    """Find the knee in a run's stages (``stages.by_stage``); None where there are not two loads to compare.

    Stages of equal load to within 1% are judged together, by their means: a search tries a load again.
    """
    unit: Literal["rate", "users"] = "users" if stages["users"].notna().any() else "rate"
    points = stages.rename(columns={"users" if unit == "users" else "offered_per_min": "load"})
    points = points[points["load"].notna() & points["accepted_per_min"].notna()]
    # The experiments of a probe are no loads.
    points = points[~points["stage"].astype("str").str.startswith(STAGE_PREFIX)]
    if len(points) < 2:
        return None
    points = points.sort_values("load", kind="stable", ignore_index=True)
    load, accepted = floats(points, "load"), floats(points, "accepted_per_min")
    level = np.concatenate(([0], np.cumsum(np.diff(load) > 0.01 * load[:-1])))
    if level[-1] == 0:
        return None
    sizes = np.bincount(level)
    loads, means = np.bincount(level, load) / sizes, np.bincount(level, accepted) / sizes
    each = 1.0 if unit == "rate" else means[0] / loads[0]
    held = means >= KEEPS_UP[unit] * each * loads
    lost = int(np.argmin(held)) if not held.all() else len(held)
    points = points.assign(ideal_per_min=load * each, keeps_up=held[level])[COLUMNS]
    return Capacity(
        unit,
        points.astype({"load": "float64"}),
        float(loads[lost - 1]) if lost else None,
        float(loads[lost]) if lost < len(loads) else None,
    )
