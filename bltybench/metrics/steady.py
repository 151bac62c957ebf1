"""The steady part of a run: what is left when the warm-up is set aside, and whether it drifts."""

from __future__ import annotations

from math import erfc, sqrt
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Bools, Floats, Ints, floats, ints
from bltybench.metrics.latency import needed
from bltybench.metrics.sample import Sample
from bltybench.runs.manifest import Manifest

DRIFT_P = 0.001
"""A trend this unlikely to be chance …"""

DRIFT_CHANGE = 0.10
"""… and this large, from the first third of the run to the last, is called a drift."""

CHANGING = frozenset({"ramp", "stairs", "ladder", "search"})
"""Loads that change on purpose: a trend in them is no drift."""


class WarmUp(NamedTuple):
    """What was set aside: the scenario's bound, and how many calls and attempts that were."""

    seconds: float
    """From the beginning of the run, or of each stage."""
    first_calls: int
    """The same as a number of calls."""
    calls: int
    attempts: int


def warm_up(attempts: pd.DataFrame, manifest: Manifest) -> tuple[Bools, WarmUp]:
    """Return which attempts belong to the warm-up, and what that comes to.

    A call is in it as a whole, retries included, by when it was first due: less than ``warm_up_s`` after its
    stage began (the run, where there are no stages), or among the first ``warm_up_calls`` of its stage.
    """
    resolved = manifest.resolved
    seconds = float(resolved.get("warm_up_s") or 0.0)
    first_calls = int(resolved.get("warm_up_calls") or 0)
    nothing = np.zeros(len(attempts), dtype=np.bool_)
    if attempts.empty or (seconds == 0 and first_calls == 0):
        return nothing, WarmUp(seconds, first_calls, 0, 0)
    codes = ints(attempts, "call")
    first_due = np.full(codes.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_due, codes, ints(attempts, "due_ns"))
    stages, _ = pd.factorize(attempts["stage"])
    stage_of = np.zeros(len(first_due), dtype=np.int64)
    stage_of[codes] = stages
    if first_calls:
        excluded = _place_in_stage(first_due, stage_of) < first_calls
    else:
        excluded = first_due - _begin_ns(first_due, stage_of, resolved) < seconds * 1e9
    mask = np.asarray(excluded[codes], dtype=np.bool_)
    return mask, WarmUp(seconds, first_calls, int(excluded.sum()), int(mask.sum()))


def _place_in_stage(first_due: Ints, stage_of: Ints) -> Ints:
    """Return each call's place, from 0, in the order of its stage."""
    order = np.lexsort((first_due, stage_of))
    starts = np.flatnonzero(np.r_[True, np.diff(stage_of[order]) != 0])
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return places


def _begin_ns(first_due: Ints, stage_of: Ints, resolved: dict[str, Any]) -> Floats:
    """Return when each call's stage began: as planned for stairs and ladders, else with its first call."""
    arrivals = resolved.get("arrivals", {})
    steps = arrivals.get("rates_per_min") or arrivals.get("users")
    if steps:
        step_ns = float(resolved["duration_s"]) * 1e9 / len(steps)
        return np.floor(np.clip(first_due / step_ns, 0, len(steps) - 1)) * step_ns
    begin = np.zeros(len(first_due))
    for stage in np.unique(stage_of):
        if stage >= 0:
            begin[stage_of == stage] = first_due[stage_of == stage].min()
    return begin


def steady_s(manifest: Manifest, end_ns: int) -> float:
    """Return how many seconds of the run were not warm-up, where it is given in seconds; all where not."""
    resolved = manifest.resolved
    ran_s = end_ns / 1e9 if manifest.ended_ns is None else manifest.ended_ns / 1e9
    arrivals = resolved.get("arrivals", {})
    steps = arrivals.get("rates_per_min") or arrivals.get("users") or [None]
    return max(0.0, ran_s - len(steps) * float(resolved.get("warm_up_s") or 0.0))


DRIFT_COLUMNS = ["metric", "n", "first_p50", "last_p50", "change", "p_value", "drifts"]


def drift(attempts: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Test whether TTFT and attempt latency of the steady part rise or fall with time.

    Spearman's rank correlation ρ of value and moment, its p-value from ρ·√(n − 1) as a standard normal, and
    the medians of the first and the last third of the successes. ``drifts`` where p < DRIFT_P and the medians
    differ by more than DRIFT_CHANGE. No rows where the load changes on purpose or the sample is too small
    for medians (60). Successive latencies of a busy server are not independent, so p is on the small side:
    the size of the change is what keeps small things from being called a drift.
    """
    rows: list[tuple[Any, ...]] = []
    if manifest.resolved.get("arrivals", {}).get("kind") not in CHANGING:
        for metric, column in (("ttft", "ttft_ms"), ("attempt_latency", "latency_ms")):
            measured = attempts.loc[attempts[column].notna(), ["at_ns", column]].sort_values("at_ns")
            values = floats(measured, column)
            if len(values) >= 3 * needed("p50"):
                rows.append((metric, len(values), *_trend(values)))
    return pd.DataFrame(rows, columns=DRIFT_COLUMNS)


def _trend(values: Floats) -> tuple[float, float, float, float, bool]:
    n = len(values)
    ranks = pd.Series(values).rank().to_numpy()
    spread = float(ranks.std())
    order = np.arange(n)
    rho = 0.0
    if spread > 0:
        rho = float(np.mean((ranks - ranks.mean()) * (order - order.mean()))) / (spread * float(order.std()))
    p_value = _two_sided(rho * float(np.sqrt(n - 1)))
    third = n // 3
    first, last = (Sample.of(part).quantile(0.5) for part in (values[:third], values[-third:]))
    change = last / first - 1 if first > 0 else 0.0
    return first, last, change, p_value, bool(p_value < DRIFT_P and abs(change) > DRIFT_CHANGE)


def _two_sided(z: float) -> float:
    """Return the probability that a standard normal lies at least as far from 0 as z."""
    return erfc(abs(z) / sqrt(2))
