"""What became of the attempts: counts by outcome and status, and each kind of error with a sample."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bltybench.metrics.frame import NS_PER_S, floats, ints

OUTCOMES = (
    "ok",
    "rate_limited",
    "client_error",
    "server_error",
    "transport_error",
    "timeout",
    "broken_stream",
    "cancelled",
)

ERRORS = tuple(name for name in OUTCOMES if name not in {"ok", "rate_limited", "cancelled"})
"""Outcomes that count as errors: refusals have their own table, and cancelling was our own doing."""


def by_outcome(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row an outcome and status that occurred: ``outcome``, ``status``, ``count``, ``share``."""
    if attempts.empty:
        return pd.DataFrame({"outcome": [], "status": [], "count": [], "share": []})
    keys = attempts[["outcome", "status"]].astype({"outcome": "str"})
    counted = keys.groupby(["outcome", "status"], dropna=False).size().rename("count").reset_index()
    counted["share"] = counted["count"] / len(attempts)
    order = counted["outcome"].map({name: place for place, name in enumerate(OUTCOMES)})
    return counted.iloc[np.lexsort((-ints(counted, "count"), order.to_numpy()))].reset_index(drop=True)


def count_of(attempts: pd.DataFrame, *outcomes: str) -> int:
    """Return how many attempts had one of the outcomes."""
    return int(attempts["outcome"].isin(outcomes).sum())


def errors(attempts: pd.DataFrame, limit: int = 50) -> pd.DataFrame:
    """Return one row a kind of error (outcome, status, error_type, error_code), the most frequent first.

    Columns beside those: ``count``, ``first_s``, ``last_s`` (seconds from the run's start), ``sample`` (the
    first message, redacted and bounded when it was recorded). At most ``limit`` rows: a server can make up
    as many types as it likes.
    """
    keys = ["outcome", "status", "error_type", "error_code"]
    failed = attempts[attempts["outcome"].isin(ERRORS)]
    if failed.empty:
        return pd.DataFrame({name: [] for name in [*keys, "count", "first_s", "last_s", "sample"]})
    ordered = failed[[*keys, "at_ns", "error_message"]].sort_values("at_ns", kind="stable")
    ordered = ordered.astype({"outcome": "str", "error_type": "str", "error_code": "str"})
    grouped = ordered.groupby(keys, dropna=False, sort=True)
    frame = grouped.agg(
        count=("at_ns", "size"),
        first_s=("at_ns", "first"),
        last_s=("at_ns", "last"),
        sample=("error_message", "first"),
    ).reset_index()
    frame["first_s"] = floats(frame, "first_s") / NS_PER_S
    frame["last_s"] = floats(frame, "last_s") / NS_PER_S
    return frame.sort_values("count", ascending=False, kind="stable", ignore_index=True).head(limit)
