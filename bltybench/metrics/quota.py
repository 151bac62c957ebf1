"""Refusals and quotas: what the server announced about its limits, and what happened after a refusal."""

from itertools import pairwise

import numpy as np
import pandas as pd

from bltybench.metrics.frame import NS_PER_S, REFUSED, floats, has_fate, ints

RETRY_AFTER_BINS_S = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, float("inf"))
NOT_GIVEN = "not given"
QUOTAS = (
    "limit_requests",
    "remaining_requests",
    "reset_requests_s",
    "limit_tokens",
    "remaining_tokens",
    "reset_tokens_s",
    "retry_after_s",
)
"""Columns of attempts that hold rate-limit headers."""


def refusals(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per refused attempt, in sending order, with what its call did next.

    Columns: ``at_s`` (sent), ``status``, ``error_type``, ``error_code``, ``retry_after_s``, ``latency_ms``
    (of the refusal), ``next_outcome`` (of the call's next attempt; null if there was none), ``waited_real_s``
    (from the refusal's end to sending the next attempt), ``obeyed`` (whether that wait was at least
    Retry-After; null if either is missing).
    """
    if not has_fate(attempts, REFUSED).any():
        attempts = attempts.iloc[:0]
    codes = ints(attempts, "call")
    order = np.lexsort((ints(attempts, "attempt"), codes))
    following = np.full(len(attempts), -1, dtype=np.int64)
    same_call = codes[order][1:] == codes[order][:-1]
    following[order[:-1][same_call]] = order[1:][same_call]

    rows = np.flatnonzero(has_fate(attempts, REFUSED))
    rows = rows[np.argsort(ints(attempts, "at_ns")[rows], kind="stable")]
    after = following[rows]
    end, sent = floats(attempts, "end_ns"), floats(attempts, "sent_ns")
    waited = np.where(after >= 0, sent[after] - end[rows], np.nan) / NS_PER_S
    requested = floats(attempts, "retry_after_s")[rows]
    known = ~np.isnan(waited) & ~np.isnan(requested)
    outcomes = attempts["outcome"].cat
    following_outcome = np.where(after >= 0, outcomes.codes.to_numpy()[after], -1)
    return pd.DataFrame(
        {
            "at_s": ints(attempts, "at_ns")[rows] / NS_PER_S,
            "status": attempts["status"].iloc[rows].array,
            "error_type": attempts["error_type"].iloc[rows].array,
            "error_code": attempts["error_code"].iloc[rows].array,
            "retry_after_s": pd.array(requested, dtype="Float64"),
            "latency_ms": pd.array((end[rows] - sent[rows]) / 1e6, dtype="Float64"),
            "next_outcome": pd.Categorical.from_codes(following_outcome, outcomes.categories).astype("str"),
            "waited_real_s": pd.array(waited, dtype="Float64"),
            "obeyed": pd.arrays.BooleanArray(waited >= requested, ~known),
        }
    )


def retry_after(refused: pd.DataFrame) -> pd.DataFrame:
    """Return the distribution of Retry-After, and the outcome of waiting.

    One row per range of seconds that occurred, and one for refusals without the header. Columns:
    ``retry_after`` (label), ``refusals``, ``retried``, ``waited_enough`` (waited at least Retry-After),
    ``then_ok``, ``then_refused``, ``then_other`` (of those that waited enough; without the header, of all
    that retried).
    """
    requested = floats(refused, "retry_after_s")
    groups = [
        (_label(low, high), (requested >= low) & (requested < high))
        for low, high in pairwise(RETRY_AFTER_BINS_S)
    ]
    groups.append((NOT_GIVEN, np.isnan(requested)))
    rows: list[tuple[str, int, int, int | None, int, int, int]] = []
    for label, chosen in groups:
        if not chosen.any():
            continue
        part = refused[chosen]
        waited = retried = part[part["next_outcome"].notna()]
        if label != NOT_GIVEN:
            waited = retried[retried["obeyed"].fillna(False).astype(bool)]
        ok = int((waited["next_outcome"] == "ok").sum())
        again = int((waited["next_outcome"] == "rate_limited").sum())
        enough = None if label == NOT_GIVEN else len(waited)
        rows.append((label, len(part), len(retried), enough, ok, again, len(waited) - ok - again))
    columns = ["retry_after", "refusals", "retried", "waited_enough", "then_ok", "then_refused", "then_other"]
    return pd.DataFrame(rows, columns=columns)


def headers(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per rate-limit header that occurred.

    Columns: ``quota``, ``seen`` (responses that had it), ``share`` (of all attempts with a response),
    ``min``, ``median``, ``max``.
    """
    answered = attempts["status"].notna().to_numpy(dtype=np.bool_)
    rows: list[tuple[str, int, float, float, float, float]] = []
    for name in QUOTAS:
        values = floats(attempts, name)[answered]
        values = values[~np.isnan(values)]
        if len(values):
            low, middle, high = (float(x) for x in (values.min(), np.median(values), values.max()))
            rows.append((name, len(values), len(values) / int(answered.sum()), low, middle, high))
    return pd.DataFrame(rows, columns=["quota", "seen", "share", "min", "median", "max"])


def first_refusal(attempts: pd.DataFrame) -> tuple[float, int] | None:
    """Return when the first refused attempt was sent (s), and how many were accepted in the 60 s before.

    None if nothing was refused.
    """
    at = ints(attempts, "at_ns")
    refused = at[has_fate(attempts, REFUSED)]
    if len(refused) == 0:
        return None
    first = int(refused.min())
    accepted = at[(attempts["fate"] == "accepted").to_numpy(dtype=np.bool_)]
    before = int(np.sum((accepted > first - 60 * NS_PER_S) & (accepted <= first)))
    return first / NS_PER_S, before


def _label(low: float, high: float) -> str:
    return f"{low:g} s or more" if high == float("inf") else f"{low:g} to {high:g} s"
