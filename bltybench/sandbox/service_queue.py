"""A queue in front of a few slots, computed instead of waited for."""

import heapq

from bltybench.scenario.target import SandboxQueue


class ServiceQueue:
    """A first-come, first-served queue."""

    def __init__(self, queue: SandboxQueue) -> None:
        self._free_ns = [0] * queue.slots
        self._service_ns = round(queue.service_ms * 1e6)

    def served_ns(self, received_ns: int) -> int:
        """Return the completion time of the request that arrives now. Requests must arrive in order."""
        begin_ns = max(received_ns, self._free_ns[0])
        heapq.heapreplace(self._free_ns, begin_ns + self._service_ns)
        return begin_ns + self._service_ns
