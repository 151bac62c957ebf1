from __future__ import annotations

from bltybench.sandbox.service_queue import ServiceQueue
from bltybench.scenario.target import SandboxQueue

MS = 1_000_000


def test_below_its_capacity_a_line_has_nobody_in_it() -> None:
    line = ServiceQueue(SandboxQueue(slots=2, service_ms=100))
    assert [line.served_ns(at * 50 * MS) for at in range(20)] == [(at * 50 + 100) * MS for at in range(20)]


def test_beyond_it_the_wait_grows_by_what_is_too_much() -> None:
    line = ServiceQueue(SandboxQueue(slots=2, service_ms=100))
    waits = [line.served_ns(at * 40 * MS) // MS - at * 40 - 100 for at in range(11)]
    # Each pair of requests comes 80 ms after the one before and is worked on for 100.
    assert waits == [0, 0, 20, 20, 40, 40, 60, 60, 80, 80, 100]
