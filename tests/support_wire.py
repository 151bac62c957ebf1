"""A misbehaving server as a process, and one exchange with it."""

from __future__ import annotations

import subprocess
import sys

import support_wire_server

from bltybench.scenario.target import Timeouts
from bltybench.wire import Connection, Exchange, ExchangeResult, Origin, Reader

TIMEOUTS = Timeouts(connect_s=5, headers_s=0.6, between_events_s=0.4, total_s=1.5)
PATIENT = Timeouts()
HEADERS = [("Content-Type", "application/json"), ("Authorization", "Bearer tok-123456")]


class Server:
    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, support_wire_server.__file__, *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def exchange_with(
    port: int, path: str, reader: Reader, *, stream: bool = True, timeouts: Timeouts = TIMEOUTS
) -> tuple[Exchange, ExchangeResult]:
    connection = Connection(Origin(f"http://127.0.0.1:{port}/v1", timeouts, secrets=["tok-123456"]), reader)
    exchange = Exchange(stream=stream)
    connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
    reading = reader.read(exchange)
    connection.close()
    return exchange, reading
