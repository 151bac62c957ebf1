from __future__ import annotations

import time
from itertools import pairwise

import gevent
import pytest

from bltybench.wire.scheduling.aligned_timer import AlignedTimer

PERIOD_S = 0.05


class Rung:
    """What a beat did: when it rang, on its own clock, and how late that was."""

    def __init__(self, periods: int) -> None:
        self.at_s: list[float] = []
        self.late_s: list[float] = []
        self.beat = AlignedTimer(gevent.get_hub().loop, periods * PERIOD_S, self.ring)

    def ring(self) -> None:
        self.at_s.append(time.monotonic())
        self.late_s.append(self.beat.late_s)

    def dues(self) -> list[float]:
        """Return when it was to ring each time, in periods."""
        return [(at - late) / PERIOD_S for at, late in zip(self.at_s, self.late_s, strict=True)]


def until(rung: Rung, times: int) -> None:
    with gevent.Timeout(20):
        while len(rung.at_s) < times:
            gevent.sleep(0.001)


@pytest.mark.parametrize("stall_s", [0.0, 3.5 * PERIOD_S])
def test_it_rings_at_the_multiples_of_its_period_whatever_came_between(stall_s: float) -> None:
    rung = Rung(1)
    until(rung, 3)
    time.sleep(stall_s)  # nothing else is served meanwhile
    until(rung, 8)
    rung.beat.close()
    rang = len(rung.at_s)
    gevent.sleep(3 * PERIOD_S)
    assert len(rung.at_s) == rang
    dues = rung.dues()
    assert all(abs(due - round(due)) < 0.3 for due in dues)
    assert all(after - before > 0.5 for before, after in pairwise(dues))
    assert min(rung.late_s) >= 0
    if stall_s:
        assert max(rung.late_s) >= stall_s - PERIOD_S
        # It stands for those that were missed.
        assert max(after - before for before, after in pairwise(dues)) > 1.5


def test_two_of_them_share_their_moments() -> None:
    gevent.sleep(PERIOD_S / 3)
    often = Rung(1)
    gevent.sleep(PERIOD_S / 3)
    seldom = Rung(2)
    until(seldom, 5)
    often.beat.close()
    seldom.beat.close()
    dues = {round(due) for due in often.dues()}
    assert {round(due) for due in seldom.dues()} & dues
    assert all(round(due) % 2 == 0 for due in seldom.dues())
