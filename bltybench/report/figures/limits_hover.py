"""The values that the figures of the section on rate limits show under the pointer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Floats, Ints, floats
from bltybench.report import text
from bltybench.report.figures.drawing import hover

Edges = Callable[[int], list[float]]

MAX_PLACES = 80
"""Maximum places along an axis. If there are more values, neighbors share a place."""
BIN_LABELS = {
    "observed_accepted": "accepted",
    "observed_refused": "refused",
    "predicted_accepted": "accepted by the model",
    "predicted_refused": "refused by the model",
}


def hover_bins(counts: pd.DataFrame) -> dict[str, Any]:
    """Return the decisions in each bin, the API's and the model's."""
    digits = 0 if counts["end_s"].iloc[0] - counts["start_s"].iloc[0] >= 1 else 2
    spans = zip(counts["start_s"], counts["end_s"], strict=True)
    columns = {label: counts[name] for name, label in BIN_LABELS.items() if name in counts}
    if "predicted_accepted" in counts:
        columns["different"] = counts["differs"]
    return hover(
        [f"{text.clock(start_s, digits)} to {text.clock(end_s, digits)}" for start_s, end_s in spans], columns
    )


def hover_waits(waits: pd.DataFrame, top: float, edges: Edges) -> dict[str, Any]:
    """Return, per value of Retry-After, the refusals that had it and the wait that was needed."""
    at, place = _places(floats(waits, "retry_after_s"), top)
    columns: dict[str, Any] = {"refusals": np.bincount(place, minlength=len(at))}
    for verdict in ("too short", "longer than needed"):
        chosen = (waits["says"] == verdict).to_numpy(dtype=np.float64)
        columns[verdict] = np.bincount(place, chosen, len(at))
    by_model = pd.Series(floats(waits, "needed_by_model_s"))
    if by_model.notna().any():
        columns["wait of the model, median (s)"] = by_model.groupby(place).median()
    labels = [f"Retry-After {text.compact(value)} s" for value in at]
    return hover(labels, columns, at=at / top, edges=edges)


def hover_remaining(counts: pd.DataFrame, top: float, edges: Edges) -> dict[str, Any]:
    """Return, per value of Remaining in the model, the values reported and their number."""
    at, place = _places(floats(counts, "expected"), top)
    announced = pd.Series(floats(counts, "announced")).groupby(place)
    columns = {
        "responses": np.bincount(place, floats(counts, "answers"), len(at)),
        "reported, minimum": announced.min(),
        "reported, maximum": announced.max(),
    }
    labels = [f"{text.compact(value)} remaining in the model" for value in at]
    return hover(labels, columns, at=at / top, edges=edges)


def _places(values: Floats, top: float) -> tuple[Floats, Ints]:
    """Return the places along an axis of 0 to ``top`` that have values, and the place of each value."""
    at, place = np.unique(values, return_inverse=True)
    if len(at) > MAX_PLACES:
        step = top / MAX_PLACES
        used, place = np.unique(np.floor(values / step), return_inverse=True)
        at = (used + 0.5) * step
    return at, place.astype(np.int64)
