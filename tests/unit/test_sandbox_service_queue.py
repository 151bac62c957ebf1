from __future__ import annotations

from bltybench.sandbox.service_queue import ServiceQueue
from bltybench.scenario.target import SandboxQueue

MS = 1_000_000


def test_queue_below_capacity_adds_no_wait() -> None:
    line = ServiceQueue(SandboxQueue(slots=2, service_ms=100))
    assert [line.served_ns(at * 50 * MS) for at in range(20)] == [(at * 50 + 100) * MS for at in range(20)]


def test_queue_above_capacity_adds_a_growing_wait() -> None:
    line = ServiceQueue(SandboxQueue(slots=2, service_ms=100))
    waits = [line.served_ns(at * 40 * MS) // MS - at * 40 - 100 for at in range(11)]
    # Each pair of requests arrives 80 ms after the previous one and needs 100 ms.
    assert waits == [0, 0, 20, 20, 40, 40, 60, 60, 80, 80, 100]
