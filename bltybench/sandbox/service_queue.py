"""A line before a few slots, worked out instead of waited in: when is a request's turn over?"""

from __future__ import annotations

import heapq

from bltybench.scenario.target import SandboxQueue


class ServiceQueue:
    """First come, first served."""

    def __init__(self, queue: SandboxQueue) -> None:
        self._free_ns = [0] * queue.slots
        self._service_ns = round(queue.service_ms * 1e6)

    def served_ns(self, received_ns: int) -> int:
        """Return when the request that came now has been worked on; requests come in order."""
        begin_ns = max(received_ns, self._free_ns[0])
        heapq.heapreplace(self._free_ns, begin_ns + self._service_ns)
        return begin_ns + self._service_ns
