"""Attempts in flight: an exact step function from their start and end times."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import NS_PER_S, Floats, Ints, floats, ints


class InFlight(NamedTuple):
    """Peak (attempts), when it was first reached (s), and mean over time (attempts)."""

    max: int
    at_s: float | None
    mean: float


def steps(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return the step function: ``at_ns`` (ascending, distinct), ``in_flight`` (until the next row).

    An attempt is in flight from ``sent_ns`` until just before ``end_ns``, and never if it was not sent.
    """
    sent = floats(attempts, "sent_ns")
    was_sent = ~np.isnan(sent)
    begins = sent[was_sent].astype(np.int64)
    ends = ints(attempts, "end_ns")[was_sent]
    times = np.concatenate((begins, ends))
    # A stable sort is several times faster, because both are nearly in order.
    order = np.argsort(times, kind="stable")
    times = times[order]
    level = np.cumsum(np.where(order < len(begins), 1, -1))
    last = np.diff(times, append=times[-1:] + 1) > 0
    return pd.DataFrame({"at_ns": times[last], "in_flight": level[last]})


def in_flight(stepped: pd.DataFrame, end_ns: int) -> InFlight:
    """Return peak and time-weighted mean over the run (0 … ``end_ns``)."""
    if stepped.empty or end_ns <= 0:
        return InFlight(0, None, 0.0)
    times, level = ints(stepped, "at_ns"), ints(stepped, "in_flight")
    area = float(np.sum(level[:-1] * np.diff(times)))
    top = int(np.argmax(level))
    return InFlight(int(level[top]), float(times[top]) / NS_PER_S, area / end_ns)


def per_bin(stepped: pd.DataFrame, edges_ns: Ints) -> tuple[Ints, Floats]:
    """Return peak and time-weighted mean in each bin between successive edges (ns, ascending)."""
    bins = len(edges_ns) - 1
    if stepped.empty:
        return np.zeros(bins, dtype=np.int64), np.zeros(bins)
    times, level = ints(stepped, "at_ns"), ints(stepped, "in_flight")
    # Add the level at each edge as a point, so that every bin has one.
    before = np.searchsorted(times, edges_ns[:-1], side="right") - 1
    at_edges = np.where(before >= 0, level[np.maximum(before, 0)], 0)
    points = np.concatenate((edges_ns[:-1], times))
    levels = np.concatenate((at_edges, level))
    order = np.argsort(points, kind="stable")
    points, levels = points[order], levels[order]
    inside = (points >= edges_ns[0]) & (points < edges_ns[-1])
    points, levels = points[inside], levels[inside]
    index = np.searchsorted(edges_ns, points, side="right") - 1
    peak = np.zeros(bins, dtype=np.int64)
    np.maximum.at(peak, index, levels)
    lasted = np.diff(np.append(points, edges_ns[-1]))
    area = np.bincount(index, weights=levels * lasted, minlength=bins)
    return peak, np.asarray(area / np.diff(edges_ns), dtype=np.float64)
