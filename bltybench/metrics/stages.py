"""One row for each stage of a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Bools, floats, ints
from bltybench.metrics.goodput import goodput
from bltybench.metrics.latency import describe
from bltybench.metrics.outcomes import ERRORS, count_of
from bltybench.metrics.sample import Sample

COLUMNS = [
    "stage",
    "calls",
    "offered_per_min",
    "accepted",
    "refused_share",
    "errors_share",
    "goodput_share",
    "in_flight_max",
    "ttft_p50_ms",
    "ttft_p95_ms",
    "latency_p50_ms",
    "latency_p95_ms",
]


def by_stage(
    attempts: pd.DataFrame, calls: pd.DataFrame, good: Bools, resolved: dict[str, Any]
) -> pd.DataFrame:
    """Return a row a stage, in order of time, warm-up excluded by the caller.

    ``offered_per_min`` is calls due a minute: over the stage's planned time less its warm-up where that is in
    seconds, else from its first call to its last. ``in_flight_max`` is the greatest number of our open
    attempts that one was sent into. Percentiles are null where the sample is too small for them.
    """
    staged = calls["stage"].notna().to_numpy(dtype=np.bool_) if len(calls) else np.zeros(0, dtype=np.bool_)
    if not staged.any():
        return pd.DataFrame({name: [] for name in COLUMNS})
    rows: list[dict[str, Any]] = []
    for stage in calls.loc[staged, "stage"].astype("object").unique():
        own = (calls["stage"].astype("object") == stage).to_numpy(dtype=np.bool_)
        tries = attempts[(attempts["stage"].astype("object") == stage).to_numpy(dtype=np.bool_)]
        due_s = ints(calls[own], "first_due_ns") / 1e9
        seconds = _seconds(resolved) or float(due_s.max() - due_s.min())
        ttft, latency = (
            describe(Sample.of(values))
            for values in (floats(tries, "ttft_ms"), floats(calls[own], "latency_ms"))
        )
        rows.append(
            {
                "stage": str(stage),
                "calls": int(own.sum()),
                "offered_per_min": own.sum() * 60 / seconds if seconds > 0 else None,
                "accepted": int((tries["fate"] == "accepted").sum()),
                "refused_share": count_of(tries, "rate_limited") / len(tries),
                "errors_share": count_of(tries, *ERRORS) / len(tries),
                "goodput_share": goodput(calls[own], good[own], seconds).share,
                "in_flight_max": int(tries["in_flight"].max()),
                "ttft_p50_ms": ttft["p50"],
                "ttft_p95_ms": ttft["p95"],
                "latency_p50_ms": latency["p50"],
                "latency_p95_ms": latency["p95"],
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _seconds(resolved: dict[str, Any]) -> float | None:
    """Return how long a stage lasted as planned, less its warm-up; None where that is not in seconds."""
    arrivals = resolved.get("arrivals", {})
    steps = arrivals.get("rates_per_min") or arrivals.get("users")
    if not steps or resolved.get("warm_up_calls"):
        return None
    return float(resolved["duration_s"]) / len(steps) - float(resolved.get("warm_up_s") or 0.0)
