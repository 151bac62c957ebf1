"""Goodput: calls answered within the scenario's objectives, of all calls, failures included."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Bools, floats

OBJECTIVES = {"ttft_ms": "ttft", "tpot_ms": "tpot", "latency_ms": "latency"}
"""The scenario's objectives, and the metric that each bounds."""


class Goodput(NamedTuple):
    """Calls that count, those that were good, their share, and good calls a minute."""

    calls: int
    good: int
    share: float | None
    per_min: float | None


def good_calls(attempts: pd.DataFrame, calls: pd.DataFrame, objectives: dict[str, Any]) -> Bools:
    """Return which calls ended ok and met every objective that applies to them.

    TTFT and TPOT are those of the attempt that succeeded and apply to streams; latency is the call's, waits
    and retries included. A bound is met at the bound itself.
    """
    good = np.array(calls["ok"].to_numpy(dtype=np.bool_))
    bounds = {name: bound for name, bound in objectives.items() if name in OBJECTIVES and bound is not None}
    if not bounds or calls.empty:
        return good
    answered = attempts.loc[attempts["ok"], ["call", "ttft_ms", "tpot_ms"]].drop_duplicates("call")
    measured = calls[["call", "latency_ms"]].merge(answered, on="call", how="left")
    for name, bound in bounds.items():
        values = floats(measured, name)
        good &= np.isnan(values) | (values <= float(bound))
    return good


def goodput(calls: pd.DataFrame, good: Bools, seconds: float) -> Goodput:
    """Sum up. Calls that we cancelled ourselves at the run's end do not count."""
    counted = (calls["outcome"].astype("object") != "cancelled").to_numpy(dtype=np.bool_)
    total, right = int(counted.sum()), int((good & counted).sum())
    return Goodput(
        total, right, right / total if total else None, right * 60 / seconds if seconds > 0 else None
    )
