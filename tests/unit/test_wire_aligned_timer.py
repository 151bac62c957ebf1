from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from bltybench.wire.scheduling import aligned_timer
from bltybench.wire.scheduling.aligned_timer import AlignedTimer

PERIOD_S = 0.25


class FakeTimer:
    """A repeating timer of the fake loop. It counts on from its own due times, as libev's does."""

    def __init__(self, loop: FakeLoop, after_s: float, repeat_s: float) -> None:
        self.loop, self.after_s, self.repeat_s = loop, after_s, repeat_s
        self.due_s = 0.0
        self.callback: Callable[[], None] | None = None

    def start(self, callback: Callable[[], None], *, update: bool) -> None:
        assert update
        self.callback, self.due_s = callback, self.loop.now_s + self.after_s
        self.loop.timers.append(self)

    def stop(self) -> None:
        self.loop.timers.remove(self)

    def close(self) -> None:
        self.callback = None


class FakeLoop:
    """An event loop, and the clock that it runs on."""

    def __init__(self) -> None:
        self.now_s = 1000.1
        self.timers: list[FakeTimer] = []

    def timer(self, after_s: float, repeat_s: float) -> FakeTimer:
        return FakeTimer(self, after_s, repeat_s)

    def run(self, seconds: float) -> None:
        """Serve timers when they are due, for some time."""
        end_s = self.now_s + seconds
        while due := [timer for timer in self.timers if timer.due_s <= end_s]:
            timer = min(due, key=lambda timer: timer.due_s)
            self.now_s = max(self.now_s, timer.due_s)
            timer.due_s += timer.repeat_s
            assert timer.callback is not None
            timer.callback()
        self.now_s = end_s


class Firings:
    """An aligned timer on the fake loop, and when it fired."""

    def __init__(self, loop: FakeLoop, period_s: float) -> None:
        self.loop = loop
        self.at_s: list[float] = []
        self.late_s: list[float] = []
        self.timer = AlignedTimer(loop, period_s, self.fire)

    def fire(self) -> None:
        self.at_s.append(self.loop.now_s)
        self.late_s.append(self.timer.late_s)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    loop = FakeLoop()
    monkeypatch.setattr(aligned_timer, "time", SimpleNamespace(monotonic=lambda: loop.now_s))
    return loop


def test_it_fires_at_each_multiple_of_its_period_until_closed(loop: FakeLoop) -> None:
    firings = Firings(loop, PERIOD_S)
    loop.run(1.0)
    assert firings.at_s == pytest.approx([1000.25, 1000.5, 1000.75, 1001.0])
    assert firings.late_s == pytest.approx([0, 0, 0, 0])
    firings.timer.close()
    loop.run(1.0)
    assert len(firings.at_s) == 4


def test_after_a_stall_it_fires_once_and_then_at_multiples_again(loop: FakeLoop) -> None:
    firings = Firings(loop, PERIOD_S)
    loop.run(0.2)
    loop.now_s += 3.5 * PERIOD_S  # nothing else is served meanwhile
    loop.run(0.5)
    assert firings.at_s == pytest.approx([1000.25, 1001.175, 1001.25, 1001.5])
    assert firings.late_s == pytest.approx([0, 0.675, 0, 0])


def test_a_short_delay_does_not_shift_later_firings(loop: FakeLoop) -> None:
    firings = Firings(loop, PERIOD_S)
    loop.run(0.1)
    loop.now_s += 0.1
    loop.run(0.3)
    assert firings.at_s == pytest.approx([1000.3, 1000.5])
    assert firings.late_s == pytest.approx([0.05, 0])


def test_timers_with_a_common_multiple_fire_together(loop: FakeLoop) -> None:
    often = Firings(loop, PERIOD_S)
    loop.run(PERIOD_S / 3)
    seldom = Firings(loop, 2 * PERIOD_S)
    loop.run(2.0)
    assert seldom.at_s == pytest.approx([1000.5, 1001.0, 1001.5, 1002.0])
    assert set(seldom.at_s) <= set(often.at_s)
