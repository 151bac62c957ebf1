"""Percentiles that say so where their sample is too small, and the tables made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import Floats, floats

BEYOND = 10
"""A percentile is shown from the sample on which at least so many values lie beyond it."""

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

COLUMNS = ["n", *PERCENTILES, "max"]


def needed(name: str) -> int:
    """Return the smallest sample a percentile is shown for: p50 20, p90 100, p95 200, p99 1,000."""
    return round(BEYOND / (1 - PERCENTILES[name]))


def quantile(ascending: Floats, share: float) -> float:
    """Return the nearest-rank quantile: the smallest value with at least ``share`` of all at or below it."""
    # The product is rounded first: 0.95 × 200 must be rank 190, whatever floating point makes of it.
    rank = int(np.ceil(round(share * len(ascending), 9)))
    return float(ascending[max(rank, 1) - 1])


def describe(values: Floats) -> dict[str, float | None]:
    """Return n, p50, p90, p95, p99 and max; a percentile of too small a sample is None."""
    ascending = _ascending(values)
    n = len(ascending)
    row: dict[str, float | None] = {"n": float(n)}
    for name, share in PERCENTILES.items():
        row[name] = quantile(ascending, share) if n >= needed(name) else None
    row["max"] = float(ascending[-1]) if n else None
    return row


def table(samples: dict[str, Floats]) -> pd.DataFrame:
    """Return one row a sample, by its name: ``n``, ``p50`` … ``p99``, ``max`` in the sample's unit."""
    frame = pd.DataFrame([describe(values) for values in samples.values()], columns=COLUMNS)
    frame.insert(0, "name", list(samples))
    return frame.astype({"n": "int64", **dict.fromkeys(COLUMNS[1:], "Float64")})


def samples(attempts: pd.DataFrame, calls: pd.DataFrame, gaps_ms: Floats) -> dict[str, Floats]:
    """Return the samples behind every latency metric, in ms, ascending, successes only.

    ``schedule_delay`` alone is of every attempt that was sent, whatever became of it.
    """
    return {
        "ttft": _values(attempts, "ttft_ms"),
        "first_output": _values(attempts, "first_output_ms"),
        "itl": np.sort(gaps_ms),
        "tpot": _values(attempts, "tpot_ms"),
        "latency": _values(calls, "latency_ms"),
        "attempt_latency": _values(attempts, "latency_ms"),
        "schedule_delay": _values(attempts, "schedule_delay_ms"),
    }


def by_kind(attempts: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """Return latency by endpoint, model, kind of answer and stage, where there are two or more of them.

    Columns: ``metric`` (ttft, latency, attempt_latency), ``by``, ``value``, ``n``, ``p50`` … ``max`` (ms).
    """
    parts: list[pd.DataFrame] = []
    for metric, frame, column in (
        ("latency", calls, "latency_ms"),
        ("attempt_latency", attempts, "latency_ms"),
        ("ttft", attempts, "ttft_ms"),
    ):
        for by in ("stream", "endpoint", "model", "stage"):
            measured = frame.loc[frame[column].notna(), [by, column]]
            if measured[by].nunique() < 2:
                continue
            groups = {
                _label(by, key): floats(group, column)
                for key, group in measured.groupby(by, observed=True, sort=True)
            }
            part = table(groups).rename(columns={"name": "value"})
            part.insert(0, "by", by)
            part.insert(0, "metric", metric)
            parts.append(part)
    if not parts:
        return pd.DataFrame({name: [] for name in ["metric", "by", "value", *COLUMNS]})
    return pd.concat(parts, ignore_index=True)


def ecdf(values: Floats, points: int = 400) -> pd.DataFrame:
    """Return the empirical distribution in at most ``points`` rows: ``value``, ``share`` at or below it."""
    ascending = _ascending(values)
    n = len(ascending)
    if n == 0:
        return pd.DataFrame({"value": np.zeros(0), "share": np.zeros(0)})
    # Even steps in rank, and the extremes always: the tail is what people look for.
    ranks = np.unique(np.round(np.linspace(1, n, min(n, points))).astype(np.int64))
    return pd.DataFrame({"value": ascending[ranks - 1], "share": ranks / n})


def _values(frame: pd.DataFrame, column: str) -> Floats:
    return _ascending(floats(frame, column))


def _ascending(values: Floats) -> Floats:
    """Return the values that are there in order; free of charge where they are in order already."""
    there = values[~np.isnan(values)]
    return there if bool(np.all(there[1:] >= there[:-1])) else np.sort(there)


def _label(by: str, key: Any) -> str:
    if by == "stream":
        return "streaming" if key else "plain"
    return str(key)
