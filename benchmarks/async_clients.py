"""The clients that run on asyncio (with uvloop): aiohttp, httpx, the openai SDK; each as its manual says."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable

import uvloop

from benchmarks.work import Meter, Stream, Work

Ask = Callable[[], Awaitable[None]]

TIMEOUT_S = 300.0


class Answer:
    """What one stream brought."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._sent_ns = time.monotonic_ns()
        self.number = 0
        self.times_ns: list[int] = []
        self.done = False

    def line(self, line: bytes | str) -> None:
        """Look at one line of the stream."""
        text = line.decode() if isinstance(line, bytes) else line
        if not text.startswith("data: "):
            return
        now_ns = time.monotonic_ns()
        if text.startswith("data: [DONE]"):
            self.done = True
            return
        choices = json.loads(text[6:])["choices"]
        if choices and choices[0]["delta"].get("content"):
            self.times_ns.append(now_ns)

    def finish(self) -> None:
        """Note what came."""
        self._meter.failed += not self.done
        self._meter.streams.append(Stream(self.number, self._sent_ns, time.monotonic_ns(), self.times_ns))


async def _aiohttp(work: Work, meter: Meter) -> None:
    import aiohttp  # noqa: PLC0415 - only what is measured is loaded

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            answer = Answer(meter)
            async with session.post(work.base_url + "/chat/completions", json=work.body) as response:
                answer.number = int(response.headers["x-request-id"])
                async for line in response.content:
                    answer.line(line)
            answer.finish()

        await _all(work, meter, ask)


async def _httpx(work: Work, meter: Meter) -> None:
    import httpx  # noqa: PLC0415

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT_S, trust_env=False) as client:

        async def ask() -> None:
            answer = Answer(meter)
            url = work.base_url + "/chat/completions"
            async with client.stream("POST", url, json=work.body) as response:
                answer.number = int(response.headers["x-request-id"])
                async for line in response.aiter_lines():
                    answer.line(line)
            answer.finish()

        await _all(work, meter, ask)


async def _openai(work: Work, meter: Meter) -> None:
    from openai import AsyncOpenAI  # noqa: PLC0415

    async with AsyncOpenAI(
        base_url=work.base_url, api_key="none", timeout=TIMEOUT_S, max_retries=0
    ) as client:

        async def ask() -> None:
            answer = Answer(meter)
            stream = await client.chat.completions.create(**work.body)  # type: ignore[call-overload]  # a plain dict
            answer.number = int(stream.response.headers["x-request-id"])
            async for chunk in stream:
                now_ns = time.monotonic_ns()
                if chunk.usage is not None:
                    answer.done = True
                if chunk.choices and chunk.choices[0].delta.content:
                    answer.times_ns.append(now_ns)
            answer.finish()

        await _all(work, meter, ask)


async def _all(work: Work, meter: Meter, ask: Ask) -> None:
    """Keep all streams open until the time is over, and measure meanwhile."""

    async def user() -> None:
        await asyncio.sleep(random.random() * work.spread_s)
        while True:
            await ask()

    users = [asyncio.create_task(user()) for _ in range(work.streams)]
    await asyncio.sleep(work.left_s())
    meter.begin()
    await asyncio.sleep(work.seconds)
    meter.end()
    ended = next((task for task in users if task.done()), None)
    if ended is not None:
        ended.result()
    for task in users:
        task.cancel()
    await asyncio.gather(*users, return_exceptions=True)


def run(name: str, work: Work) -> None:
    """Run one of them to its end."""
    client = {"aiohttp": _aiohttp, "httpx": _httpx, "openai": _openai}[name]
    uvloop.run(client(work, Meter(work)))
