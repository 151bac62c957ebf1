"""The clients on asyncio with uvloop: aiohttp, httpx, and the openai SDK, each as its manual shows."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import uvloop

from benchmarks.work import Meter, Work, has_token

Ask = Callable[[], Awaitable[None]]

TIMEOUT_S = 300.0


class AsyncStream:
    """One stream, read line by line."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._sent_ns = time.monotonic_ns()
        self.number = 0
        self.times_ns: list[int] = []
        self.done = False

    def line(self, line: bytes | str) -> None:
        """Parse one line of the stream."""
        text = line.decode() if isinstance(line, bytes) else line
        if not text.startswith("data: "):
            return
        now_ns = time.monotonic_ns()
        if text.startswith("data: [DONE]"):
            self.done = True
            return
        if has_token(json.loads(text[6:])):
            self.times_ns.append(now_ns)

    def finish(self) -> None:
        """Record the stream."""
        self._meter.add(self.number, self._sent_ns, self.times_ns, done=self.done)


async def _aiohttp(work: Work, meter: Meter) -> None:
    import aiohttp  # noqa: PLC0415 - only the measured client is loaded

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            stream = AsyncStream(meter)
            async with session.post(work.base_url + "/chat/completions", json=work.body) as response:
                stream.number = int(response.headers["x-request-id"])
                async for line in response.content:
                    stream.line(line)
            stream.finish()

        await _measure(work, meter, ask)


async def _httpx(work: Work, meter: Meter) -> None:
    import httpx  # noqa: PLC0415

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT_S, trust_env=False) as client:

        async def ask() -> None:
            stream = AsyncStream(meter)
            url = work.base_url + "/chat/completions"
            async with client.stream("POST", url, json=work.body) as response:
                stream.number = int(response.headers["x-request-id"])
                async for line in response.aiter_lines():
                    stream.line(line)
            stream.finish()

        await _measure(work, meter, ask)


async def _openai(work: Work, meter: Meter) -> None:
    from openai import AsyncOpenAI  # noqa: PLC0415

    async with AsyncOpenAI(
        base_url=work.base_url, api_key="none", timeout=TIMEOUT_S, max_retries=0
    ) as client:

        async def ask() -> None:
            stream = AsyncStream(meter)
            chunks = await client.chat.completions.create(**work.body)  # type: ignore[call-overload]  # a plain dict
            stream.number = int(chunks.response.headers["x-request-id"])
            async for chunk in chunks:
                now_ns = time.monotonic_ns()
                if chunk.usage is not None:
                    stream.done = True
                delta = chunk.choices[0].delta if chunk.choices else None
                if delta and (delta.content or delta.tool_calls or getattr(delta, "reasoning_content", None)):
                    stream.times_ns.append(now_ns)
            stream.finish()

        await _measure(work, meter, ask)


async def _measure(work: Work, meter: Meter, ask: Ask) -> None:
    """Keep all streams open until the time is over, and measure the end of it."""

    start_ns = await asyncio.to_thread(work.wait_for_start)

    async def user() -> None:
        await asyncio.sleep(work.user_delay_s(start_ns))
        while True:
            await ask()

    users = [asyncio.create_task(user()) for _ in range(work.streams)]
    await asyncio.sleep(work.measure_in_s(start_ns))
    meter.begin()
    await asyncio.sleep(work.seconds)
    meter.end()
    failed = next((task for task in users if task.done()), None)
    if failed is not None:
        failed.result()
    for task in users:
        task.cancel()
    await asyncio.gather(*users, return_exceptions=True)


def run(name: str, work: Work) -> None:
    """Run one of the clients to its end."""
    client = {"aiohttp": _aiohttp, "httpx": _httpx, "openai": _openai}[name]
    uvloop.run(client(work, Meter(work)))
