"""RPM and TPM on hand-computed runs."""

from __future__ import annotations

import numpy as np
from support_runs import WALL_NS, S, attempt, frame

from bltybench.metrics import rates
from bltybench.runs.attempt import Outcome


def at(*seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([int(second * S) for second in seconds], dtype=np.int64)


def test_window_excludes_its_start_and_includes_its_end() -> None:
    assert rates.best_rolling(at(0, 60)).value == 1
    assert rates.best_rolling(at(0.000001, 60)).value == 2
    assert rates.rolling(at(0), at(0, 59.9, 60)).tolist() == [1, 1, 0]


def test_best_window_can_span_two_calendar_minutes() -> None:
    # 10 s into a calendar minute: 30 in its last 5 s, 30 in the first 5 s of the next.
    times = np.concatenate((at(*np.linspace(45, 49.9, 30)), at(*np.linspace(50, 54.9, 30))))
    run = frame(*(attempt(call_id=f"c{i}", sent_ns=int(t), end_ns=int(t) + 1) for i, t in enumerate(times)))
    minutes = rates.per_minute(run, rates.token_events(run), WALL_NS, 60 * S)
    assert minutes["accepted"].tolist() == [30, 30]
    assert minutes["covered_s"].tolist() == [50.0, 10.0]
    found = rates.best(run, rates.token_events(run)).set_index("rate")
    assert found.loc["accepted", "per_min"] == 60
    assert found.loc["accepted", "until_s"] == 54.9


def test_best_window_sums_weights_of_unordered_events() -> None:
    found = rates.best_rolling(at(70, 0, 30), np.array([5.0, 1.0, 10.0]))
    assert found.value == 15
    assert found.until_ns == 70 * S


def test_short_run_is_not_extrapolated() -> None:
    assert rates.best_rolling(at(0, 1, 2)).value == 3


def test_minute_without_traffic_is_a_row_of_zeros() -> None:
    run = frame(attempt(sent_ns=0, end_ns=1), attempt(call_id="b", sent_ns=120 * S, end_ns=121 * S))
    minutes = rates.per_minute(run, rates.token_events(run), WALL_NS, 121 * S)
    assert minutes["offered"].tolist() == [1, 0, 1]
    assert minutes["minute"].dt.minute.tolist() == [15, 16, 17]


def test_run_ending_on_the_minute_has_no_row_for_the_next() -> None:
    run = frame(attempt(end_ns=S))
    assert len(rates.per_minute(run, rates.token_events(run), WALL_NS, 50 * S)) == 1


def test_prompt_tokens_count_when_sent_and_completion_tokens_when_ended() -> None:
    run = frame(attempt(sent_ns=49 * S, end_ns=51 * S, prompt_tokens=100, completion_tokens=7))
    minutes = rates.per_minute(run, rates.token_events(run), WALL_NS, 60 * S)
    assert minutes["prompt_tokens"].tolist() == [100, 0]
    assert minutes["completion_tokens"].tolist() == [0, 7]
    assert minutes["total_tokens"].tolist() == [100, 7]


def test_token_events_exclude_refused_attempts_and_unknown_counts() -> None:
    refused = attempt(call_id="r", outcome=Outcome.RATE_LIMITED, status=429, prompt_tokens=100)
    unknown = attempt(call_id="u", prompt_tokens=None, completion_tokens=3)
    events = rates.token_events(frame(refused, unknown))
    assert events["prompt_tokens"].tolist() == [0]
    assert events["completion_tokens"].tolist() == [3]


def test_rates_if_everything_is_refused() -> None:
    run = frame(
        *(attempt(call_id=f"c{i}", sent_ns=i * S, outcome=Outcome.RATE_LIMITED, status=429) for i in range(5))
    )
    found = rates.best(run, rates.token_events(run)).set_index("rate")["per_min"]
    assert found[["offered", "accepted", "refused", "other", "total_tokens"]].tolist() == [5, 0, 5, 0, 0]


def test_rates_of_an_empty_run_are_zero() -> None:
    run = frame()
    assert rates.best(run, rates.token_events(run))["per_min"].tolist() == [0.0] * 7
    assert rates.best(run, rates.token_events(run))["until_s"].isna().all()
    assert rates.per_minute(run, rates.token_events(run), WALL_NS, 0)["offered"].tolist() == [0]
