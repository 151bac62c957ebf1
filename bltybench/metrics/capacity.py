"""Capacity: the stages in order of load, and the highest load that the service sustains (the knee)."""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from bltybench.limits.probe.protocol import STAGE_PREFIX
from bltybench.metrics.frame import floats

MIN_SUSTAINED = {"rate": 0.95, "users": 0.80}
"""Minimum fraction of the ideal accepted rate at which a load counts as sustained.

The ideal of a rate is the rate. The ideal of users is proportional to what the fewest users got: latency
grows a little with the number in flight even before the knee.
"""

SAME_LOAD = 0.01
"""Relative difference up to which two loads count as equal: a search tries a load again."""

COLUMNS = ["stage", "load", "ideal_per_min", "accepted_per_min", "refused_share", "ttft_p95_ms", "keeps_up"]


class Capacity(NamedTuple):
    """Stages by load, and the knee."""

    unit: Literal["rate", "users"]
    points: pd.DataFrame
    """COLUMNS, in order of load: calls due per minute, or users."""
    knee: float | None
    """The highest load up to which all are sustained; None if the lowest is not."""
    beyond: float | None
    """The next load, which is not sustained; None if all are."""


def capacity(stages: pd.DataFrame) -> Capacity | None:
    """Find the knee in a run's stages (``stages.by_stage``); None if there are not two loads to compare.

    Stages of the same load are judged by their means.
    """
    unit: Literal["rate", "users"] = "users" if stages["users"].notna().any() else "rate"
    points = stages.rename(columns={"users" if unit == "users" else "offered_per_min": "load"})
    points = points[points["load"].notna() & points["accepted_per_min"].notna()]
    # The experiments of a probe are stages too, but not loads.
    points = points[~points["stage"].astype("str").str.startswith(STAGE_PREFIX)]
    if len(points) < 2:
        return None
    points = points.sort_values("load", kind="stable", ignore_index=True)
    load, accepted = floats(points, "load"), floats(points, "accepted_per_min")
    level = np.concatenate(([0], np.cumsum(np.diff(load) > SAME_LOAD * load[:-1])))
    if level[-1] == 0:
        return None
    sizes = np.bincount(level)
    loads, means = np.bincount(level, load) / sizes, np.bincount(level, accepted) / sizes
    per_load = 1.0 if unit == "rate" else means[0] / loads[0]
    sustained = means >= MIN_SUSTAINED[unit] * per_load * loads
    failed = len(sustained) if sustained.all() else int(np.argmin(sustained))
    points = points.assign(ideal_per_min=load * per_load, keeps_up=sustained[level])[COLUMNS]
    return Capacity(
        unit,
        points.astype({"load": "float64"}),
        float(loads[failed - 1]) if failed else None,
        float(loads[failed]) if failed < len(loads) else None,
    )
