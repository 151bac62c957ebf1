"""Any bytes in any split over a real socket give a typed outcome and a valid record, and raise nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bltybench.runs.attempt import Attempt, Outcome
from bltybench.scenario.api.endpoint import Timeouts
from bltybench.wire import Connection, Exchange, Origin, Reader

EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a\\u00e9"},"finish_reason":null}]}\n\n'
PARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 429 Slow\r\n",
        b"HTTP/1.0 200\r\n",
        b"Content-Type: text/event-stream\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 40\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Retry-After: 1e400\r\n",
        b"\r\n",
        b"%x\r\n%s\r\n" % (len(EVENT), EVENT),
        b"ffffffffffffffff\r\n",
        b"0\r\n\r\n",
        EVENT,
        b"data: [DONE]\n\n",
        b'{"choices":[{"message":{"content":"hi"}}]}',
    ]
)
RESPONSES = st.lists(PARTS | st.binary(max_size=40), max_size=14).map(b"".join)


class Script:
    """A server that sends the given bytes on each connection, then closes it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            with sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not sock.recv(65536):
                    return
                with suppress(OSError):  # the client can close first
                    for part in self.parts:
                        sock.sendall(part)

    def stop(self) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.thread.join()
        self.listener.close()


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.stop()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(response=RESPONSES, cuts=st.lists(st.integers(0, 2000), max_size=5), stream=st.booleans())
def test_any_bytes_in_any_split_give_a_valid_record(
    script: Script, response: bytes, cuts: list[int], stream: bool
) -> None:
    edges = [0, *sorted(at % (len(response) + 1) for at in cuts), len(response)]
    script.parts = [response[a:b] for a, b in pairwise(edges)]
    reader = Reader()
    connection = Connection(Origin(f"http://127.0.0.1:{script.port}/v1", Timeouts(total_s=20)), reader)
    exchange = Exchange(stream=stream)
    connection.send("POST", "/chat/completions", [], b"{}", exchange)
    result = reader.read(exchange)
    connection.close()
    assert result.outcome not in {Outcome.TIMEOUT, Outcome.CANCELLED}
    assert exchange.end_ns is not None
    # The record checks the order of its times, and that outcome and status agree.
    Attempt(
        worker="w",
        user=0,
        scenario="s",
        call_id="c",
        attempt=0,
        due_ns=0,
        sent_ns=exchange.sent_ns,
        headers_ns=exchange.headers_ns,
        first_token_ns=result.first_token_ns,
        last_token_ns=result.last_token_ns,
        end_ns=exchange.end_ns,
        gaps_us=result.gaps_us,
        outcome=result.outcome,
        status=result.status,
        endpoint="chat",
        stream=stream,
        bytes_sent=exchange.bytes_sent,
        bytes_received=exchange.bytes_received,
        in_flight=1,
    )
