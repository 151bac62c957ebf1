"""Percentiles that say so where their sample is too small, and the tables made of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from bltybench.metrics.bootstrap import interval, quantile_draws
from bltybench.metrics.frame import floats
from bltybench.metrics.sample import Sample

BEYOND = 10
"""A percentile is shown from the sample on which at least so many values lie beyond it."""

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

COLUMNS = ["n", *(name + end for name in PERCENTILES for end in ("", "_low", "_high")), "max"]

SEED = 1


def needed(name: str) -> int:
    """Return the smallest sample a percentile is shown for: p50 20, p90 100, p95 200, p99 1,000."""
    return round(BEYOND / (1 - PERCENTILES[name]))


def shown(sample: Sample, name: str) -> float | None:
    """Return a percentile by its name, None where the sample is too small for it."""
    return sample.quantile(PERCENTILES[name]) if len(sample) >= needed(name) else None


def describe(sample: Sample, independent: int | None = None) -> dict[str, float | None]:
    """Return n, p50, p90, p95, p99 and max; a percentile of too small a sample is None.

    Beside each percentile stands its 95% bootstrap interval (``p50_low``, ``p50_high``). ``independent``: see
    ``bootstrap.quantile_draws``.
    """
    n = len(sample)
    row: dict[str, float | None] = {"n": float(n)}
    for name, share in PERCENTILES.items():
        row[name] = shown(sample, name)
        known = row[name] is not None
        draws = quantile_draws(sample, share, np.random.default_rng(SEED), independent) if known else None
        row[f"{name}_low"], row[f"{name}_high"] = (None, None) if draws is None else interval(draws)
    row["max"] = float(sample.values[-1]) if n else None
    return row


def independent(samples: dict[str, Sample]) -> dict[str, int]:
    """Return how many values count as independent, by metric, where that is not all of them.

    The gaps of a stream are like one another, so a stream counts as one of them: on the safe side.
    """
    return {"itl": max(len(samples["ttft"]), 1)}


def table(samples: dict[str, Sample], independent: Mapping[str, int] = MappingProxyType({})) -> pd.DataFrame:
    """Return one row a sample, by its name: the columns of ``describe``, in the sample's unit."""
    rows = [describe(sample, independent.get(name)) for name, sample in samples.items()]
    frame = pd.DataFrame(rows, columns=COLUMNS)
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

    Columns: ``metric`` (latency, attempt_latency, ttft, tpot), ``by``, ``value``, those of ``describe`` (ms).
    """
    parts: list[pd.DataFrame] = []
    for metric, frame, column in (
        ("latency", calls, "latency_ms"),
        ("attempt_latency", attempts, "latency_ms"),
        ("ttft", attempts, "ttft_ms"),
        ("tpot", attempts, "tpot_ms"),
    ):
        for by in ("stream", "endpoint", "model", "stage"):
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
