"""Attempts and calls as DataFrames, with the derived columns (TTFT, TPOT, latency, delay)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from bltybench.limits.observations.classify import classify_response
from bltybench.runs.attempt import Outcome
from bltybench.runs.error_words import essence

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

ACCEPTED = "accepted"
REFUSED = "refused"
OTHER = "other"
OUTCOMES = tuple(outcome.value for outcome in Outcome)
FATES = (ACCEPTED, REFUSED, OTHER)
"""What the server did with an attempt: accepted it (2xx), refused it for a limit, or neither."""

UNUSED_COLUMNS = frozenset(
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
"""Columns of the record that no table needs in memory. ``gaps.tally_gaps`` reads gaps in batches."""

PLAIN_STRINGS = frozenset({"call_id", "request_id", "response_id", "error_message"})
"""String columns with few repeated values: not worth a category."""

CALL_KINDS = ("target", "key", "endpoint", "stream", "model", "stage", "name", "turn")
"""Columns that a call takes from its first attempt."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Columns: TypeAlias = pa.Table | Iterable[tuple[str, pa.ChunkedArray]]
"""Arrow columns by name: a table, or one column at a time."""


def floats(frame: pd.DataFrame, column: str) -> Floats:
    """Return a numeric column as float64, null as NaN. Exact for times: 2**53 ns are 104 days."""
    return frame[column].to_numpy(dtype=np.float64, na_value=np.nan)


def ints(frame: pd.DataFrame, column: str) -> Ints:
    """Return a column without nulls as int64."""
    return frame[column].to_numpy(dtype=np.int64)


def bools(frame: pd.DataFrame, column: str) -> Bools:
    """Return a column without nulls as bool."""
    return frame[column].to_numpy(dtype=np.bool_)


def has_fate(attempts: pd.DataFrame, fate: str) -> Bools:
    """Return which attempts have a fate. Codes are compared much faster than names."""
    return np.asarray(attempts["fate"].cat.codes == FATES.index(fate), dtype=np.bool_)


def to_frame(columns: Columns, exclude: str | None = None) -> pd.DataFrame:
    """Convert to nullable dtypes (Int64, Float64, boolean), and repeated strings to categories.

    Columns that come one at a time are never all in memory as Arrow.
    """
    if isinstance(columns, pa.Table):
        columns = zip(columns.column_names, columns.columns, strict=True)
    converted: dict[str, pd.Series[Any]] = {}
    for name, column in columns:
        if name == exclude:
            continue
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            converted[name] = (column if name in PLAIN_STRINGS else column.dictionary_encode()).to_pandas()
        else:
            converted[name] = _nullable_column(column)
    return pd.DataFrame(converted, copy=False)


def _nullable_column(column: pa.ChunkedArray) -> pd.Series[Any]:
    """Return numbers or booleans with a nullable dtype. pandas' own conversion copies each chunk twice."""
    boolean, floating = pa.types.is_boolean(column.type), pa.types.is_floating(column.type)
    values: Any = np.empty(len(column), np.bool_ if boolean else np.float64 if floating else np.int64)
    mask, place = np.zeros(len(column), np.bool_), 0
    for chunk in column.chunks:
        part = slice(place, place := place + len(chunk))
        if chunk.null_count:
            mask[part] = chunk.is_null().to_numpy(zero_copy_only=False)
            chunk = chunk.fill_null(False if boolean else 0)  # noqa: PLW2901 - the mask has its nulls
        values[part] = chunk.to_numpy(zero_copy_only=False)
    numbers = pd.arrays.FloatingArray if floating else pd.arrays.IntegerArray
    return pd.Series((pd.arrays.BooleanArray if boolean else numbers)(values, mask), copy=False)


def attempts_frame(columns: Columns) -> pd.DataFrame:
    """Return one row per attempt: the columns given except ``gaps_us``, and the derived ones.

    Derived: ``call`` (a number per ``call_id``), ``fate`` (accepted, refused, or other: the decision of
    ``limits.observations.classify``), ``at_ns`` (sent_ns, or due_ns if never sent), ``ok``,
    ``schedule_delay_ms`` (sent − due), and, null unless ``ok``: ``latency_ms`` (end − sent), ``ttft_ms``
    (first token − sent), ``first_output_ms``, ``tpot_ms`` ((last − first token) / (completion tokens − 1),
    null if all tokens arrived in one read).
    """
    frame = to_frame(columns, exclude="gaps_us")
    frame["call"] = pd.factorize(frame["call_id"])[0]
    frame["ok"] = ok = (frame["outcome"] == Outcome.OK.value).to_numpy(dtype=np.bool_)
    frame["fate"] = pd.Categorical.from_codes(_fates(frame, ok), list(FATES))  # type: ignore[call-overload]  # stubs want a list
    sent, due = floats(frame, "sent_ns"), floats(frame, "due_ns")
    frame["at_ns"] = np.where(np.isnan(sent), due, sent).astype(np.int64)
    frame["schedule_delay_ms"] = _nullable((sent - due) / NS_PER_MS)
    for name, until in (
        ("latency_ms", "end_ns"),
        ("ttft_ms", "first_token_ns"),
        ("first_output_ms", "first_output_ns"),
    ):
        frame[name] = _nullable(np.where(ok, floats(frame, until) - sent, np.nan) / NS_PER_MS)
    tokens = floats(frame, "completion_tokens")
    decoding = floats(frame, "last_token_ns") - floats(frame, "first_token_ns")
    several = ok & (tokens > 1) & (decoding > 0)
    steps = np.where(several, tokens - 1, 1.0)
    frame["tpot_ms"] = _nullable(np.where(several, decoding / steps, np.nan) / NS_PER_MS)
    return frame


