"""A misbehaving server in its own process, and exchanges with it or without any server."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import support_wire_server

from bltybench.scenario.api.endpoint import Timeouts
from bltybench.wire import Connection, Exchange, ExchangeResult, Failure, Fault, Origin, Reader
from bltybench.wire.http.response import BAD_BYTES, ResponseParser

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

    def connection(self, reader: Reader, timeouts: Timeouts = PATIENT) -> Connection:
        return Connection(
            Origin(f"http://127.0.0.1:{self.port}/v1", timeouts, secrets=["tok-123456"]), reader
        )


def exchange_with(
    server: Server, path: str, reader: Reader, *, stream: bool = True, timeouts: Timeouts = TIMEOUTS
) -> tuple[Exchange, ExchangeResult]:
    """Return one exchange on a connection of its own, and its result."""
    connection = server.connection(reader, timeouts)
    exchange = Exchange(stream=stream)
    connection.send("POST", f"/{path}", HEADERS, b"{}", exchange)
    result = reader.read(exchange)
    connection.close()
    return exchange, result


def ended_exchange(response: bytes, *, stream: bool = False, failure: Failure | None = None) -> Exchange:
    """Return an exchange as a connection leaves it after a response that arrived in one read."""
    exchange = Exchange(stream=stream)
    exchange.sent_ns = 1
    parser = ResponseParser(exchange)
    with suppress(*BAD_BYTES):
        parser.feed(response)
        parser.end()
    if parser.final:
        exchange.headers_ns = 2
    exchange.arrivals.extend([3] * len(exchange.pieces))
    exchange.bytes_received = len(response)
    exchange.end_ns = 4
    exchange.failure = failure
    if not parser.complete and failure is None:
        exchange.failure = Failure(Fault.CLOSED_EARLY, "closed")
    return exchange
