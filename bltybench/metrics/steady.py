"""The steady part of a run: the warm-up is excluded, and the rest is tested for drift."""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import NS_PER_S, Bools, Floats, Ints, floats, ints
from bltybench.metrics.latency import min_sample
from bltybench.metrics.sample import Sample
from bltybench.scenario.patterns import Ladder, Ramp, Stairs
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Scenario

MAX_DRIFT_P = 0.001
"""A drift has a p-value below this."""
MIN_DRIFT_CHANGE = 0.10
"""A drift changes the median by more than this fraction, from the first third of the run to the last."""
CHANGING_LOADS = (Ramp, Stairs, Ladder, CapacitySearch, Tournament)
"""Loads that change on purpose: a trend in them is no drift."""
DRIFT_COLUMNS = ["metric", "n", "first_p50", "last_p50", "change", "p_value", "drifts"]


class WarmUp(NamedTuple):
    """The excluded warm-up: the scenario's bound, and the number of calls and attempts."""

    seconds: float
    """From the start of the run, or of each stage."""
    first_calls: int
    """The same as a number of calls."""
    calls: int
    attempts: int


def warm_up(attempts: pd.DataFrame, scenario: Scenario) -> tuple[Bools, WarmUp]:
    """Return whether each attempt belongs to the warm-up, and a summary.

    A call belongs to it with all its retries, if it was first due less than ``warm_up_s`` after the start of
    its stage (or of the run), or is among the first ``warm_up_calls`` of its stage.
    """
    seconds, first_calls = scenario.warm_up_s, scenario.warm_up_calls
    if attempts.empty or (seconds == 0 and first_calls == 0):
        return np.zeros(len(attempts), dtype=np.bool_), WarmUp(seconds, first_calls, 0, 0)
    codes = ints(attempts, "call")
    first_due = np.full(codes.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_due, codes, ints(attempts, "due_ns"))
    stages, _ = pd.factorize(attempts["stage"])
    stage_of = np.zeros(len(first_due), dtype=np.int64)
    stage_of[codes] = stages
    if first_calls:
        position = pd.Series(first_due).groupby(stage_of).rank(method="first").to_numpy()
        excluded = position <= first_calls
    else:
        excluded = first_due - _begin_ns(first_due, stage_of, scenario) < seconds * NS_PER_S
    mask = np.asarray(excluded[codes], dtype=np.bool_)
    return mask, WarmUp(seconds, first_calls, int(excluded.sum()), int(mask.sum()))


def _begin_ns(first_due: Ints, stage_of: Ints, scenario: Scenario) -> Floats:
    """Return the start of each call's stage: the planned one, or else its first call."""
    planned = scenario.stages()
    if planned:
        begins = np.array([stage.begin_s for stage in planned]) * NS_PER_S
        return begins[np.maximum(np.searchsorted(begins, first_due, side="right") - 1, 0)]
    first_calls = pd.Series(first_due).groupby(stage_of).transform("min").to_numpy()
    return np.where(stage_of >= 0, first_calls, 0).astype(np.float64)


def steady_s(scenario: Scenario, load_ns: int) -> float:
    """Return the seconds of the load without a warm-up in seconds."""
    return max(0.0, load_ns / NS_PER_S - (len(scenario.stages()) or 1) * scenario.warm_up_s)


def drift(attempts: pd.DataFrame, scenario: Scenario) -> pd.DataFrame:
    """Test whether TTFT and attempt latency of the steady part rise or fall with time.

    The test is Spearman's rank correlation ρ of value and time, with p from ρ·√(n − 1) as a standard normal.
    ``drifts`` if p < MAX_DRIFT_P and the medians of the first and last third differ by more than
    MIN_DRIFT_CHANGE. Successive latencies depend on each other, which makes p too small, so the change must
    be large as well. There are no rows if the load changes on purpose or the sample is too small for medians.
    """
    rows: list[tuple[Any, ...]] = []
    if not isinstance(scenario.arrivals, CHANGING_LOADS):
        for metric, column in (("ttft", "ttft_ms"), ("attempt_latency", "latency_ms")):
            measured = attempts.loc[attempts[column].notna(), ["at_ns", column]].sort_values("at_ns")
            values = floats(measured, column)
            if len(values) >= 3 * min_sample("p50"):
                rows.append((metric, len(values), *_trend(values)))
    return pd.DataFrame(rows, columns=DRIFT_COLUMNS)


def _trend(values: Floats) -> tuple[float, float, float, float, bool]:
    n = len(values)
    pairs = pd.DataFrame({"value": values, "order": np.arange(n)})
    # Not Series.corr: it needs SciPy.
    rho = float(np.nan_to_num(pairs.corr(method="spearman").to_numpy()[0, 1]))
    p_value = 2 * NormalDist().cdf(-abs(rho) * math.sqrt(n - 1))
    third = n // 3
    first, last = (Sample.of(part).quantile(0.5) for part in (values[:third], values[-third:]))
    change = last / first - 1 if first > 0 else 0.0
    return first, last, change, p_value, bool(p_value < MAX_DRIFT_P and abs(change) > MIN_DRIFT_CHANGE)
