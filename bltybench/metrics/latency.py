"""Percentiles that say so where their sample is too small, and the tables made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.frame import floats
from bltybench.metrics.sample import Sample

BEYOND = 10
"""A percentile is shown from the sample on which at least so many values lie beyond it."""

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

COLUMNS = ["n", *PERCENTILES, "max"]


def needed(name: str) -> int:
    """Return the smallest sample a percentile is shown for: p50 20, p90 100, p95 200, p99 1,000."""
    return round(BEYOND / (1 - PERCENTILES[name]))


def describe(sample: Sample) -> dict[str, float | None]:
    """Return n, p50, p90, p95, p99 and max; a percentile of too small a sample is None."""
    n = len(sample)
    row: dict[str, float | None] = {"n": float(n)}
    for name, share in PERCENTILES.items():
        row[name] = sample.quantile(share) if n >= needed(name) else None
    row["max"] = float(sample.values[-1]) if n else None
    return row


def table(samples: dict[str, Sample]) -> pd.DataFrame:
    """Return one row a sample, by its name: ``n``, ``p50`` … ``p99``, ``max`` in the sample's unit."""
    frame = pd.DataFrame([describe(values) for values in samples.values()], columns=COLUMNS)
    frame.insert(0, "name", list(samples))
    return frame.astype({"n": "int64", **dict.fromkeys(COLUMNS[1:], "Float64")})


def samples(attempts: pd.DataFrame, calls: pd.DataFrame, gaps_ms: Sample) -> dict[str, Sample]:
    """Return the samples behind every latency metric, in ms, successes only.

    ``schedule_delay`` alone is of every attempt that was sent, whatever became of it.
    """
    return {
        "ttft": _sample(attempts, "ttft_ms"),
        "first_output": _sample(attempts, "first_output_ms"),
        "itl": gaps_ms,
        "tpot": _sample(attempts, "tpot_ms"),
        "latency": _sample(calls, "latency_ms"),
        "attempt_latency": _sample(attempts, "latency_ms"),
        "schedule_delay": _sample(attempts, "schedule_delay_ms"),
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
        for by in ("stream", "endpoint", "model", "stage", "name", "turn"):
            measured = frame.loc[frame[column].notna(), [by, column]]
            if measured[by].nunique() < 2:
                continue
            groups = {
                _label(by, key): _sample(group, column)
                for key, group in measured.groupby(by, observed=True, sort=True)
            }
            part = table(groups).rename(columns={"name": "value"})
            part.insert(0, "by", by)
            part.insert(0, "metric", metric)
            parts.append(part)
    if not parts:
        return pd.DataFrame({name: [] for name in ["metric", "by", "value", *COLUMNS]})
    return pd.concat(parts, ignore_index=True)


def ecdf(sample: Sample, points: int = 400) -> pd.DataFrame:
    """Return the empirical distribution in at most ``points`` rows: ``value``, ``share`` at or below it."""
    n = len(sample)
    if n == 0:
        return pd.DataFrame({"value": np.zeros(0), "share": np.zeros(0)})
    # Even steps in rank, and the extremes always: the tail is what people look for.
    ranks = np.unique(np.round(np.linspace(1, n, min(n, points))).astype(np.int64))
    return pd.DataFrame({"value": sample.at_ranks(ranks), "share": ranks / n})


def _sample(frame: pd.DataFrame, column: str) -> Sample:
    return Sample.of(floats(frame, column))


def _label(by: str, key: Any) -> str:
    if by == "stream":
        return "streaming" if key else "plain"
    return str(key)
