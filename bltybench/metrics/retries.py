"""What the retry policy did: how many attempts a call took, how long it waited, and what came of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import floats, ints
from bltybench.metrics.latency import shown
from bltybench.metrics.sample import Sample

MOST_ROWS = 10

COLUMNS = ["attempts", "calls", "ok", "ok_share", "waited_p50_s", "waited_max_s", "latency_p50_ms"]


class Retries(NamedTuple):
    """Calls that were tried again, and what that cost."""

    calls: int
    attempts: int
    attempts_per_call: float | None
    """Amplification: attempts over calls."""
    retried: int
    """Calls of more than one attempt."""
    recovered: int
    """Of those: ended ok."""
    gave_up: int
    """Calls that ended refused."""
    waited_s: float
    """What the policy waited in all calls together."""
    by_attempts: pd.DataFrame
    """COLUMNS: a row for each number of attempts, the last one for all above."""


def retries(calls: pd.DataFrame) -> Retries:
    """Sum up the calls (``frame.calls_frame``) by how many attempts each took.

    ``waited`` is the sum of a call's waits; medians are null where the sample is too small for them.
    """
    taken = ints(calls, "attempts")
    ok = calls["ok"].to_numpy(dtype=np.bool_)
    waited, latency = floats(calls, "waited_s"), floats(calls, "latency_ms")
    rows = []
    for number in np.unique(np.minimum(taken, MOST_ROWS)):
        own = np.minimum(taken, MOST_ROWS) == number
        rows.append(
            {
                "attempts": str(number) if number < MOST_ROWS else f"{MOST_ROWS} or more",
                "calls": int(own.sum()),
                "ok": int((own & ok).sum()),
                "ok_share": float(ok[own].mean()),
                "waited_p50_s": shown(Sample.of(waited[own]), "p50"),
                "waited_max_s": float(waited[own].max()),
                "latency_p50_ms": shown(Sample.of(latency[own]), "p50"),
            }
        )
    again = taken > 1
    return Retries(
        calls=len(calls),
        attempts=int(taken.sum()),
        attempts_per_call=float(taken.mean()) if len(taken) else None,
        retried=int(again.sum()),
        recovered=int((again & ok).sum()),
        gave_up=int((calls["outcome"].astype("object") == "rate_limited").sum()),
        waited_s=float(waited.sum()),
        by_attempts=pd.DataFrame(rows, columns=COLUMNS),
    )
