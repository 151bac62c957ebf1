"""The run on one time axis: what the four panels of the page show, a row a bin."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bltybench.metrics import concurrency, latency, rates
from bltybench.metrics.frame import FATES, NS_PER_S, Floats, Ints, floats, ints

BIN_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
MAX_BINS = 120


def bin_seconds(end_ns: int) -> int:
    """Return the narrowest bin that keeps a run of this length within MAX_BINS bins."""
    for width in BIN_SECONDS:
        if end_ns <= width * MAX_BINS * NS_PER_S:
            return width
    return int(np.ceil(end_ns / NS_PER_S / MAX_BINS / 3600)) * 3600


def timeline(attempts: pd.DataFrame, end_ns: int) -> pd.DataFrame:
    """Return one row a bin, from the run's start to its end.

    ``start_s``, ``end_s``; counts of attempts offered in the bin: ``offered``, ``accepted``, ``refused``,
    ``other``; the sums over the 60 s that end with the bin: ``rolling_offered``, ``rolling_accepted``,
    ``rolling_refused``, ``rolling_tokens``; ``prompt_tokens`` and ``completion_tokens`` in the bin;
    ``in_flight_max``, ``in_flight_mean``; ``ttft_p50_ms``, ``ttft_p95_ms`` of streams sent in those 60 s and
    ``ttft_n`` (null where the sample is too small).
    """
    width = bin_seconds(end_ns) * NS_PER_S
    count = max(1, -(-end_ns // width))
    edges = np.arange(count + 1, dtype=np.int64) * width
    frame = pd.DataFrame({"start_s": edges[:-1] / NS_PER_S, "end_s": edges[1:] / NS_PER_S})
    at = rates.request_times(attempts)
    frame["offered"] = _binned(at, edges)
    frame["rolling_offered"] = rates.rolling(at, edges[1:])
    for fate in FATES:
        times = rates.request_times(attempts, fate)
        frame[fate] = _binned(times, edges)
        if fate != "other":
            frame[f"rolling_{fate}"] = rates.rolling(times, edges[1:])
    events = rates.token_events(attempts)
    event_at = ints(events, "at_ns")
    prompt, completion = floats(events, "prompt_tokens"), floats(events, "completion_tokens")
    frame["prompt_tokens"] = _binned(event_at, edges, prompt)
    frame["completion_tokens"] = _binned(event_at, edges, completion)
    frame["rolling_tokens"] = rates.rolling(event_at, edges[1:], prompt + completion)
    frame["in_flight_max"], frame["in_flight_mean"] = concurrency.per_bin(concurrency.steps(attempts), edges)
    streams = attempts[attempts["ttft_ms"].notna()]
    trailing = _trailing(ints(streams, "at_ns"), floats(streams, "ttft_ms"), edges[1:])
    return pd.concat([frame, trailing], axis=1)


def _binned(at_ns: Ints, edges: Ints, weight: Floats | None = None) -> Ints:
    """Return the count (or sum of weights) in each bin; the last one includes its end."""
    where = np.clip(np.searchsorted(edges, at_ns, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(where, weights=weight, minlength=len(edges) - 1).astype(np.int64)


def _trailing(at_ns: Ints, values: Floats, grid_ns: Ints) -> pd.DataFrame:
    """Return p50 and p95 of the values in the 60 s up to each grid point, and how many there were."""
    order = np.argsort(at_ns, kind="stable")
    times, values = at_ns[order], values[order]
    upto = np.searchsorted(times, grid_ns, side="right")
    since = np.searchsorted(times, grid_ns - rates.WINDOW_NS, side="right")
    rows = [latency.describe(values[low:high]) for low, high in zip(since, upto, strict=True)]
    return pd.DataFrame(
        {
            "ttft_p50_ms": pd.array([row["p50"] for row in rows], dtype="Float64"),
            "ttft_p95_ms": pd.array([row["p95"] for row in rows], dtype="Float64"),
            "ttft_n": (upto - since).astype(np.int64),
        }
    )
