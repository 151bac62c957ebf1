"""One user's connection to a chat API, read by a callback of the event loop instead of a greenlet.

A greenlet that reads a socket costs two switches per read and queues behind all other greenlets. Here the
event loop calls ``_on_readable``, which timestamps and keeps the bytes and does nothing that can wait. The
greenlet that sent the request wakes up once, when the exchange has ended.
"""

import ssl
import time
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.hub import Waiter

from bltybench.runs.attempt import Stamp
from bltybench.wire import stamps
from bltybench.wire.exchange import MAX_AFTER_DONE_BYTES, MAX_HEADER_BYTES, MAX_SPLIT_DONE_BYTES, Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.http.dial import dial
from bltybench.wire.http.origin import Origin
from bltybench.wire.http.request import RequestWriter
from bltybench.wire.http.response import BAD_BYTES, ResponseParser
from bltybench.wire.http.socket_io import READ_BYTES, SocketIO, read_failure
from bltybench.wire.http.timeouts import DONE_GRACE_S, check_timeouts, closed_before
from bltybench.wire.scheduling.batched_reads import MIN_GAP_NS, ReadPace
from bltybench.wire.scheduling.lazy_timer import LazyTimer
from bltybench.wire.scheduling.open_streams import finished_ns
from bltybench.wire.scheduling.reader import Reader

FOLD_BYTES = 32 * 1024
"""Bytes that a stream keeps before it is folded (parsed so far), behind the reads."""
PAUSE_BYTES = 8 * FOLD_BYTES
"""Bytes that a stream keeps before reading pauses until it is folded. This bounds memory."""

_CLOCK = stamps.StampClock()
stamps.keep_stamping()


