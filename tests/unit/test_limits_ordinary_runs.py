"""Runs that no probe times, against simulated limiters: no claim is wrong, and most limits are found."""

from __future__ import annotations

import pytest

from benchmarks.ordinary_runs import play
from bltybench.limits.fit.evidence import FEW_RECOVERIES

HIDDEN = [
    ("quota shared with other clients", "random", 2),
    ("bucket and window", "hurried", 2),
]
"""Runs in which one of two limits, or the requests of other clients, can be overlooked."""
PLAIN = [("FixedWindow", "users", 0), ("SlidingLog", "random", 1)]


@pytest.mark.parametrize(("name", "load", "seed"), HIDDEN)
def test_limit_that_the_run_shows_in_part_is_not_claimed(name: str, load: str, seed: int) -> None:
    run = play(name, load, seed)
    assert run.wrong == ()
    assert run.judged == "abstained"
    assert run.record.reason


@pytest.mark.parametrize(("name", "load", "seed"), PLAIN)
def test_plain_limit_is_claimed_at_a_rate_that_is_accepted(name: str, load: str, seed: int) -> None:
    run = play(name, load, seed)
    assert run.wrong == ()
    assert run.judged == "right"


def test_single_recovery_is_too_few_and_the_reason_says_so() -> None:
    run = play("FixedWindow", "users", 3)
    assert run.judged == "abstained"
    assert (run.record.reason or "").startswith(FEW_RECOVERIES)