class _DistinctResponse(NamedTuple):
    outcome: Outcome
    status: int | None
    error_type: str | None
    error_code: str | None
    error_message: str | None


def _fates(frame: pd.DataFrame, ok: Bools) -> npt.NDArray[np.int8]:
    """Return the index in FATES of each attempt. Each distinct response is classified once."""
    fates = np.zeros(len(frame), dtype=np.int8)
    names = ["outcome", "status", "error_type", "error_code"]
    failed = frame.loc[~ok, names]
    # Of a message, only its essence matters for the fate. Most other text differs in every message.
    codes, messages = pd.factorize(frame.loc[~ok, "error_message"])
    texts = np.array([*map(essence, messages), None], dtype=object)
    keys = failed.assign(essence=texts[codes])
    groups = keys.groupby([*names, "essence"], dropna=False, observed=True, sort=False).ngroup()
    _, first, group = np.unique(groups.to_numpy(), return_index=True, return_inverse=True)
    distinct = keys.iloc[first].astype("object")
    responses = [
        _DistinctResponse(Outcome(row[0]), *row[1:])
        for row in distinct.where(distinct.notna(), None).itertuples(index=False, name=None)
    ]
    by_decision = {True: ACCEPTED, False: REFUSED, None: OTHER}
    by_group = [FATES.index(by_decision[classify_response(response).accepted]) for response in responses]
    fates[~ok] = np.array(by_group, dtype=np.int8)[group]
    return fates


def estimated_tokens(attempts: pd.DataFrame) -> Bools:
    """Return which attempts have estimated token counts, because the server did not report them."""
    return np.asarray(attempts["tokens_source"].isin(["tokenizer", "events"]), dtype=np.bool_)


def in_one_read(attempts: pd.DataFrame) -> Bools:
    """Return which attempts are streams whose tokens all arrived at once, so that no gap was measured."""
    return np.asarray(floats(attempts, "first_token_ns") == floats(attempts, "last_token_ns"), dtype=np.bool_)


def first_token_coalesced(attempts: pd.DataFrame) -> Bools:
    """Return which attempts have a first token that shared its read, so that their TTFT is an upper bound."""
    return attempts["first_token_coalesced"].to_numpy(dtype=np.bool_, na_value=False)


def calls_frame(attempts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per call (``call_id``), in order of first due.

    Columns: ``call_id``, ``call``, ``first_due_ns``, ``outcome`` (of its last attempt; cancelled if the run
    ended while the call waited to retry), ``ok``, ``attempts``, ``waited_s`` (sum of the policy's waits that
    ended with another attempt), ``paced_s`` (time for which pacing held it), ``latency_ms`` (first due to the
    end of the attempt that succeeded, null if none did), and CALL_KINDS.
    """
    own = ["call_id", "call", "first_due_ns", "outcome", "ok", "attempts"]
    own += ["waited_s", "paced_s", "latency_ms"]
    if attempts.empty:
        return pd.DataFrame({name: [] for name in [*own, *CALL_KINDS]})
    codes = ints(attempts, "call")
    order = np.lexsort((ints(attempts, "attempt"), codes))
    sorted_codes = codes[order]
    first = np.flatnonzero(np.r_[True, sorted_codes[1:] != sorted_codes[:-1]])
    last = np.r_[first[1:], len(order)] - 1
    first_rows, last_rows = order[first], order[last]
    due = floats(attempts, "due_ns")[first_rows]
    timed = ~np.isnan(floats(attempts, "sent_ns")[last_rows])
    ok = bools(attempts, "ok")[last_rows]
    end = floats(attempts, "end_ns")[last_rows]
    waits = floats(attempts, "waited_s")
    outcome = pd.Categorical(attempts["outcome"].iloc[last_rows], categories=OUTCOMES)
    outcome[~np.isnan(waits[last_rows])] = Outcome.CANCELLED.value
    waited = np.nan_to_num(waits, nan=0.0)[order]
    waited[last] = 0.0
    paced = np.nan_to_num(floats(attempts, "paced_ns"))[order]
    calls = pd.DataFrame(
        {
            "call_id": attempts["call_id"].iloc[first_rows].array,
            "call": codes[first_rows],
            "first_due_ns": due.astype(np.int64),
            "outcome": outcome,
            "ok": ok,
            "attempts": (last - first + 1).astype(np.int64),
            "waited_s": np.add.reduceat(waited, first),
            "paced_s": np.add.reduceat(paced, first) / NS_PER_S,
            "latency_ms": _nullable(np.where(ok & timed, end - due, np.nan) / NS_PER_MS),
        }
    )
    for name in CALL_KINDS:
        calls[name] = attempts[name].iloc[first_rows].array
    return calls.sort_values("first_due_ns", kind="stable", ignore_index=True)


def cut_off(calls: pd.DataFrame) -> Bools:
    """Return which calls the end of the run cut off: they neither succeeded nor failed."""
    return np.asarray(calls["outcome"] == Outcome.CANCELLED.value, dtype=np.bool_)


def run_end_ns(attempts: pd.DataFrame, ended_ns: int | None) -> int:
    """Return the end of the observed time: the end of the load or of the last attempt, the later one."""
    last = int(ints(attempts, "end_ns").max()) if len(attempts) else 0
    return max(last, ended_ns or 0)


def _nullable(values: Floats) -> pd.Series[Any]:
    """Return Float64 with null for NaN."""
    return pd.Series(pd.array(values, dtype="Float64"), copy=False)