class Connection:
    """One keep-alive connection, used by one greenlet at a time.

    If the server closed it before a request, the request is sent on a new one (``closed_before``). If it
    closes it later, the exchange fails, because the server may have processed the request.
    """

    def __init__(self, origin: Origin, reader: Reader) -> None:
        self._origin = origin
        self._reader = reader
        self._io: SocketIO | None = None
        self._exchange: Exchange | None = None
        self._response: ResponseParser | None = None
        self._waiter: Any = None
        self._timer = LazyTimer(gevent.get_hub().loop, self._on_timer)
        self._requests = RequestWriter(origin)
        self._began_ns = 0  # start of the exchange, before connecting
        self._previous_ns = 0  # arrival of the previous read, or the time of sending
        self._done_ns = 0  # arrival of [DONE]
        self._check_at_bytes = 0  # received bytes at which _on_check_due is next needed
        self._pace = ReadPace()

    def send(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, exchange: Exchange
    ) -> None:
        """Send a request, and return when its response has ended. ``exchange`` holds what happened.

        A long stream that is awaited has then been interpreted, too (``Reader.read``). Blocks this greenlet
        only. Never raises because of the network or the server. If the greenlet is killed, the connection
        closes and the exchange counts as cancelled. Raises ValueError for headers that cannot be sent.
        """
        if self._exchange is not None or exchange.done or exchange.sent_ns is not None:
            raise RuntimeError("a connection carries one exchange at a time, and an exchange is sent once")
        self._reader.read_arrived()
        request = self._requests.compose(method, path, headers, body)
        exchange.secrets = self._origin.secrets
        self._exchange = exchange
        self._began_ns, self._done_ns = time.monotonic_ns(), 0
        self._waiter = waiter = Waiter()
        try:
            if self._io is not None and self._io.is_stale():
                self._drop()
            while not exchange.done:
                waiter.clear()
                if (io := self._io or self._open(exchange)) is not None:
                    self._begin(io, request, exchange)
                if not exchange.done:
                    waiter.get()  # returns early if the request must be sent again
        except BaseException:
            if not exchange.done:  # killed (GreenletExit), or a Timeout of the caller
                self._fail(Fault.CANCELLED, "cancelled by the client")
            raise

    def close(self) -> None:
        """Close the connection. An exchange in progress ends as cancelled."""
        if self._exchange is not None:
            self._fail(Fault.CANCELLED, "connection closed by the client")
        self._timer.close()
        self._drop()

    def _on_readable(self) -> None:  # noqa: PLR0911, PLR0912, PLR0915 - a split costs a call per read
        """Timestamp and keep the arrived bytes. The event loop calls this for each read: keep it short."""
        io, exchange, response = self._io, self._exchange, self._response
        if io is None or exchange is None or response is None:
            # Idle: the server closed the connection or sends unrequested bytes, so it must not be reused.
            if io is not None and io.is_stale():
                self._drop()
            return
        recvmsg, feed = io.recvmsg, response.feed  # ``io.recvmsg(…)`` would be looked up as a method
        try:
            data, ancillary, _, _ = recvmsg(READ_BYTES, stamps.ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._on_lost(Fault.RESET, f"{read_failure(error)} {exchange.progress}")
            return
        arrival_ns, gap_ns, lag_ns = _CLOCK.arrival(ancillary, self._previous_ns)
        if not data:
            self._on_end(exchange, response)
            return
        self._previous_ns = arrival_ns
        size = len(data)
        received = exchange.bytes_received = exchange.bytes_received + size
        if io.tls is not None:
            try:
                data = io.decrypt(data)
            except ssl.SSLError as error:
                self._fail(Fault.TLS, f"TLS failed: {error.reason or error.strerror}")
                return
            if not data:
                # Records of TLS itself, such as session tickets. They can predate the request.
                return
        if lag_ns > exchange.observer_lag_ns:
            exchange.observer_lag_ns = lag_ns
        elif lag_ns < 0:
            exchange.stamp = Stamp.USER
        try:
            feed(data)
        except BAD_BYTES as error:
            if not response.complete:
                self._fail(*response.failure(error))
                return
            # Bytes after the end: the response is complete, but the connection is suspect.
            response.keep_alive = False
            exchange.notes.append("bytes_after_end")
        arrivals = exchange.arrivals
        fresh = len(exchange.pieces) - len(arrivals)
        if fresh == 1:
            arrivals.append(arrival_ns)
        elif fresh:
            arrivals.extend([arrival_ns] * fresh)
        if response.complete:
            if exchange.headers_ns is None:
                exchange.headers_ns = arrival_ns
            self._finish(arrival_ns)
            return
        if fresh:  # headers alone say nothing about the gaps between events
            slow = gap_ns >= MIN_GAP_NS and fresh == 1 and size < READ_BYTES
            if not slow or not io.batched:
                self._pace.adapt(io, slow=slow and lag_ns >= 0)
        if received >= self._check_at_bytes:
            self._on_check_due(exchange, response, io, arrival_ns)
        # Searching every read for [DONE] would cost a tenth of the read. Most end a chunk of JSON.
        if fresh > 1 or (fresh and (size < MAX_SPLIT_DONE_BYTES or data[-5:-4] != b"}")):
            self._on_possible_done(exchange, data[-MAX_AFTER_DONE_BYTES:], fresh, arrival_ns)

    def _on_possible_done(self, exchange: Exchange, data: bytes, fresh: int, arrival_ns: int) -> None:
        """Grant the end of the body some time, if ``[DONE]`` has arrived and was not folded just now."""
        may_be_split = any(len(piece) < MAX_SPLIT_DONE_BYTES for piece in exchange.pieces[-1:])
        if (may_be_split or b"DONE]" in data) and not self._done_ns and exchange.ends_with_done(fresh):
            self._done_ns = arrival_ns
            self._set_timer(DONE_GRACE_S)

    def _on_check_due(
        self, exchange: Exchange, response: ResponseParser, io: SocketIO, arrival_ns: int
    ) -> None:
        """Record complete headers, enforce size limits, and fold. Few reads need this."""
        received = exchange.bytes_received
        if exchange.headers_ns is None:
            if response.final:
                exchange.headers_ns = arrival_ns
                self._check_at_bytes = FOLD_BYTES
                self._set_timer(self._origin.timeouts.between_events_s)
                self._reader.open_streams.add(exchange, self._on_finished)
            elif received > MAX_HEADER_BYTES:
                self._fail(Fault.HEADERS_TOO_LARGE, f"more than {MAX_HEADER_BYTES} bytes of headers")
                return
        if exchange.kept_bytes < FOLD_BYTES:
            return
        if overrun := exchange.overrun():
            self._fail(*overrun)
        elif exchange.is_event_stream:
            if exchange.kept_bytes >= PAUSE_BYTES:
                io.pause()
            self._reader.fold(exchange, self._on_folded)

    def _finish(self, end_ns: int) -> None:
        """End the exchange, keep or close the connection, and wake the sender."""
        exchange, response, io = self._exchange, self._response, self._io
        self._exchange = self._response = None
        self._timer.clear()
        if response is not None:
            response.close()
        if exchange is not None:
            exchange.end_ns = end_ns
            self._reader.open_streams.remove(exchange)
            if exchange.stamp is None and exchange.bytes_received:
                exchange.stamp = Stamp.KERNEL
        if io is not None:
            self._pace.ended_slow = io.batched
            if response is None or not response.complete or not response.keep_alive or io.unsent:
                self._drop()
            elif not self._pace.always_slow:
                io.resume()  # otherwise the next response is batched from its beginning if this one was
        if exchange is not None:
            self._reader.ended(exchange, self._waiter)

    def _fail(self, kind: Fault, message: str) -> None:
        if self._exchange is not None and not self._done_ns:
            self._exchange.failure = Failure(kind, message)
        if self._response is not None:
            self._response.keep_alive = False
        self._finish(self._done_ns or time.monotonic_ns())  # a failure after [DONE] damages nothing

    def _on_end(self, exchange: Exchange, response: ResponseParser) -> None:
        """Handle a connection closed by the server, which is how some responses end."""
        response.end()
        if response.complete:
            self._finish(self._previous_ns)
        else:
            self._on_lost(Fault.CLOSED_EARLY, f"connection closed by the server {exchange.progress}")

    def _on_lost(self, kind: Fault, message: str) -> None:
        """Handle a connection that broke. Send again if the server had closed it before the request."""
        exchange, response = self._exchange, self._response
        if exchange is None or response is None or response.started or not closed_before(exchange):
            self._fail(kind, message)
            return
        self._drop()
        response.close()
        self._response = exchange.sent_ns = None
        exchange.notes.append("sent_again")
        gevent.get_hub().loop.run_callback(self._waiter.switch, None)

    def _on_unsendable(self, reason: str) -> None:
        """Handle failed sending. The server may have responded before it stopped reading."""
        if self._response is not None:
            self._on_readable()
        if self._response is not None:
            self._on_lost(Fault.SEND, f"could not send: {reason}")
        self._drop()

    def _on_folded(self, exchange: Exchange, failure: Failure | None) -> None:
        if self._exchange is exchange:  # it can have ended before the fold
            self._check_at_bytes = exchange.bytes_received + FOLD_BYTES
            if failure is not None:
                self._fail(*failure)
            elif self._io is not None and self._io.paused:
                self._io.resume()

    def _on_finished(self, exchange: Exchange, end_ns: int) -> None:
        """End an exchange whose answer is complete and whose body the server keeps open."""
        self._on_readable()  # what arrived while the loop was busy may belong to it, such as the usage
        if self._exchange is exchange and not exchange.pieces:
            exchange.notes.append("open_after_finish")
            self._finish(end_ns)

    def _begin(self, io: SocketIO, request: bytes, exchange: Exchange) -> None:
        self._response = ResponseParser(exchange)
        self._pace.begin()
        self._check_at_bytes = 0
        if io.tls is not None:
            request = io.tls.encrypt(request)
        exchange.bytes_sent = len(request)
        exchange.sent_ns = self._previous_ns = time.monotonic_ns()
        self._set_timer(self._origin.timeouts.headers_s)
        io.write(request)

    def _set_timer(self, after_s: float) -> None:
        """Fire in ``after_s`` seconds, or when the total timeout is due if that is sooner."""
        total_left_s = self._origin.timeouts.total_s - (time.monotonic_ns() - self._began_ns) / 1e9
        self._timer.set(min(after_s, total_left_s))

    def _open(self, exchange: Exchange) -> SocketIO | None:
        opened = dial(self._origin, exchange)
        if isinstance(opened, Failure):
            self._fail(*opened)
            return None
        self._io = io = SocketIO(*opened, self._reader, self._on_readable, self._on_unsendable)
        io.resume()
        return io

    def _drop(self) -> None:
        if self._io is not None:
            self._io.close()
            self._io = None

    def _on_timer(self) -> None:
        """Fail the exchange if a timeout has passed, else wait for the nearest one.

        One timer serves all timeouts, so that a read need not set one.
        """
        paused = self._io is not None and self._io.paused
        if not paused:
            self._on_readable()  # bytes that arrived in time while the loop was busy are not a timeout
        exchange = self._exchange
        if exchange is None or exchange.sent_ns is None:
            return
        if self._done_ns:
            exchange.notes.append("open_after_done")
            self._finish(self._done_ns)
            return
        timeouts, now_ns = self._origin.timeouts, time.monotonic_ns()
        due = check_timeouts(exchange, self._began_ns, timeouts, self._previous_ns, now_ns, paused=paused)
        if not isinstance(due, Failure):
            self._timer.set(due)
        elif (end_ns := finished_ns(exchange, now_ns, grace_s=0)) is not None:
            self._on_finished(exchange, end_ns)  # the timeout is shorter than the grace period
        else:
            self._fail(*due)
