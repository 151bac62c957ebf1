"""A slow, uneven connection: forwards a TCP port with random delays in both directions.

python -m benchmarks.slow_relay LISTEN_PORT HOST PORT DELAY_MS STALLS SEED

Each piece is delivered DELAY_MS later on average, and with probability STALLS another 0.2 to 0.4 s, as if a
packet had been lost and sent again: above TCP, a loss is nothing but a delay.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable

RESEND_S = (0.2, 0.4)
"""Time until TCP sends a lost packet again, in seconds."""
CHUNK_BYTES = 64 * 1024


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: Callable[[], float]
) -> None:
    loop, due_s = asyncio.get_running_loop(), 0.0
    pending: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            at_s, data = await pending.get()
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    data = b"x"
    while data:
        data = await reader.read(CHUNK_BYTES)
        due_s = max(due_s, loop.time() + delay_s())
        pending.put_nowait((due_s, data))
    await delivery


def _relay(
    host: str, port: int, delay_s: Callable[[], float]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        await asyncio.gather(
            _forward(reader, back, delay_s), _forward(there, writer, delay_s), return_exceptions=True
        )

    return connect


async def main() -> None:
    """Forward until a signal ends the process."""
    listen, host, port, delay_ms, stalls, seed = sys.argv[1:]
    rng = random.Random(int(seed))

    def delay_s() -> float:
        stall_s = rng.uniform(*RESEND_S) if rng.random() < float(stalls) else 0.0
        return rng.uniform(0.5, 1.5) * float(delay_ms) / 1000 + stall_s

    server = await asyncio.start_server(_relay(host, int(port), delay_s), "127.0.0.1", int(listen))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
