"""Goodput: calls that succeeded within the scenario's objectives, as a fraction of all calls."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Bools, bools, cut_off, floats
from bltybench.scenario.workload import Objectives

OBJECTIVES = {"ttft_ms": "ttft", "tpot_ms": "tpot", "latency_ms": "latency"}
"""The scenario's objectives, and the metric that each bounds."""


class Goodput(NamedTuple):
    """Calls, good calls, their fraction, and good calls per minute."""

    calls: int
    good: int
    share: float | None
    per_min: float | None


def bounds_of(objectives: Objectives) -> dict[str, float]:
    """Return the objectives that are set, by name, in ms."""
    return objectives.model_dump(exclude_none=True)


def good_calls(attempts: pd.DataFrame, calls: pd.DataFrame, objectives: Objectives) -> Bools:
    """Return whether each call succeeded and met every objective that applies to it.

    TTFT and TPOT are those of the attempt that succeeded and apply to streams. Latency is the call's,
    including waits and retries. A value equal to its bound meets it.
    """
    good = bools(calls, "ok").copy()
    bounds = bounds_of(objectives)
    if not bounds or calls.empty:
        return good
    answered = attempts.loc[attempts["ok"], ["call", "ttft_ms", "tpot_ms"]].drop_duplicates("call")
    measured = calls[["call", "latency_ms"]].merge(answered, on="call", how="left")
    for name, bound in bounds.items():
        values = floats(measured, name)
        good &= np.isnan(values) | (values <= bound)
    return good


def goodput(calls: pd.DataFrame, good: Bools, seconds: float) -> Goodput:
    """Return the goodput. Calls that the client canceled at the end of the run don't count."""
    counted = ~cut_off(calls)
    total, successes = int(counted.sum()), int((good & counted).sum())
    share = successes / total if total else None
    return Goodput(total, successes, share, successes * 60 / seconds if seconds > 0 else None)
