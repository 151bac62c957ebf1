"""One row for each stage of a sweep."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import ACCEPTED, NS_PER_S, Bools, Ints, floats, ints
from bltybench.metrics.goodput import goodput
from bltybench.metrics.latency import shown
from bltybench.metrics.outcomes import ERRORS
from bltybench.metrics.rates import request_times
from bltybench.metrics.sample import Sample

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


class Stage(NamedTuple):
    """When a stage began and ended (s), how long it counted, and with how many users where it is of users."""

    begin_s: float
    end_s: float
    steady_s: float | None
    users: int | None


def by_stage(
    attempts: pd.DataFrame,
    calls: pd.DataFrame,
    good: Bools,
    resolved: dict[str, Any],
    everything: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a row a stage, in order of time, warm-up excluded by the caller but from ``everything``.

    ``begin_s``, ``end_s``: the stage, warm-up included. ``offered_per_min`` is calls due a minute, over the
    stage's planned time less its warm-up where that is in seconds, else from its first call to its last.
    ``accepted_per_min`` is what the server let in within that time, of whichever stage's call: a retry that
    came through later is no rate that the stage sustained. ``users`` is null where the stages are of rates.
    ``in_flight_max`` is the greatest number of our open attempts that one was sent into. Percentiles are null
    where the sample is too small for them.
    """
    codes, names = pd.factorize(calls["stage"])
    if len(names) == 0:
        return pd.DataFrame({name: [] for name in COLUMNS})
    tried = pd.Categorical(attempts["stage"].astype("object"), categories=list(names)).codes
    due = ints(calls, "first_due_ns")
    accepted_s = np.sort(request_times(attempts if everything is None else everything, ACCEPTED)) / NS_PER_S
    rows: list[dict[str, Any]] = []
    for code, name in enumerate(names):
        own, tries = codes == code, attempts[tried == code]
        stage = _stage(name, due[own], resolved)
        seconds = stage.steady_s
        offered, from_s, until_s = int(own.sum()), stage.end_s - (seconds or 0.0), stage.end_s
        if seconds is None and offered > 1:
            # The calls are as many as the gaps between them and one more.
            from_s, until_s = float(due[own].min()) / NS_PER_S, float(due[own].max()) / NS_PER_S
            seconds = (until_s - from_s) * offered / (offered - 1)
            until_s = from_s + seconds
        let_in = np.searchsorted(accepted_s, [from_s, until_s])
        ttft, latency = Sample.of(floats(tries, "ttft_ms")), Sample.of(floats(calls[own], "latency_ms"))
        rows.append(
            {
                "stage": str(name),
                "begin_s": stage.begin_s,
                "end_s": stage.end_s,
                "users": stage.users,
                "calls": offered,
                "offered_per_min": offered * 60 / seconds if seconds else None,
                "accepted": int((tries["fate"] == "accepted").sum()),
                "accepted_per_min": float(let_in[1] - let_in[0]) * 60 / seconds if seconds else None,
                "refused_share": float((tries["outcome"] == "rate_limited").mean()),
                "errors_share": float(tries["outcome"].isin(ERRORS).mean()),
                "goodput_share": goodput(calls[own], good[own], seconds or 0.0).share,
                "in_flight_max": int(tries["in_flight"].max()),
                "ttft_p50_ms": shown(ttft, "p50"),
                "ttft_p95_ms": shown(ttft, "p95"),
                "latency_p50_ms": shown(latency, "p50"),
                "latency_p95_ms": shown(latency, "p95"),
            }
        )
    frame = pd.DataFrame(rows, columns=COLUMNS).sort_values("begin_s", kind="stable", ignore_index=True)
    return frame.astype({"users": "Int64"})


def _stage(name: Any, due: Ints, resolved: dict[str, Any]) -> Stage:
    """Return what is planned of a stage, as far as something is, from when its calls were due."""
    arrivals = resolved.get("arrivals", {})
    warm_up_s = float(resolved.get("warm_up_s") or 0.0)
    first, last = float(due.min()) / NS_PER_S, float(due.max()) / NS_PER_S
    steps = arrivals.get("rates_per_min") or arrivals.get("users")
    if steps:
        each = float(resolved["duration_s"]) / len(steps)
        place = int(np.clip(first // each, 0, len(steps) - 1))
        steady = None if resolved.get("warm_up_calls") else each - warm_up_s
        users = int(steps[place]) if "users" in arrivals else None
        return Stage(place * each, (place + 1) * each, steady, users)
    if arrivals.get("kind") == "search":
        users = _users(str(name)) if arrivals.get("load") == "users" else None
        begin, each = first - warm_up_s, float(arrivals["stage_s"])
        gap_s = (last - first) / max(len(due) - 1, 1)
        if users is None and last + 2 * gap_s < begin + each:
            return Stage(begin, last, None, None)  # cut short: its rate is that of the calls which it had
        return Stage(begin, begin + each, each - warm_up_s, users)
    return Stage(first, last, None, None)


def _users(name: str) -> int | None:
    """Return the number of users that a trial's name ends with (``trial 3: 12 users``)."""
    number = name.rpartition(": ")[2].partition(" ")[0]
    return int(number) if number.isdigit() else None
