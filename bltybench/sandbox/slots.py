"""Slots of a concurrency limit. Excess requests are refused or queued."""

import asyncio
from collections import deque

from bltybench.limits.models import Concurrency


class Slots:
    """At most ``limit`` slots in use (None: no limit). ``queues`` says whether excess requests wait."""

    def __init__(self, limit: int | None, *, queues: bool) -> None:
        self.limit = limit
        self._semaphore = None if limit is None else Concurrency(limit)
        self._queues = queues
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def refuses(self) -> bool:
        """Whether a request would be refused now."""
        full = self._semaphore is not None and self._semaphore.in_use >= self._semaphore.limit
        return full and not self._queues

    def take(self) -> bool:
        """Take a slot if one is available and nobody is queued."""
        if self._semaphore is None:
            return True
        return not self._line and self._semaphore.acquire().accepted

    async def turn(self) -> None:
        """Wait for a slot, in order of arrival."""
        if self.take():
            return
        mine = asyncio.get_running_loop().create_future()
        self._line.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._line.remove(mine)
            else:
                self.free()
            raise

    def free(self) -> None:
        """Pass the slot to the longest-waiting request, or release it."""
        if self._semaphore is None:
            return
        if self._line:
            self._line.popleft().set_result(None)
        else:
            self._semaphore.release()
