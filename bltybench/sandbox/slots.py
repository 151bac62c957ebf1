"""The slots of a limit on concurrency: what does not fit is refused, or waits its turn."""

from __future__ import annotations

import asyncio
from collections import deque

from bltybench.limits.models import Concurrency


class Slots:
    """At most ``limit`` at a time, None for any number; ``queues`` says whether the excess waits for one."""

    def __init__(self, limit: int | None, *, queues: bool) -> None:
        self.limit = limit
        self._semaphore = None if limit is None else Concurrency(limit)
        self._queues = queues
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def refuses(self) -> bool:
        """Whether a request would be refused now."""
        return not self._queues and self._full()

    def take(self) -> bool:
        """Take a slot if there is one and nobody waits for it."""
        if self._semaphore is None:
            return True
        return not self._line and self._semaphore.acquire().accepted

    async def turn(self) -> None:
        """Return with a slot as soon as there is one for who waits longest."""
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
        """Give a slot to who waits longest, or back."""
        if self._semaphore is None:
            return
        if self._line:
            self._line.popleft().set_result(None)
        else:
            self._semaphore.release()

    def _full(self) -> bool:
        return self._semaphore is not None and self._semaphore.in_use >= self._semaphore.limit
