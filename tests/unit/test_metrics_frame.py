"""Frames from Arrow tables: derived columns and calls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support_runs import S, attempt, table

from bltybench.metrics.frame import attempts_frame, calls_frame, in_one_read, run_end_ns, to_frame
from bltybench.runs.attempt import Attempt, Outcome

MS = 1_000_000


def stream(**fields: object) -> Attempt:
    times = {
        "sent_ns": 1000 * MS,
        "due_ns": 990 * MS,
        "first_token_ns": 1200 * MS,
        "last_token_ns": 1500 * MS,
        "end_ns": 1501 * MS,
        "gaps_us": [100_000, 200_000],
        "completion_tokens": 4,
        "stream": True,
    }
    return attempt(**{**times, **fields})


def test_latencies_of_a_stream_start_when_it_is_sent() -> None:
    row = attempts_frame(table(stream())).iloc[0]
    assert row["ttft_ms"] == 200.0
    assert row["latency_ms"] == 501.0
    assert row["tpot_ms"] == 100.0
    assert row["schedule_delay_ms"] == 10.0
    assert row["fate"] == "accepted"


def test_broken_stream_is_accepted_but_has_no_latency() -> None:
    frame = attempts_frame(table(stream(outcome=Outcome.BROKEN_STREAM)))
    assert frame[["latency_ms", "ttft_ms", "tpot_ms"]].isna().all(axis=None)
    assert frame.loc[0, "fate"] == "accepted"
    assert not frame.loc[0, "ok"]


@pytest.mark.parametrize(
    ("outcome", "status", "fate"),
    [
        (Outcome.RATE_LIMITED, 429, "refused"),
        (Outcome.RATE_LIMITED, 503, "refused"),
        (Outcome.SERVER_ERROR, 503, "other"),
        (Outcome.RATE_LIMITED, 200, "refused"),
        (Outcome.NO_ANSWER, 200, "accepted"),
        (Outcome.CANCELLED, None, "other"),
        (Outcome.CANCELLED, 200, "accepted"),
    ],
)
def test_fate_follows_from_outcome_and_status(outcome: Outcome, status: int | None, fate: str) -> None:
    assert attempts_frame(table(attempt(outcome=outcome, status=status))).loc[0, "fate"] == fate


def test_single_token_has_no_tpot() -> None:
    frame = attempts_frame(table(stream(completion_tokens=1, last_token_ns=1200 * MS, gaps_us=[])))
    assert frame["tpot_ms"].isna().all()


def test_tokens_that_arrive_in_one_read_have_no_tpot() -> None:
    frame = attempts_frame(table(stream(last_token_ns=1200 * MS, gaps_us=[0, 0, 0]), stream(call_id="b")))
    assert frame["tpot_ms"].isna().tolist() == [True, False]
    assert in_one_read(frame).tolist() == [True, False]


@pytest.mark.parametrize(
    ("message", "code", "fate"),
    [
        ("This model is overloaded", None, "other"),
        ("Insufficient balance, please recharge", None, "other"),
        ("boom", None, "accepted"),
        ("boom", "rate_limit_exceeded", "refused"),
        (None, None, "accepted"),
    ],
)
def test_fate_of_an_error_in_a_200_follows_from_its_words(
    message: str | None, code: str | None, fate: str
) -> None:
    failed = stream(outcome=Outcome.BROKEN_STREAM, error_code=code, error_message=message)
    assert attempts_frame(table(failed)).loc[0, "fate"] == fate


def test_unsent_attempt_counts_when_it_was_due() -> None:
    frame = attempts_frame(
        table(attempt(due_ns=7 * S, sent_ns=None, end_ns=8 * S, outcome=Outcome.TRANSPORT_ERROR, status=None))
    )
    assert frame.loc[0, "at_ns"] == 7 * S
    assert frame["schedule_delay_ms"].isna().all()


def test_call_latency_spans_all_attempts_and_waits() -> None:
    refused = attempt(
        call_id="a",
        due_ns=1 * S,
        sent_ns=1 * S,
        end_ns=2 * S,
        outcome=Outcome.RATE_LIMITED,
        status=429,
        waited_s=3.0,
    )
    again = attempt(call_id="a", attempt=1, due_ns=5 * S, sent_ns=5 * S, end_ns=6 * S)
    lost = attempt(call_id="b", due_ns=0, outcome=Outcome.TIMEOUT, status=None)
    # Out of order on purpose: stored rows are in the order in which attempts ended.
    calls = calls_frame(attempts_frame(table(again, lost, refused))).set_index("call_id")
    assert list(calls.index) == ["b", "a"]
    assert calls.loc["a", "latency_ms"] == 5000.0
    assert calls.loc["a", "waited_s"] == 3.0
    assert calls.loc["a", "attempts"] == 2
    assert calls["latency_ms"].isna().tolist() == [True, False]
    assert calls["ok"].tolist() == [False, True]


def test_empty_table_gives_empty_frames() -> None:
    frame = attempts_frame(table())
    assert len(frame) == len(calls_frame(frame)) == 0
    assert run_end_ns(frame, None) == 0
    assert run_end_ns(frame, 5) == 5


def test_times_after_90_days_are_exact() -> None:
    at = 90 * 86_400 * S + 1
    frame = attempts_frame(table(attempt(sent_ns=at, due_ns=at, end_ns=at + 1)))
    assert np.array_equal(frame["at_ns"].to_numpy(), np.array([at]))


def test_columns_in_several_chunks_keep_their_values_and_nulls() -> None:
    large = 2**62 + 1  # no float64
    columns = {
        "whole": pa.chunked_array([[large, None], [], [3]], pa.int64()),
        "short": pa.chunked_array([[1], [None, -3]], pa.int32()),
        "real": pa.chunked_array([[0.5, None, 2.5]], pa.float64()),
        "flag": pa.chunked_array([[True, None], [False]], pa.bool_()),
        "absent": pa.chunked_array([pa.nulls(3, pa.float64())]),
    }
    expected = {
        "whole": pd.array([large, None, 3], "Int64"),
        "short": pd.array([1, None, -3], "Int64"),
        "real": pd.array([0.5, None, 2.5], "Float64"),
        "flag": pd.array([True, None, False], "boolean"),
        "absent": pd.array([None, None, None], "Float64"),
    }
    pd.testing.assert_frame_equal(to_frame(columns.items()), pd.DataFrame(expected))
