"""Refusals and quotas: what the server said about its limits, and whether it held."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from bltybench.metrics.frame import NS_PER_S, REFUSED, floats, ints

RETRY_AFTER_BINS_S = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, float("inf"))

QUOTAS = (
    "limit_requests",
    "remaining_requests",
    "reset_requests_s",
    "limit_tokens",
    "remaining_tokens",
    "reset_tokens_s",
    "retry_after_s",
)


def refusals(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row a refused attempt, in order, with what its call did next.

    Columns: ``at_s`` (sent), ``status``, ``error_type``, ``error_code``, ``retry_after_s``, ``latency_ms``
    (of the refusal itself), ``next_outcome`` (of the call's next attempt; null where there was none),
    ``waited_real_s`` (from the refusal's end to when the next was sent), ``obeyed`` (that wait was at least
    the Retry-After; null where either is missing).
    """
    columns = [
        "at_s",
        "status",
        "error_type",
        "error_code",
        "retry_after_s",
        "latency_ms",
        "next_outcome",
        "waited_real_s",
        "obeyed",
    ]
    refused = (attempts["fate"] == REFUSED).to_numpy(dtype=np.bool_)
    if not refused.any():
        return pd.DataFrame({name: [] for name in columns})
    codes = ints(attempts, "call")
    order = np.lexsort((ints(attempts, "attempt"), codes))
    following = np.full(len(attempts), -1, dtype=np.int64)
    same_call = codes[order][1:] == codes[order][:-1]
    following[order[:-1][same_call]] = order[1:][same_call]

    rows = np.flatnonzero(refused)
    rows = rows[np.argsort(ints(attempts, "at_ns")[rows], kind="stable")]
    after = following[rows]
    has_next = after >= 0
    end, sent = floats(attempts, "end_ns"), floats(attempts, "sent_ns")
    waited = np.where(has_next, sent[after] - end[rows], np.nan) / NS_PER_S
    said = floats(attempts, "retry_after_s")[rows]
    known = ~np.isnan(waited) & ~np.isnan(said)
    outcome = attempts["outcome"].astype("object").to_numpy()
    return pd.DataFrame(
        {
            "at_s": ints(attempts, "at_ns")[rows] / NS_PER_S,
            "status": attempts["status"].iloc[rows].array,
            "error_type": attempts["error_type"].iloc[rows].array,
            "error_code": attempts["error_code"].iloc[rows].array,
            "retry_after_s": pd.array(said, dtype="Float64"),
            "latency_ms": pd.array((end[rows] - sent[rows]) / 1e6, dtype="Float64"),
            "next_outcome": pd.array([outcome[row] if row >= 0 else None for row in after], dtype="str"),
            "waited_real_s": pd.array(waited, dtype="Float64"),
            "obeyed": pd.arrays.BooleanArray(waited >= said, ~known),
        }
    )


def retry_after(refused: pd.DataFrame) -> pd.DataFrame:
    """Return how Retry-After was distributed, and what came of waiting.

    One row a range of seconds that occurred, and one for refusals without the header. Columns:
    ``retry_after`` (label), ``refusals``, ``retried``, ``waited_enough`` (the wait was at least as long as
    asked for), ``then_ok``, ``then_refused``, ``then_other`` (of those that waited enough; without the
    header: of all retried).
    """
    said = floats(refused, "retry_after_s") if len(refused) else np.zeros(0)
    rows: list[dict[str, object]] = []
    bounds = pairwise(RETRY_AFTER_BINS_S)
    groups = [(_label(low, high), (said >= low) & (said < high)) for low, high in bounds]
    groups.append(("not given", np.isnan(said)))
    for label, chosen in groups:
        if not chosen.any():
            continue
        part = refused[chosen]
        retried = part[part["next_outcome"].notna()]
        given = label != "not given"
        enough = retried[retried["obeyed"].fillna(False).astype(bool)] if given else retried
        ok = int((enough["next_outcome"] == "ok").sum())
        again = int((enough["next_outcome"] == "rate_limited").sum())
        rows.append(
            {
                "retry_after": label,
                "refusals": len(part),
                "retried": len(retried),
                "waited_enough": len(enough) if given else None,
                "then_ok": ok,
                "then_refused": again,
                "then_other": len(enough) - ok - again,
            }
        )
    columns = ["retry_after", "refusals", "retried", "waited_enough", "then_ok", "then_refused", "then_other"]
    return pd.DataFrame(rows, columns=columns)


def headers(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return the quota headers seen, one row a kind.

    Columns: ``quota``, ``seen``, ``share``, ``min``, ``median``, ``max``. ``seen``
    counts answers that carried it, ``share`` is of the attempts that got an answer at all.
    """
    answered = attempts[attempts["status"].notna()]
    rows: list[tuple[str, int, float, float, float, float]] = []
    for name in QUOTAS:
        values = floats(answered, name)
        values = values[~np.isnan(values)]
        if len(values):
            low, middle, high = (float(x) for x in (values.min(), np.median(values), values.max()))
            rows.append((name, len(values), len(values) / len(answered), low, middle, high))
    return pd.DataFrame(rows, columns=["quota", "seen", "share", "min", "median", "max"])


def first_refusal(attempts: pd.DataFrame) -> tuple[float, int] | None:
    """Return when the first refused attempt was sent (s) and how many were accepted in the 60 s up to it.

    None where nothing was refused.
    """
    at = ints(attempts, "at_ns")
    refused = at[(attempts["fate"] == REFUSED).to_numpy(dtype=np.bool_)]
    if len(refused) == 0:
        return None
    first = int(refused.min())
    accepted = at[(attempts["fate"] == "accepted").to_numpy(dtype=np.bool_)]
    before = int(np.sum((accepted > first - 60 * NS_PER_S) & (accepted <= first)))
    return first / NS_PER_S, before


def _label(low: float, high: float) -> str:
    if high == float("inf"):
        return f"{low:g} s or more"
    return f"{low:g} to {high:g} s"
