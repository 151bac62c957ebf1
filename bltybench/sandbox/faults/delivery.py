"""Delivery of a response with a fault: the ASGI layer up to the fault, raw bytes from there."""

import asyncio
import contextlib
import socket
import struct
import time

from starlette.types import Message, Scope, Send

from bltybench.sandbox.errors import ApiError, ClientGone, Headers, server_error
from bltybench.sandbox.response_timer import ResponseTimer
from bltybench.sandbox.truth import TruthRow

TRANSPORT = "bltybench.transport"
"""ASGI extension that holds the connection's transport."""
FLUSH_S = 0.02
"""Time for written bytes to reach the client before the connection breaks, in seconds."""
DRIP_NS = 50_000_000
"""Time between two bytes of slow headers, in nanoseconds."""
CLIENT_WAIT_NS = 10**9
"""Maximum time to notice that a connection closed here is gone, in nanoseconds."""
FOREVER_NS = 3600 * 10**9
"""Time for which a stall waits for the client to give up, in nanoseconds."""
EXCESS_BYTES = 100
"""Bytes that a plain response, or a chunk, announces and lacks."""
LONG_STREAM_BYTES = 10**8
"""Content-Length of a stream that announces more than it sends."""
CUT_BYTES = 12
"""Bytes that Content-Length lacks if it announces too little: the last event, or the JSON, is cut."""
REACTION_NS = 500_000_000
"""Time from a request to the reset instead of a response, in nanoseconds. If a kept-alive connection breaks
sooner, clients send the request again, because the server may have closed it before."""
RESET = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which closing a socket sends an RST."""


class ResponseEnded(Exception):  # noqa: N818 - an event, not an error
    """A fault has ended the response. Nothing more can be sent."""


def status_error(fault: str, headers: Headers) -> ApiError | None:
    """Return the error response of a fault such as ``html_502``; None for other faults."""
    form, _, status = fault.partition("_")
    if form not in {"json", "html"}:
        return None
    error = server_error(headers)
    error.status, error.html = int(status), form == "html"
    return error


class FaultySend:
    """An ASGI ``send`` that delivers a response until the fault, and then the fault.

    ``pieces`` is how many pieces of the body come before the fault.
    """

    def __init__(self, fault: str, scope: Scope, send: Send, timer: ResponseTimer, pieces: int) -> None:
        self._fault = fault
        self._transport: asyncio.Transport = scope["extensions"][TRANSPORT]
        self._row: TruthRow = scope["state"]["row"]
        self._send = send
        self._timer = timer
        self._pieces_left = pieces
        self._start: Message | None = None
        self._held = b""
        self._over = False

    async def __call__(self, message: Message) -> None:
        """Send a message, or the fault instead. Raises ResponseEnded after the fault."""
        if message["type"] == "http.response.start":
            # Sent with the first piece, because a Content-Length can depend on it.
            self._start = message
            await self._on_start()
            return
        body, more = message["body"], message["more_body"]
        at_fault = not self._over and (self._pieces_left == 0 or not more)
        if self._fault == "short_content_length":
            self._held += body
        elif self._start is not None:
            start, self._start = self._start, None
            await self._send({**start, "headers": self._headers(start["headers"], len(body), more=more)})
        if at_fault:
            self._over = True
            await self._on_fault(body, more=more)
            return
        self._pieces_left -= 1
        if self._fault != "short_content_length":
            await self._send(message)

    def _headers(self, headers: Headers, length: int, *, more: bool) -> Headers:
        """Return the headers with the Content-Length of the fault. Without one, the body is chunked."""
        kept = [(name, value) for name, value in headers if name != b"content-length"]
        if self._fault == "long_content_length":
            announced = LONG_STREAM_BYTES if more else length + EXCESS_BYTES
            kept.append((b"content-length", b"%d" % announced))
        elif self._fault in {"reset_mid_stream", "stall"} and not more:
            kept.append((b"content-length", b"%d" % length))
        return kept

    async def _on_start(self) -> None:
        if self._fault == "reset_before_headers":
            await self._timer.until(self._row.received_ns + REACTION_NS)
            await self._break(reset=True)
        elif self._fault == "slow_headers":
            self._write(b"HTTP/1.1 200 OK\r\nx-padding: ")
            at_ns = time.monotonic_ns()
            while True:
                at_ns += DRIP_NS
                await self._timer.until(at_ns)
                self._write(b".")

    async def _on_fault(self, body: bytes, *, more: bool) -> None:
        half = body[: len(body) // 2]
        if self._fault == "malformed_json":
            end = b"\n\n" if self._is_event(body) else b""
            await self._pass(half + end, more=more)
        elif self._fault == "error_event":
            error = server_error([]).body()
            await self._pass(b"data: " + error + b"\n\n" if self._is_event(body) else error, more=False)
            raise ResponseEnded
        elif self._fault == "short_content_length":
            self._write(self._short_response())
            await self._break(reset=False)
        elif self._fault == "truncated_chunk":
            self._write(b"%x\r\n" % (len(body) + EXCESS_BYTES) + half)
            await self._break(reset=False)
        else:
            await self._pass(half, more=True)
            if self._fault == "stall":
                await self._timer.until(time.monotonic_ns() + FOREVER_NS)
            await self._break(reset=self._fault == "reset_mid_stream")

    def _is_event(self, body: bytes) -> bool:
        return body.startswith(b"data:")

    async def _pass(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _short_response(self) -> bytes:
        """Return a whole response, in one piece so that the client reads the excess with it."""
        start = self._start or {"headers": []}
        self._row.status = 200
        headers = [
            *((name, value) for name, value in start["headers"] if name != b"content-length"),
            (b"x-request-id", self._row.request_id.encode()),
            (b"content-length", b"%d" % (len(self._held) - CUT_BYTES)),
        ]
        lines = [b"HTTP/1.1 200 OK", *(name + b": " + value for name, value in headers)]
        return b"\r\n".join([*lines, b"", self._held])

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    async def _break(self, *, reset: bool) -> None:
        """Break the connection without a farewell, and wait until that is noticed here."""
        await asyncio.sleep(FLUSH_S)
        if reset:
            connection: socket.socket = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()
        with contextlib.suppress(ClientGone):
            await self._timer.until(time.monotonic_ns() + CLIENT_WAIT_NS)
        raise ResponseEnded
