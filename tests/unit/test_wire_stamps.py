from __future__ import annotations

import socket
import struct

import pytest

from bltybench.wire.stamps import SO_TIMESTAMPING, Ancillary, StampClock

WALL_0 = 1_780_000_000_000_000_000
SECOND = 1_000_000_000


class Clocks:
    """Two clocks that advance together until the wall clock is set."""

    def __init__(self) -> None:
        self.now = 50 * SECOND
        self.offset = WALL_0

    def monotonic(self) -> int:
        return self.now

    def wall(self) -> int:
        return self.now + self.offset

    def stamp(self, ago_ns: int = 0) -> Ancillary:
        wall = self.wall() - ago_ns
        data = struct.pack("@6q", wall // SECOND, wall % SECOND, 0, 0, 0, 0)
        return [(socket.SOL_SOCKET, SO_TIMESTAMPING, data)]


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def clock(clocks: Clocks) -> StampClock:
    return StampClock(clocks.monotonic, clocks.wall)


def test_a_timestamp_is_converted_to_the_monotonic_clock(clocks: Clocks, clock: StampClock) -> None:
    clocks.now += SECOND
    assert clock.arrival(clocks.stamp(30_000_000), 0) == (
        clocks.now - 30_000_000,
        clocks.now - 30_000_000,
        30_000_000,
    )


def test_without_a_timestamp_the_time_after_the_read_is_used(clocks: Clocks, clock: StampClock) -> None:
    other: Ancillary = [(socket.SOL_SOCKET, 99, b"x"), (socket.SOL_SOCKET, SO_TIMESTAMPING, b"short")]
    assert clock.arrival([], 0) == (clocks.now, clocks.now, -1)
    assert clock.arrival(other, 0) == (clocks.now, clocks.now, -1)


@pytest.mark.parametrize("step_ns", [-3600 * SECOND, -SECOND // 100, SECOND // 100, 3600 * SECOND])
def test_timestamps_are_discarded_around_a_step_of_the_wall_clock(
    clocks: Clocks, clock: StampClock, step_ns: int
) -> None:
    before = clocks.stamp()
    clocks.now += SECOND // 10
    clocks.offset += step_ns
    assert clock.arrival(before, 0) == (clocks.now, clocks.now, -1)
    clocks.now += SECOND // 2
    assert clock.arrival(clocks.stamp(1000), 0)[2] == -1
    clocks.now += SECOND
    assert clock.arrival(clocks.stamp(1000), 0) == (clocks.now - 1000, clocks.now - 1000, 1000)


def test_an_interruption_between_the_clock_calls_is_not_a_step(clocks: Clocks) -> None:
    interrupt = [0]

    def wall() -> int:
        clocks.now += interrupt[0]
        interrupt[0] = 0
        return clocks.wall()

    clock = StampClock(clocks.monotonic, wall)
    interrupt[0] = 5_000_000
    read_at = clocks.now
    assert clock.arrival(clocks.stamp(2_000_000), 0) == (read_at - 2_000_000, read_at - 2_000_000, 2_000_000)


def test_an_arrival_holds_the_time_since_the_previous_read(clocks: Clocks, clock: StampClock) -> None:
    floor = clocks.now - 20_000_000
    assert clock.arrival(clocks.stamp(3_000_000), floor) == (clocks.now - 3_000_000, 17_000_000, 3_000_000)
    assert clock.arrival([], floor) == (clocks.now, 20_000_000, -1)


def test_implausible_timestamps_are_clamped_or_discarded(clocks: Clocks, clock: StampClock) -> None:
    now = clocks.now
    assert clock.arrival(clocks.stamp(-500_000), 0) == (now, now, 0)
    assert clock.arrival(clocks.stamp(-5_000_000), 0) == (now, now, -1)
    assert clock.arrival(clocks.stamp(500_000), now - 1000) == (now - 1000, 0, 1000)
    assert clock.arrival(clocks.stamp(5_000_000), now - 1000) == (now, 1000, -1)
