"""Retries: attempts per call, the waits of the policy and of pacing, and whether retrying helped."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import bools, floats, ints
from bltybench.metrics.latency import shown
from bltybench.metrics.sample import Sample

MAX_ROWS = 10
"""Rows by number of attempts; the last row has all higher numbers."""

COLUMNS = ["attempts", "calls", "ok", "ok_share", "waited_p50_s", "waited_max_s", "latency_p50_ms"]


class RetryStats(NamedTuple):
    """Calls that were retried, and what that cost."""

    calls: int
    attempts: int
    attempts_per_call: float | None
    """Amplification."""
    retried: int
    """Calls with more than one attempt."""
    recovered: int
    """Retried calls that succeeded."""
    gave_up: int
    """Calls that ended refused."""
    waited_s: float
    """Total waits of the policy."""
    paced: int
    """Calls that pacing held."""
    paced_s: float
    """Total time for which it held them."""
    by_attempts: pd.DataFrame
    """COLUMNS, one row per number of attempts."""


def retries(calls: pd.DataFrame) -> RetryStats:
    """Summarize the calls (``frame.calls_frame``) by number of attempts.

    ``waited`` is the sum of a call's waits. Medians are null if the sample is too small.
    """
    attempts, ok = ints(calls, "attempts"), bools(calls, "ok")
    waited, latency = floats(calls, "waited_s"), floats(calls, "latency_ms")
    paced_s = floats(calls, "paced_s")
    capped = np.minimum(attempts, MAX_ROWS)
    rows = []
    for number in np.unique(capped):
        own = capped == number
        rows.append(
            {
                "attempts": str(number) if number < MAX_ROWS else f"{MAX_ROWS} or more",
                "calls": int(own.sum()),
                "ok": int((own & ok).sum()),
                "ok_share": float(ok[own].mean()),
                "waited_p50_s": shown(Sample.of(waited[own]), "p50"),
                "waited_max_s": float(waited[own].max()),
                "latency_p50_ms": shown(Sample.of(latency[own]), "p50"),
            }
        )
    retried = attempts > 1
    return RetryStats(
        calls=len(calls),
        attempts=int(attempts.sum()),
        attempts_per_call=float(attempts.mean()) if len(attempts) else None,
        retried=int(retried.sum()),
        recovered=int((retried & ok).sum()),
        gave_up=int((calls["outcome"].astype("object") == "rate_limited").sum()),
        waited_s=float(waited.sum()),
        paced=int((paced_s > 0).sum()),
        paced_s=float(paced_s.sum()),
        by_attempts=pd.DataFrame(rows, columns=COLUMNS),
    )
