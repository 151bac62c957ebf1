"""RPM and TPM: per calendar minute, rolling over 60 s, and the best rolling 60 s."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import ACCEPTED, NS_PER_S, OTHER, REFUSED, Floats, Ints, floats, ints

WINDOW_NS = 60 * NS_PER_S


class Best(NamedTuple):
    """The highest sum in any window, and when that window ended (ns on the run's axis)."""

    value: float
    until_ns: int | None


def rolling(at_ns: Ints, grid_ns: Ints, weight: Floats | None = None, window_ns: int = WINDOW_NS) -> Floats:
    """Return, for each t of the grid, the sum of weights (count) of events in (t − window, t]."""
    times, total = _running(at_ns, weight)
    upto = np.searchsorted(times, grid_ns, side="right")
    before = np.searchsorted(times, grid_ns - window_ns, side="right")
    return total[upto] - total[before]


def _running(at_ns: Ints, weight: Floats | None) -> tuple[Ints, Floats]:
    """Return the moments in order, and the sum of weights before each of them and after the last."""
    times, weights = at_ns, None if weight is None else np.nan_to_num(weight)
    if np.any(times[1:] < times[:-1]):
        order = np.argsort(at_ns, kind="stable")
        times, weights = times[order], None if weights is None else weights[order]
    if weights is None:
        return times, np.arange(len(times) + 1, dtype=np.float64)
    return times, np.concatenate(([0.0], np.cumsum(weights)))


def best_rolling(at_ns: Ints, weight: Floats | None = None, window_ns: int = WINDOW_NS) -> Best:
    """Return the greatest sum over any half-open window (t − window, t].

    Exact: with weights of 0 or more the greatest is reached at an event, so only those are looked at.
    A run shorter than the window is not extrapolated: its sum is the answer.
    """
    if len(at_ns) == 0:
        return Best(0.0, None)
    times, total = _running(at_ns, weight)
    # Of several events at one moment the last has the sum of all of them, and that is the greatest.
    sums = total[1:] - total[np.searchsorted(times, times - window_ns, side="right")]
    top = int(np.argmax(sums))
    return Best(float(sums[top]), int(times[top]))


def request_times(attempts: pd.DataFrame, fate: str | None = None) -> Ints:
    """Return when attempts (of one fate) were offered: ``at_ns``."""
    at = ints(attempts, "at_ns")
    return at if fate is None else at[(attempts["fate"] == fate).to_numpy(dtype=np.bool_)]


def token_events(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return the tokens of accepted attempts as events: ``at_ns``, ``prompt_tokens``, ``completion_tokens``.

    Prompt tokens count when the request was sent, completion tokens when the answer ended: that is when
    each is known to both sides. Unknown counts are no event.
    """
    columns = ["at_ns", "end_ns", "prompt_tokens", "completion_tokens"]
    accepted = attempts.loc[attempts["fate"] == ACCEPTED, columns]
    prompt, completion = floats(accepted, "prompt_tokens"), floats(accepted, "completion_tokens")
    has_prompt, has_completion = ~np.isnan(prompt), ~np.isnan(completion)
    frame = pd.DataFrame(
        {
            "at_ns": np.concatenate(
                (ints(accepted, "at_ns")[has_prompt], ints(accepted, "end_ns")[has_completion])
            ),
            "prompt_tokens": np.concatenate((prompt[has_prompt], np.zeros(int(has_completion.sum())))),
            "completion_tokens": np.concatenate(
                (np.zeros(int(has_prompt.sum())), completion[has_completion])
            ),
        }
    )
    return frame.sort_values("at_ns", kind="stable", ignore_index=True)


def best(attempts: pd.DataFrame, events: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the best rolling 60 s of every rate. ``events``: the attempts' ``token_events``, if at hand.

    One row a ``rate`` (offered, accepted, refused, other; prompt_tokens, completion_tokens, total_tokens):
    ``per_min`` (requests or tokens in the window), ``until_s`` (end of that window, null where nothing came),
    ``count`` (in the whole run).
    """
    rows: list[tuple[str, float, float | None, float]] = []
    for name, fate in (("offered", None), (ACCEPTED, ACCEPTED), (REFUSED, REFUSED), (OTHER, OTHER)):
        times = request_times(attempts, fate)
        found = best_rolling(times)
        rows.append((name, found.value, _seconds(found.until_ns), float(len(times))))
    events = token_events(attempts) if events is None else events
    prompt, completion = floats(events, "prompt_tokens"), floats(events, "completion_tokens")
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    for name, weight in tokens.items():
        found = best_rolling(ints(events, "at_ns"), weight)
        rows.append((name, found.value, _seconds(found.until_ns), float(weight.sum())))
    return pd.DataFrame(rows, columns=["rate", "per_min", "until_s", "count"]).astype({"until_s": "Float64"})


def per_minute(
    attempts: pd.DataFrame, wall_ns: int, end_ns: int, events: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return one row for each calendar minute (UTC) that the run touched, quiet ones included.

    ``wall_ns`` is the wall clock at the run's start, ``end_ns`` the run's end on its own axis, ``events`` the
    attempts' ``token_events``, if at hand. Columns:
    ``minute`` (UTC), ``covered_s`` (seconds of it inside the run), offered, accepted, refused, other,
    prompt_tokens, completion_tokens, total_tokens.
    """
    first = wall_ns // WINDOW_NS
    count = int((wall_ns + max(end_ns, 0)) // WINDOW_NS - first) + 1
    starts = (first + np.arange(count)) * WINDOW_NS
    covered = np.minimum(starts + WINDOW_NS, wall_ns + end_ns) - np.maximum(starts, wall_ns)
    frame = pd.DataFrame(
        {"minute": pd.to_datetime(starts, utc=True), "covered_s": np.maximum(covered, 0) / NS_PER_S}
    )
    for name, fate in (("offered", None), (ACCEPTED, ACCEPTED), (REFUSED, REFUSED), (OTHER, OTHER)):
        index = (request_times(attempts, fate) + wall_ns) // WINDOW_NS - first
        frame[name] = np.bincount(index, minlength=count)[:count]
    events = token_events(attempts) if events is None else events
    index = (ints(events, "at_ns") + wall_ns) // WINDOW_NS - first
    for name in ("prompt_tokens", "completion_tokens"):
        frame[name] = np.bincount(index, weights=floats(events, name), minlength=count)[:count].astype(
            np.int64
        )
    frame["total_tokens"] = frame["prompt_tokens"] + frame["completion_tokens"]
    # A run that ends on the minute does not touch the next one, unless something ended at that very moment.
    touched = (frame["covered_s"] > 0) | (frame["total_tokens"] + frame["offered"] > 0)
    return frame[touched | (frame.index == 0)].reset_index(drop=True)


def _seconds(at_ns: int | None) -> float | None:
    return None if at_ns is None else at_ns / NS_PER_S
