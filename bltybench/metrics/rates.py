"""RPM and TPM: per calendar minute, rolling over 60 s, and the best rolling 60 s."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from bltybench.metrics.frame import ACCEPTED, FATES, NS_PER_S, Floats, Ints, floats, has_fate, ints

WINDOW_NS = 60 * NS_PER_S


class Best(NamedTuple):
    """The highest sum in any window, and the end of that window (ns on the run's axis)."""

    value: float
    until_ns: int | None


def rolling(at_ns: Ints, grid_ns: Ints, weight: Floats | None = None) -> Floats:
    """Return, for each t of the grid, the count (or sum of weights) of events in (t − 60 s, t]."""
    times, total = _running(at_ns, weight)
    upto = np.searchsorted(times, grid_ns, side="right")
    before = np.searchsorted(times, grid_ns - WINDOW_NS, side="right")
    return total[upto] - total[before]


def _running(at_ns: Ints, weight: Floats | None) -> tuple[Ints, Floats]:
    """Return the times in order, and the sum of weights before each of them and after the last."""
    times, weights = at_ns, None if weight is None else np.nan_to_num(weight)
    if np.any(times[1:] < times[:-1]):
        order = np.argsort(at_ns, kind="stable")
        times, weights = times[order], None if weights is None else weights[order]
    if weights is None:
        return times, np.arange(len(times) + 1, dtype=np.float64)
    return times, np.concatenate(([0.0], np.cumsum(weights)))


def best_rolling(at_ns: Ints, weight: Floats | None = None, window_ns: int = WINDOW_NS) -> Best:
    """Return the highest sum over any half-open window (t − 60 s, t], or of another length.

    With weights of 0 or more, the highest sum is reached at an event, so checking those is exact. A run
    shorter than the window is not extrapolated.
    """
    if len(at_ns) == 0:
        return Best(0.0, None)
    times, total = _running(at_ns, weight)
    # Of several events at one time, the last has the sum of all of them, which is the highest.
    sums = total[1:] - total[np.searchsorted(times, times - window_ns, side="right")]
    top = int(np.argmax(sums))
    return Best(float(sums[top]), int(times[top]))


def request_times(attempts: pd.DataFrame, fate: str | None = None) -> Ints:
    """Return ``at_ns`` of the attempts, of one fate if given."""
    at = ints(attempts, "at_ns")
    return at if fate is None else at[has_fate(attempts, fate)]


def times_by_fate(attempts: pd.DataFrame) -> Iterator[tuple[str, Ints]]:
    """Yield the times of all attempts as ``offered``, then those of each fate."""
    yield "offered", request_times(attempts)
    for fate in FATES:
        yield fate, request_times(attempts, fate)


def token_events(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return the tokens of accepted attempts as events: ``at_ns``, ``prompt_tokens``, ``completion_tokens``.

    Prompt tokens count when the request was sent, completion tokens when the answer ended, because both sides
    know each number then. Unknown counts are no event.
    """
    columns = ["at_ns", "end_ns", "prompt_tokens", "completion_tokens"]
    accepted = attempts.loc[has_fate(attempts, ACCEPTED), columns]
    prompt, completion = floats(accepted, "prompt_tokens"), floats(accepted, "completion_tokens")
    has_prompt, has_completion = ~np.isnan(prompt), ~np.isnan(completion)
    prompts, completions = prompt[has_prompt], completion[has_completion]
    times = (ints(accepted, "at_ns")[has_prompt], ints(accepted, "end_ns")[has_completion])
    frame = pd.DataFrame(
        {
            "at_ns": np.concatenate(times),
            "prompt_tokens": np.concatenate((prompts, np.zeros(len(completions)))),
            "completion_tokens": np.concatenate((np.zeros(len(prompts)), completions)),
        }
    )
    return frame.sort_values("at_ns", kind="stable", ignore_index=True)


def best(attempts: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return the best rolling 60 s of every rate. ``events``: the attempts' ``token_events``.

    One row per ``rate`` (offered, accepted, refused, other, prompt_tokens, completion_tokens, total_tokens):
    ``per_min`` (in the best window), ``until_s`` (end of that window, null if there is none), ``count`` (in
    the whole run).
    """
    rows: list[tuple[str, float, float | None, float]] = []

    def add(name: str, at_ns: Ints, weight: Floats | None = None) -> None:
        top = best_rolling(at_ns, weight)
        until_s = None if top.until_ns is None else top.until_ns / NS_PER_S
        rows.append((name, top.value, until_s, float(len(at_ns) if weight is None else weight.sum())))

    for fate, times in times_by_fate(attempts):
        add(fate, times)
    at_ns = ints(events, "at_ns")
    prompt, completion = floats(events, "prompt_tokens"), floats(events, "completion_tokens")
    add("prompt_tokens", at_ns, prompt)
    add("completion_tokens", at_ns, completion)
    add("total_tokens", at_ns, prompt + completion)
    return pd.DataFrame(rows, columns=["rate", "per_min", "until_s", "count"]).astype({"until_s": "Float64"})


def tokens_in_best(events: pd.DataFrame) -> tuple[int, int]:
    """Return prompt and completion tokens in the best rolling 60 s of both together."""
    at_ns, prompt, completion = (
        ints(events, "at_ns"),
        floats(events, "prompt_tokens"),
        floats(events, "completion_tokens"),
    )
    until_ns = best_rolling(at_ns, prompt + completion).until_ns
    if until_ns is None:
        return 0, 0
    end = np.array([until_ns], dtype=np.int64)
    return int(rolling(at_ns, end, prompt)[0]), int(rolling(at_ns, end, completion)[0])


def per_minute(attempts: pd.DataFrame, events: pd.DataFrame, wall_ns: int, end_ns: int) -> pd.DataFrame:
    """Return one row per calendar minute (UTC) of the run, including minutes without traffic.

    ``events``: the attempts' ``token_events``; ``wall_ns``: wall clock at the run's start; ``end_ns``: the
    run's end on its own axis. Columns: ``minute`` (UTC), ``covered_s`` (seconds of it inside the
    run), offered, accepted, refused, other, prompt_tokens, completion_tokens, total_tokens.
    """
    first = wall_ns // WINDOW_NS
    count = int((wall_ns + max(end_ns, 0)) // WINDOW_NS - first) + 1
    starts = (first + np.arange(count)) * WINDOW_NS
    covered = np.minimum(starts + WINDOW_NS, wall_ns + end_ns) - np.maximum(starts, wall_ns)
    frame = pd.DataFrame(
        {"minute": pd.to_datetime(starts, utc=True), "covered_s": np.maximum(covered, 0) / NS_PER_S}
    )

    def by_minute(at_ns: Ints, weight: Floats | None = None) -> Ints:
        index = (at_ns + wall_ns) // WINDOW_NS - first
        return np.bincount(index, weights=weight, minlength=count)[:count].astype(np.int64)

    for fate, times in times_by_fate(attempts):
        frame[fate] = by_minute(times)
    for name in ("prompt_tokens", "completion_tokens"):
        frame[name] = by_minute(ints(events, "at_ns"), floats(events, name))
    frame["total_tokens"] = frame["prompt_tokens"] + frame["completion_tokens"]
    # A run that ends on the minute doesn't reach the next one, unless something ended at that very time.
    reached = (frame["covered_s"] > 0) | (frame["total_tokens"] + frame["offered"] > 0)
    return frame[reached | (frame.index == 0)].reset_index(drop=True)
