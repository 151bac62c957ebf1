"""Waiting for absolute times on behalf of one client, until it disconnects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from bltybench.sandbox.errors import ClientGone


class ResponseTimer:
    """Sleeps until given monotonic times. Raises ClientGone as soon as the client disconnects.

    All times are absolute, so a late wakeup does not delay the next one. Use with ``async with``.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None

    async def __aenter__(self) -> ResponseTimer:
        self._loop = asyncio.get_running_loop()
        self._watch = self._loop.create_task(self._until_gone())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()

    async def until(self, at_ns: int) -> None:
        """Return at ``at_ns``, or in the next event-loop iteration if that has passed."""
        delay_s = (at_ns - time.monotonic_ns()) / 1e9
        if delay_s <= 0:
            await self.give_way()
            return
        self._check()
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_later(delay_s, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
        self._check()

    async def give_way(self) -> None:
        """Return in the next event-loop iteration.

        The loop writes to a socket once per iteration, so data sent before and after never share a write.
        """
        self._check()
        await asyncio.sleep(0)
        self._check()

    async def while_there(self, work: Coroutine[Any, Any, None]) -> None:
        """Return when ``work`` is done. Cancel it if the client disconnects first."""
        task = self._loop.create_task(work)
        waiter = self._waiter = self._loop.create_future()
        task.add_done_callback(lambda _: _wake(waiter))
        try:
            self._check()
            await waiter
            self._check()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        task.result()

    def _check(self) -> None:
        if self._gone:
            raise ClientGone

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._waiter is not None:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
