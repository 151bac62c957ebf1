"""The run on one time axis: one row per bin, and rolling values for lines."""

import numpy as np
import pandas as pd

from bltybench.metrics import concurrency, latency, rates
from bltybench.metrics.frame import NS_PER_S, Floats, Ints, floats, ints
from bltybench.metrics.sample import Sample

BIN_WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
MIN_BINS, MAX_BINS = 24, 120
ATTEMPTS_PER_BIN = 4
"""Mean attempts per bin: with fewer, a steady rate looks like noise."""
MAX_LINE_POINTS = 300
"""Times at which rolling values are drawn. The best windows are exact (``rates.best``)."""


def bin_seconds(end_ns: int, attempts: int) -> int:
    """Return the narrowest bin (s) with which a run stays within its number of bins."""
    bins = min(max(attempts // ATTEMPTS_PER_BIN, MIN_BINS), MAX_BINS)
    for width in BIN_WIDTHS_S:
        if end_ns <= width * bins * NS_PER_S:
            return width
    return int(np.ceil(end_ns / NS_PER_S / bins / 3600)) * 3600


def timeline(attempts: pd.DataFrame, events: pd.DataFrame, steps: pd.DataFrame, end_ns: int) -> pd.DataFrame:
    """Return one row per bin, from the run's start to its end.

    ``events``: ``rates.token_events``; ``steps``: ``concurrency.steps``. Columns: ``start_s``,
    ``end_s``; attempts ``offered``, ``accepted``, ``refused``, and ``other``; ``prompt_tokens``,
    ``completion_tokens``; ``in_flight_max``, ``in_flight_mean``.
    """
    width = bin_seconds(end_ns, len(attempts)) * NS_PER_S
    count = max(1, -(-end_ns // width))
    edges = np.arange(count + 1, dtype=np.int64) * width
    frame = pd.DataFrame({"start_s": edges[:-1] / NS_PER_S, "end_s": edges[1:] / NS_PER_S})
    for fate, times in rates.times_by_fate(attempts):
        frame[fate] = _binned(times, edges)
    for name in ("prompt_tokens", "completion_tokens"):
        frame[name] = _binned(ints(events, "at_ns"), edges, floats(events, name))
    frame["in_flight_max"], frame["in_flight_mean"] = concurrency.per_bin(steps, edges)
    return frame


def rolling(attempts: pd.DataFrame, events: pd.DataFrame, steps: pd.DataFrame, end_ns: int) -> pd.DataFrame:
    """Return sums and percentiles over the last 60 s, at up to MAX_LINE_POINTS times.

    ``steps`` and ``events`` as for ``timeline``. Columns: ``at_s``; ``offered``, ``accepted``, ``refused``
    (requests); ``tokens`` (prompt and completion); ``in_flight_max`` (peak since the previous row);
    ``ttft_p50_ms``, ``ttft_p95_ms`` (null if the sample is too small); ``ttft_n`` (streams sent in the 60 s
    that succeeded).
    """
    seconds = max(1, -(-end_ns // NS_PER_S))
    step = -(-seconds // MAX_LINE_POINTS) * NS_PER_S
    grid = np.arange(0, seconds * NS_PER_S + step, step, dtype=np.int64)
    frame = pd.DataFrame({"at_s": grid / NS_PER_S})
    for fate, times in rates.times_by_fate(attempts):
        if fate != "other":
            frame[fate] = rates.rolling(times, grid)
    tokens = floats(events, "prompt_tokens") + floats(events, "completion_tokens")
    frame["tokens"] = rates.rolling(ints(events, "at_ns"), grid, tokens)
    peak, _ = concurrency.per_bin(steps, grid)
    frame["in_flight_max"] = np.concatenate(([0], peak))
    streams = attempts.loc[attempts["ttft_ms"].notna(), ["at_ns", "ttft_ms"]]
    trailing = _trailing(ints(streams, "at_ns"), floats(streams, "ttft_ms"), grid)
    return pd.concat([frame, trailing], axis=1)


def _binned(at_ns: Ints, edges: Ints, weight: Floats | None = None) -> Ints:
    """Return the count (or sum of weights) in each bin; the last one includes its end."""
    index = np.clip(np.searchsorted(edges, at_ns, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(index, weights=weight, minlength=len(edges) - 1).astype(np.int64)


def _trailing(at_ns: Ints, values: Floats, grid_ns: Ints) -> pd.DataFrame:
    """Return p50, p95, and number of the values in the 60 s up to each grid point."""
    order = np.argsort(at_ns, kind="stable")
    times, values = at_ns[order], values[order]
    upto = np.searchsorted(times, grid_ns, side="right")
    since = np.searchsorted(times, grid_ns - rates.WINDOW_NS, side="right")
    windows = [Sample.of(values[low:high]) for low, high in zip(since, upto, strict=True)]
    return pd.DataFrame(
        {
            "ttft_p50_ms": pd.array([latency.shown(window, "p50") for window in windows], dtype="Float64"),
            "ttft_p95_ms": pd.array([latency.shown(window, "p95") for window in windows], dtype="Float64"),
            "ttft_n": (upto - since).astype(np.int64),
        }
    )
