"""What shows under the pointer in the figures of the section on rate limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Floats, Ints, floats
from bltybench.report import text
from bltybench.report.figures.drawing import hover

Edges = Callable[[int], list[float]]

PLACES = 80
"""Where an axis has more values than this, those that are near one another are told together."""


def hover_bins(counts: pd.DataFrame) -> dict[str, Any]:
    """Return the decisions of each bin: what the API did and what the model would have done."""
    step = float(counts["end_s"].iloc[0] - counts["start_s"].iloc[0])
    digits = 0 if step >= 1 else 2
    spans = zip(counts["start_s"], counts["end_s"], strict=True)
    names = {
        "observed_accepted": "accepted",
        "observed_refused": "refused",
        "predicted_accepted": "the model accepts",
        "predicted_refused": "the model refuses",
        "differs": "decided otherwise",
    }
    return hover(
        [f"{text.clock(since, digits)} to {text.clock(until, digits)}" for since, until in spans],
        {
            said: counts[name]
            for name, said in names.items()
            if name in counts and (name != "differs" or "predicted_accepted" in counts)
        },
    )


def hover_waits(told: pd.DataFrame, top: float, edges: Edges) -> dict[str, Any]:
    """Return, by Retry-After as told, how many refusals said so and what wait was needed."""
    given = floats(told, "retry_after_s")
    at, place = _places(given, top)
    short = (told["says"] == "too short").to_numpy(dtype=np.float64)
    long = (told["says"] == "longer than needed").to_numpy(dtype=np.float64)
    by_model = pd.Series(floats(told, "needed_by_model_s"))
    columns: dict[str, Any] = {
        "refusals": np.bincount(place, minlength=len(at)),
        "refused again after it": np.bincount(place, short, len(at)),
        "not needed so long": np.bincount(place, long, len(at)),
    }
    if by_model.notna().any():
        columns["needed by the model, median (s)"] = by_model.groupby(place).median()
    labels = [f"Retry-After {text.compact(value)} s" for value in at]
    return hover(labels, columns, at=at / top, edges=edges)


def hover_remaining(said: pd.DataFrame, top: float, edges: Edges) -> dict[str, Any]:
    """Return, by what the model has left, what was announced and how often."""
    at, place = _places(floats(said, "expected"), top)
    announced = pd.Series(floats(said, "announced")).groupby(place)
    columns = {
        "answers": np.bincount(place, floats(said, "answers"), len(at)),
        "announced, least": announced.min(),
        "announced, most": announced.max(),
    }
    labels = [f"{text.compact(value)} left by the model" for value in at]
    return hover(labels, columns, at=at / top, edges=edges)


def _places(values: Floats, top: float) -> tuple[Floats, Ints]:
    """Return the places along an axis of 0 … ``top`` that have values, and which each value belongs to."""
    at, place = np.unique(values, return_inverse=True)
    if len(at) > PLACES:
        step = top / PLACES
        used, place = np.unique(np.floor(values / step), return_inverse=True)
        at = (used + 0.5) * step
    return at, place.astype(np.int64)
