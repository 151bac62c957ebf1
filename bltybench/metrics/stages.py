"""Stages: one row for each step of stairs, ladders, and searches."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import ACCEPTED, NS_PER_S, Bools, Ints, floats, ints
from bltybench.metrics.goodput import goodput
from bltybench.metrics.latency import shown
from bltybench.metrics.outcomes import ERRORS
from bltybench.metrics.rates import request_times
from bltybench.metrics.sample import Sample
from bltybench.scenario.patterns import stage_at
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.workload import Scenario

COLUMNS = [
    "stage",
    "begin_s",
    "end_s",
    "users",
    "calls",
    "offered_per_min",
    "accepted",
    "accepted_per_min",
    "refused_share",
    "errors_share",
    "goodput_share",
    "in_flight_max",
    "ttft_p50_ms",
    "ttft_p95_ms",
    "latency_p50_ms",
    "latency_p95_ms",
]


class StageWindow(NamedTuple):
    """Start and end of a stage (s), its measured seconds, and its users in a closed loop."""

    begin_s: float
    end_s: float
    steady_s: float | None
    """None if the measured time is that from the first call to the last."""
    users: int | None


def by_stage(
    attempts: pd.DataFrame,
    calls: pd.DataFrame,
    good: Bools,
    scenario: Scenario,
    everything: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a row per stage, in order of time. Only ``everything`` includes the warm-up.

    ``begin_s`` and ``end_s`` include the warm-up. ``offered_per_min`` counts calls due, over the stage's
    planned time without its warm-up in seconds, or else from its first call to its last. ``accepted_per_min``
    counts acceptances in that time, also of calls of other stages: the stage did not sustain a retry that
    succeeds later. ``users`` is null in an open loop. ``in_flight_max`` is the highest number of own
    attempts in flight when one was sent. Percentiles are null if the sample is too small.
    """
    codes, names = pd.factorize(calls["stage"])
    if len(names) == 0:
        return pd.DataFrame({name: [] for name in COLUMNS})
    attempt_codes = pd.Categorical(attempts["stage"].astype("object"), categories=list(names)).codes
    due = ints(calls, "first_due_ns")
    accepted_s = np.sort(request_times(attempts if everything is None else everything, ACCEPTED)) / NS_PER_S
    rows: list[dict[str, Any]] = []
    for code, name in enumerate(names):
        own, tries = codes == code, attempts[attempt_codes == code]
        window = _window(str(name), due[own], scenario)
        seconds = window.steady_s
        offered, from_s, until_s = int(own.sum()), window.end_s - (seconds or 0.0), window.end_s
        if seconds is None and offered > 1:
            # n calls have n − 1 gaps between them: add one gap.
            from_s, last_s = float(due[own].min()) / NS_PER_S, float(due[own].max()) / NS_PER_S
            seconds = (last_s - from_s) * offered / (offered - 1)
            until_s = from_s + seconds
        before, upto = np.searchsorted(accepted_s, [from_s, until_s])
        ttft, latency = Sample.of(floats(tries, "ttft_ms")), Sample.of(floats(calls[own], "latency_ms"))
        rows.append(
            {
                "stage": str(name),
                "begin_s": window.begin_s,
                "end_s": window.end_s,
                "users": window.users,
                "calls": offered,
                "offered_per_min": offered * 60 / seconds if seconds else None,
                "accepted": int((tries["fate"] == ACCEPTED).sum()),
                "accepted_per_min": float(upto - before) * 60 / seconds if seconds else None,
                "refused_share": float((tries["fate"] == "refused").mean()),
                "errors_share": float(tries["outcome"].isin(ERRORS).mean()),
                "goodput_share": goodput(calls[own], good[own], seconds or 0.0).share,
                "in_flight_max": tries["in_flight"].max(),
                "ttft_p50_ms": shown(ttft, "p50"),
                "ttft_p95_ms": shown(ttft, "p95"),
                "latency_p50_ms": shown(latency, "p50"),
                "latency_p95_ms": shown(latency, "p95"),
            }
        )
    frame = pd.DataFrame(rows, columns=COLUMNS).sort_values("begin_s", kind="stable", ignore_index=True)
    return frame.astype({"users": "Int64", "in_flight_max": "Int64"})


def _window(name: str, due: Ints, scenario: Scenario) -> StageWindow:
    """Return the planned window of a stage as far as there is one, from when its calls were due."""
    warm_up_s = scenario.warm_up_s
    first, last = float(due.min()) / NS_PER_S, float(due.max()) / NS_PER_S
    planned = scenario.stages()
    index = stage_at(planned, first)
    if index is not None:
        stage = planned[index]
        steady_s = None if scenario.warm_up_calls else stage.end_s - stage.begin_s - warm_up_s
        return StageWindow(stage.begin_s, stage.end_s, steady_s, stage.users)
    search = scenario.arrivals
    if not isinstance(search, CapacitySearch):
        return StageWindow(first, last, None, None)
    users = _users(name) if search.load == "users" else None
    begin = first - warm_up_s
    gap_s = (last - first) / max(len(due) - 1, 1)
    if users is None and last + 2 * gap_s < begin + search.stage_s:
        return StageWindow(begin, last, None, None)  # a trial cut short: its rate is that of its calls
    return StageWindow(begin, begin + search.stage_s, search.stage_s - warm_up_s, users)


def _users(name: str) -> int | None:
    """Return the number of users at the end of a trial's name (``trial 3: 12 users``)."""
    number = name.rpartition(": ")[2].partition(" ")[0]
    return int(number) if number.isdigit() else None
