"""Outcomes, errors, and refusals, compared with results computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
from support_runs import S, attempt, frame

from bltybench.metrics import outcomes, quota
from bltybench.runs.attempt import Attempt, Outcome


def refused(**fields: Any) -> Attempt:
    at = fields.get("sent_ns", 0)
    plain = {"end_ns": at + S // 100, "outcome": Outcome.RATE_LIMITED, "status": 429}
    return attempt(**{**plain, **fields})


def test_outcomes_are_in_fixed_order_with_shares() -> None:
    run = frame(
        attempt(call_id="a"),
        attempt(call_id="b", outcome=Outcome.TIMEOUT, status=None),
        refused(call_id="c"),
        refused(call_id="d"),
    )
    found = outcomes.by_outcome(run)
    assert found["outcome"].tolist() == ["ok", "rate_limited", "timeout"]
    assert found["count"].tolist() == [1, 2, 1]
    assert found["share"].tolist() == [0.25, 0.5, 0.25]
    assert found["status"].isna().tolist() == [False, False, True]


def test_refused_and_canceled_attempts_are_no_errors() -> None:
    run = frame(refused(), attempt(call_id="b", outcome=Outcome.CANCELLED, status=None), attempt(call_id="c"))
    assert outcomes.errors(run).empty
    assert outcomes.count_of(run, *outcomes.ERRORS) == 0


def test_errors_are_grouped_by_type_with_times_and_first_message() -> None:
    def broken(at: int, kind: str | None, message: str | None) -> Attempt:
        return attempt(
            call_id=f"e{at}",
            sent_ns=at * S,
            outcome=Outcome.SERVER_ERROR,
            status=500,
            error_type=kind,
            error_message=message,
        )

    run = frame(broken(9, "x", "later"), broken(2, "x", "first"), broken(5, None, None))
    found = outcomes.errors(run)
    assert found["count"].tolist() == [2, 1]
    assert found.loc[[0], ["first_s", "last_s", "sample"]].to_numpy().tolist()[0] == [2.0, 9.0, "first"]
    assert found["error_type"].isna().tolist() == [False, True]


def test_error_table_is_bounded() -> None:
    run = frame(
        *(
            attempt(call_id=f"{i}", outcome=Outcome.CLIENT_ERROR, status=400, error_code=f"code-{i}")
            for i in range(60)
        )
    )
    assert len(outcomes.errors(run)) == 50


def test_refusal_has_the_next_attempt_of_its_call() -> None:
    run = frame(
        refused(call_id="a", retry_after_s=2.0),
        attempt(call_id="a", attempt=1, sent_ns=3 * S),
        refused(call_id="b", sent_ns=S, retry_after_s=5.0),
        refused(call_id="b", attempt=1, sent_ns=2 * S),
    )
    found = quota.refusals(run)
    assert found["at_s"].tolist() == [0.0, 1.0, 2.0]
    assert found["next_outcome"].tolist()[:2] == ["ok", "rate_limited"]
    assert found["next_outcome"].isna().tolist() == [False, False, True]
    assert found["waited_real_s"].tolist()[:2] == [pytest.approx(2.99), pytest.approx(0.99)]
    assert found["obeyed"].tolist()[:2] == [True, False]
    assert found["latency_ms"].tolist() == [10.0, 10.0, 10.0]


def test_retry_after_is_judged_by_retries_that_waited_long_enough() -> None:
    run = frame(
        refused(call_id="a", retry_after_s=2.0),
        attempt(call_id="a", attempt=1, sent_ns=3 * S),
        refused(call_id="b", retry_after_s=2.5),
        refused(call_id="b", attempt=1, sent_ns=1 * S),
        refused(call_id="c"),
    )
    found = quota.retry_after(quota.refusals(run)).set_index("retry_after")
    assert found.index.tolist() == ["2 to 5 s", "not given"]
    assert found.loc[["2 to 5 s"], ["refusals", "retried", "waited_enough", "then_ok"]].to_numpy().tolist()[
        0
    ] == [2, 2, 1, 1]
    assert found.loc[["not given"], ["refusals", "retried", "then_ok"]].to_numpy().tolist()[0] == [2, 0, 0]


def test_header_share_is_of_responses_with_a_status() -> None:
    run = frame(
        attempt(call_id="a", limit_requests=60, remaining_requests=10),
        attempt(call_id="b", limit_requests=60, remaining_requests=0),
        attempt(call_id="c"),
        attempt(call_id="d", outcome=Outcome.TRANSPORT_ERROR, status=None),
    )
    found = quota.headers(run).set_index("quota")
    assert found.index.tolist() == ["limit_requests", "remaining_requests"]
    assert found.loc[["remaining_requests"], ["seen", "min", "median", "max"]].to_numpy().tolist()[0] == [
        2,
        0,
        5,
        10,
    ]
    assert found.loc["limit_requests", "share"] == pytest.approx(2 / 3)


def test_first_refusal_has_the_acceptances_of_the_window_before() -> None:
    run = frame(
        attempt(call_id="old", sent_ns=0),
        attempt(call_id="edge", sent_ns=10 * S),
        attempt(call_id="in", sent_ns=11 * S),
        refused(call_id="r", sent_ns=70 * S),
    )
    assert quota.first_refusal(run) == (70.0, 1)
    assert quota.first_refusal(frame(attempt())) is None


def test_empty_run_gives_empty_tables() -> None:
    run = frame()
    assert outcomes.by_outcome(run).empty
    assert outcomes.errors(run).empty
    assert quota.refusals(run).empty
    assert quota.retry_after(quota.refusals(run)).empty
    assert quota.headers(run).empty


def test_finish_reasons_and_notes_are_counted_by_frequency() -> None:
    run = frame(
        attempt(call_id="a", finish_reason="stop", notes="missing_done"),
        attempt(call_id="b", finish_reason="stop", notes="missing_done,no_content_type"),
        attempt(call_id="c", finish_reason="error", outcome=Outcome.BROKEN_STREAM),
        refused(call_id="d"),
    )
    reasons = outcomes.finish_reasons(run)
    assert reasons.columns.tolist() == ["finish_reason", "outcome", "count", "share"]
    assert reasons.to_numpy().tolist() == [["stop", "ok", 2, 2 / 3], ["error", "broken_stream", 1, 1 / 3]]
    assert outcomes.notes(run).to_numpy().tolist() == [
        ["missing_done", 2, 0.5],
        ["no_content_type", 1, 0.25],
    ]


def test_runs_without_finish_reasons_or_notes_have_empty_tables() -> None:
    run = frame(refused())
    assert outcomes.finish_reasons(run).empty
    assert outcomes.notes(run).empty


def test_checks_of_answers_are_counted_per_call_and_in_all() -> None:
    run = frame(
        attempt(call_id="a", name="tools", tool_calls=2, json_valid=True, schema_valid=False),
        attempt(call_id="b", name="tools", tool_calls=0),
        attempt(call_id="c", name="json", json_valid=True, schema_valid=True),
        attempt(call_id="d", name="json", json_valid=False, schema_valid=False),
        attempt(call_id="e", name="text"),
    )
    found = outcomes.answer_checks(run).astype("object")
    assert found.where(found.notna(), None).to_numpy().tolist() == [
        ["tool_calls", None, 2, 1, 0.5],
        ["json_valid", None, 3, 2, 2 / 3],
        ["json_valid", "json", 2, 1, 0.5],
        ["json_valid", "tools", 1, 1, 1.0],
        ["schema_valid", None, 3, 1, 1 / 3],
        ["schema_valid", "json", 2, 1, 0.5],
        ["schema_valid", "tools", 1, 0, 0.0],
    ]
    assert outcomes.answer_checks(frame(attempt(call_id="e", name="text"))).empty


def test_refusals_have_a_row_per_message_whatever_its_numbers() -> None:
    def says(at: int, message: str | None, **fields: Any) -> Attempt:
        return refused(call_id=f"r{at}", sent_ns=at * S, error_message=message, **fields)

    run = frame(
        says(1, "Try again in 1.5s"),
        says(2, "Try again in 20s"),
        says(3, "Slow down", status=200),  # reported by a stream
        says(4, None),
        attempt(call_id="ok"),
    )
    found = outcomes.refusal_messages(run)
    assert found["count"].tolist() == [2, 1, 1]
    assert found["sample"].iloc[0] == "Try again in 1.5s"
    assert set(found["sample"].dropna()) == {"Try again in 1.5s", "Slow down"}
    assert set(found["status"]) == {200, 429}
    assert outcomes.refusal_messages(frame(attempt())).empty
