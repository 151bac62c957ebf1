"""Tests of the times that the comparison of live policies simulates with."""

from random import Random

import pandas as pd
import pytest

from benchmarks.live_policies import StageTimes
from bltybench.metrics.frame import FATES

MS = 1_000_000


def attempts(*rows: tuple[str, int, int, int, int, str, float | None]) -> pd.DataFrame:
    names = ["call", "attempt", "due_ns", "sent_ns", "end_ns", "fate", "waited_s"]
    frame = pd.DataFrame(rows, columns=names)
    frame["fate"] = pd.Categorical(frame["fate"], categories=FATES)
    return frame.assign(held_until_ns=pd.array([None] * len(frame), dtype="Int64"))


def test_refusals_take_until_the_client_sends_again_without_the_wait() -> None:
    times = StageTimes(
        attempts(
            ("b", 0, 50 * MS, 51 * MS, 101 * MS, "accepted", None),
            ("a", 1, 1006 * MS, 1007 * MS, 1059 * MS, "accepted", None),
            ("a", 0, 0, 1 * MS, 3 * MS, "refused", 1.0),
        ),
        Random(1),
    )
    # The retry is due 5 ms and the wait after the refused request was sent. All are sent a millisecond late.
    assert times.refusal_s == pytest.approx(0.006)
    assert {round(times.of(1), 3) for _ in range(20)} == {0.05, 0.052}


def test_refusals_without_a_retry_take_as_long_as_their_responses() -> None:
    times = StageTimes(attempts(("a", 0, 0, 1 * MS, 3 * MS, "refused", None)), Random(1))
    assert times.refusal_s == pytest.approx(0.003)
