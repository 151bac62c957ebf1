"""Arrow tables as DataFrames: attempts with the columns that everything derives from, calls, gaps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

ACCEPTED = "accepted"
REFUSED = "refused"
OTHER = "other"
FATES = (ACCEPTED, REFUSED, OTHER)
"""What the server did with an attempt: let it in (2xx), refused it for its rate, anything else."""

LEFT_OUT = frozenset(
    {
        "gaps_us",
        "request_id",
        "response_id",
        "headers_ns",
        "cached_tokens",
        "reasoning_tokens",
        "bytes_sent",
        "bytes_received",
        "header_dialect",
    }
)
"""Columns of the record that no table needs in memory. Gaps are read in batches (``gaps.tally_gaps``)."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Columns: TypeAlias = pa.Table | Iterable[tuple[str, pa.ChunkedArray]]
"""Arrow columns by name: all at once, or one after another."""

_DTYPES: dict[pa.DataType, Any] = {
    pa.int8(): pd.Int64Dtype(),
    pa.int16(): pd.Int64Dtype(),
    pa.int32(): pd.Int64Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.float32(): pd.Float64Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def floats(frame: pd.DataFrame, column: str) -> Floats:
    """Return a numeric column as float64, null as NaN. Exact for times: 2**53 ns are 104 days."""
    return frame[column].to_numpy(dtype=np.float64, na_value=np.nan)


def ints(frame: pd.DataFrame, column: str) -> Ints:
    """Return a column without nulls as int64."""
    return frame[column].to_numpy(dtype=np.int64)


def to_frame(columns: Columns) -> pd.DataFrame:
    """Convert to nullable dtypes: Int64, Float64, boolean; repeated strings as categories.

    Of columns that come one by one none is held as Arrow beside the frame.
    """
    given = (
        zip(columns.column_names, columns.columns, strict=True) if isinstance(columns, pa.Table) else columns
    )
    made: dict[str, pd.Series[Any]] = {}
    for name, column in given:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            plain = name in {"call_id", "request_id", "response_id", "error_message"}
            made[name] = (column if plain else column.dictionary_encode()).to_pandas()
        else:
            made[name] = column.to_pandas(types_mapper=_DTYPES.get)
    return pd.DataFrame(made, copy=False)


def attempts_frame(columns: Columns) -> pd.DataFrame:
    """Return one row an attempt: the columns given but ``gaps_us``, and the derived ones.

    Derived: ``call`` (a number for each ``call_id``), ``fate`` (accepted: a 2xx status; refused:
    rate_limited; other), ``at_ns`` (sent_ns; due_ns where it was never sent), ``ok``, ``schedule_delay_ms``
    (sent − due), and, where the outcome is ok and null elsewhere, ``latency_ms`` (end − sent), ``ttft_ms``
    (first token − sent), ``first_output_ms``, ``tpot_ms`` ((last − first token) / (completion tokens − 1)).
    """
    given = (
        zip(columns.column_names, columns.columns, strict=True) if isinstance(columns, pa.Table) else columns
    )
    frame = to_frame((name, column) for name, column in given if name != "gaps_us")
    frame["call"] = pd.factorize(frame["call_id"])[0]
    outcome = frame["outcome"].astype("object").to_numpy()
    status = floats(frame, "status")
    sent, end = floats(frame, "sent_ns"), floats(frame, "end_ns")
    ok = np.asarray(outcome == "ok", dtype=np.bool_)
    fate = np.where(outcome == "rate_limited", 1, np.where((status >= 200) & (status < 300), 0, 2))
    frame["fate"] = pd.Categorical.from_codes(fate, list(FATES))  # type: ignore[call-overload]  # stubs want a list
    frame["ok"] = ok
    due = floats(frame, "due_ns")
    frame["at_ns"] = np.where(np.isnan(sent), due, sent).astype(np.int64)
    frame["schedule_delay_ms"] = _nullable((sent - due) / NS_PER_MS)
    first, last = floats(frame, "first_token_ns"), floats(frame, "last_token_ns")
    tokens = floats(frame, "completion_tokens")
    frame["latency_ms"] = _nullable(np.where(ok, end - sent, np.nan) / NS_PER_MS)
    frame["ttft_ms"] = _nullable(np.where(ok, first - sent, np.nan) / NS_PER_MS)
    output = floats(frame, "first_output_ns")
    frame["first_output_ms"] = _nullable(np.where(ok, output - sent, np.nan) / NS_PER_MS)
    several = ok & (tokens > 1)
    steps = np.where(several, tokens - 1, 1.0)
    frame["tpot_ms"] = _nullable(np.where(several, (last - first) / steps, np.nan) / NS_PER_MS)
    return frame


def calls_frame(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row a call (``call_id``), in order of first due.

    Columns: ``call_id``, ``call``, ``first_due_ns``, ``outcome`` (of its last attempt), ``ok``, ``attempts``,
    ``waited_s`` (sum of the policy's waits), ``latency_ms`` (first due → end of the attempt that
    succeeded; null where none did), and ``endpoint``, ``stream``, ``model``, ``stage``, ``name``,
    ``turn`` of its first attempt.
    """
    shared = ["endpoint", "stream", "model", "stage", "name", "turn"]
    own = ["call_id", "call", "first_due_ns", "outcome", "ok", "attempts", "waited_s", "latency_ms"]
    if attempts.empty:
        return pd.DataFrame({name: [] for name in [*own, *shared]})
    codes = ints(attempts, "call")
    order = np.lexsort((ints(attempts, "attempt"), codes))
    sorted_codes = codes[order]
    first = np.flatnonzero(np.r_[True, sorted_codes[1:] != sorted_codes[:-1]])
    last = np.r_[first[1:], len(order)] - 1
    first_rows, last_rows = order[first], order[last]
    due = floats(attempts, "due_ns")[first_rows]
    ok = attempts["ok"].to_numpy(dtype=np.bool_)[last_rows]
    end = floats(attempts, "end_ns")[last_rows]
    waited = np.nan_to_num(floats(attempts, "waited_s"), nan=0.0)[order]
    calls = pd.DataFrame(
        {
            "call_id": attempts["call_id"].iloc[first_rows].array,
            "call": codes[first_rows],
            "first_due_ns": due.astype(np.int64),
            "outcome": attempts["outcome"].iloc[last_rows].array,
            "ok": ok,
            "attempts": (last - first + 1).astype(np.int64),
            "waited_s": np.add.reduceat(waited, first),
            "latency_ms": _nullable(np.where(ok, end - due, np.nan) / NS_PER_MS),
        }
    )
    for name in shared:
        calls[name] = attempts[name].iloc[first_rows].array
    return calls.sort_values("first_due_ns", kind="stable", ignore_index=True)


def run_end_ns(attempts: pd.DataFrame, ended_ns: int | None) -> int:
    """Return the end of what was observed: the later of the load's end and the last attempt's."""
    last = int(ints(attempts, "end_ns").max()) if len(attempts) else 0
    return max(last, ended_ns or 0)


def _nullable(values: Floats) -> pd.Series[Any]:
    """Return Float64 with null for NaN."""
    return pd.Series(pd.array(values, dtype="Float64"))
