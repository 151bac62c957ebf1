"""Attempts in flight on hand-computed runs."""

from __future__ import annotations

import numpy as np
from support_runs import S, attempt, frame

from bltybench.metrics import concurrency
from bltybench.runs.attempt import Outcome


def test_steps_peak_and_mean_of_overlapping_attempts() -> None:
    run = frame(
        attempt(call_id="a", sent_ns=0, end_ns=4 * S),
        attempt(call_id="b", sent_ns=1 * S, end_ns=3 * S),
        attempt(call_id="c", sent_ns=2 * S, end_ns=3 * S),
    )
    stepped = concurrency.steps(run)
    assert (stepped["at_ns"] // S).tolist() == [0, 1, 2, 3, 4]
    assert stepped["in_flight"].tolist() == [1, 2, 3, 1, 0]
    found = concurrency.in_flight(stepped, 10 * S)
    assert found.max == 3
    assert found.at_s == 2.0
    # 1 + 2 + 3 + 1 attempt-seconds in 10 s
    assert found.mean == 0.7


def test_attempt_sent_when_another_ends_does_not_overlap_it() -> None:
    run = frame(attempt(sent_ns=0, end_ns=S), attempt(call_id="b", sent_ns=S, end_ns=2 * S))
    assert concurrency.in_flight(concurrency.steps(run), 2 * S).max == 1


def test_unsent_attempt_is_not_in_flight() -> None:
    run = frame(attempt(sent_ns=None, end_ns=S, outcome=Outcome.TRANSPORT_ERROR, status=None))
    assert concurrency.steps(run).empty
    assert concurrency.in_flight(concurrency.steps(run), S) == concurrency.InFlight(0, None, 0.0)


def test_bins_include_attempts_sent_before_them() -> None:
    run = frame(attempt(sent_ns=S // 2, end_ns=5 * S // 2))
    peak, mean = concurrency.per_bin(concurrency.steps(run), np.arange(5, dtype=np.int64) * S)
    assert peak.tolist() == [1, 1, 1, 0]
    assert mean.tolist() == [0.5, 1.0, 0.5, 0.0]
