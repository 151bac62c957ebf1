"""One user's connection to a chat API: a socket read by a callback of the event loop, not by a greenlet.

A greenlet that reads a socket costs two switches a read and stands in the queue behind every other one.
Here the event loop calls ``_on_readable``, which stamps and keeps the bytes and does nothing that can
wait; the greenlet that sent the request is woken once, when the exchange has ended.
"""

from __future__ import annotations

import errno
import os
import ssl
import time
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.hub import Waiter

from bltybench.runs.attempt import Stamp
from bltybench.wire import stamps
from bltybench.wire.exchange import (
    MAX_HEADER_BYTES,
    MAX_PLAIN_BYTES,
    MAX_STREAM_BYTES,
    Exchange,
    Failure,
    Fault,
)
from bltybench.wire.http.dial import dial
from bltybench.wire.http.origin import Origin
from bltybench.wire.http.request import RequestWriter
from bltybench.wire.http.response import BAD_BYTES, ResponseParser
from bltybench.wire.http.socket_io import READ_BYTES, SocketIO
from bltybench.wire.scheduling.batched_reads import FAR_NS, FAR_READS, FAR_READS_AGAIN
from bltybench.wire.scheduling.lazy_timer import LazyTimer
from bltybench.wire.scheduling.reader import Reader

FOLD_BYTES = 32 * 1024
"""A stream that has kept this much is folded (parsed so far) behind the reads."""
PAUSE_BYTES = 8 * FOLD_BYTES
"""A stream that has kept this much is not read further until it is folded: memory stays bounded."""

_CLOCK = stamps.StampClock()
stamps.keep_stamping()


class Connection:
    """One keep-alive connection, used by one greenlet at a time.

    A connection that the server has closed while idle is noticed before sending and opened anew. One
    that it closes while the request is under way is a failure: the request may have been processed, so
    it is not sent twice.
    """

    def __init__(self, origin: Origin, reader: Reader) -> None:
        self._origin = origin
        self._reader = reader
        self._loop = gevent.get_hub().loop
        self._link: SocketIO | None = None
        self._exchange: Exchange | None = None
        self._response: ResponseParser | None = None
        self._waiter: Any = None
        self._alarm = LazyTimer(self._loop, self._on_alarm)
        self._requests = RequestWriter(origin)
        self._floor_ns = 0
        self._much_at = 0  # an answer of this many bytes needs what few reads need
        self._far_reads = 0
        self._was_slow = self._always_slow = False

    def send(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, exchange: Exchange
    ) -> None:
        """Send a request and wait for the end of its answer; what happened is in ``exchange``.

        Returns when it has ended; a stream that is long enough and awaited has been read then, too
        (``Reader.read``). Blocks this greenlet only. Network and server cannot make it raise. Killing the
        greenlet closes the connection and marks the exchange cancelled. Raises ValueError for headers that
        cannot be sent.
        """
        if self._exchange is not None or exchange.done or exchange.sent_ns is not None:
            raise RuntimeError("a connection carries one exchange at a time, and an exchange is sent once")
        request = self._requests.compose(method, path, headers, body)
        exchange.secrets = self._origin.secrets
        self._exchange = exchange
        self._waiter = waiter = Waiter()
        try:
            link = self._link
            if link is not None and link.is_stale():
                self._drop_link()
                link = None
            if link is None:
                link = self._open(exchange)
            if link is not None:
                self._begin(link, request, exchange)
            if not exchange.done:
                waiter.get()
        except BaseException:
            # Killed (GreenletExit), or a Timeout of the caller's: nobody waits for this answer any more.
            if not exchange.done:
                self._fail(Fault.CANCELLED, "given up by this side")
            raise

    def close(self) -> None:
        """Close the connection; an exchange under way ends as cancelled."""
        if self._exchange is not None:
            self._fail(Fault.CANCELLED, "connection closed by this side")
        self._alarm.close()
        self._drop_link()

    # -- the hot path ----------------------------------------------------------------------------------

    def _on_readable(self) -> None:  # noqa: PLR0911, PLR0912 - each split would cost a call on every read
        """Stamp and keep what has arrived. Called by the event loop for each read: keep it short."""
        link, exchange, response = self._link, self._exchange, self._response
        if link is None or exchange is None or response is None:
            # Idle: the server closed the connection or speaks unasked, so it must not be used again.
            if link is not None and link.is_stale():
                self._drop_link()
            return
        # Called by names of their own: ``link.recvmsg(…)`` is looked up anew each time, as a method might be.
        recvmsg, feed = link.recvmsg, response.feed
        try:
            data, ancillary, _, _ = recvmsg(READ_BYTES, stamps.ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._on_lost(error, exchange)
            return
        arrival_ns, gap_ns, lag_ns = _CLOCK.arrival(ancillary, self._floor_ns)
        if not data:
            self._on_end(exchange, response)
            return
        self._floor_ns = arrival_ns
        size = len(data)
        received = exchange.bytes_received = exchange.bytes_received + size
        if link.tls is not None:
            data = self._decrypted(link, data, response)
            if not data:
                return
        if lag_ns > exchange.observer_lag_ns:
            exchange.observer_lag_ns = lag_ns
        elif lag_ns < 0:
            exchange.stamp = Stamp.USER
        try:
            feed(data)
        except BAD_BYTES as error:
            if not response.complete:
                self._on_bad_bytes(error, response)
                return
            response.keep_alive = False  # bytes after the end: the answer is whole, the connection suspect
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
        if fresh:  # headers alone say nothing of how far apart events are
            far = gap_ns >= FAR_NS and fresh == 1 and size < READ_BYTES
            if not far or not link.in_rounds:
                self._on_pace(link, slow=far and lag_ns >= 0)
        if received >= self._much_at:
            self._on_much(exchange, response, link, arrival_ns)

    def _decrypted(self, link: SocketIO, data: bytes, response: ResponseParser) -> bytes:
        """Return the bytes of HTTP in ``data``: none in what TLS sends for itself, such as session tickets.

        Those may have come before the request was sent, so that their stamps say nothing of the answer.
        """
        try:
            return link.decrypt(data)
        except ssl.SSLError as error:
            self._on_bad_bytes(error, response)
            return b""

    def _on_pace(self, link: SocketIO, *, slow: bool) -> None:
        """See whether a stream is slow: reads of one piece each, far apart, stamped by the kernel.

        The read that completes an answer is not judged: servers write the last events together.
        """
        if not slow:
            self._far_reads, self._always_slow = 0, False
            if link.in_rounds:
                link.resume()
            return
        self._far_reads += 1
        if self._far_reads >= (FAR_READS_AGAIN if self._was_slow else FAR_READS):
            link.read_in_rounds()

    def _on_much(self, exchange: Exchange, response: ResponseParser, link: SocketIO, arrival_ns: int) -> None:
        """What few reads need: note complete headers, and bound what an answer may hold."""
        received = exchange.bytes_received
        if exchange.headers_ns is None:
            if response.final:
                exchange.headers_ns = arrival_ns
                self._much_at = FOLD_BYTES
            elif received > MAX_HEADER_BYTES:
                self._fail(Fault.HEADERS_TOO_LARGE, f"more than {MAX_HEADER_BYTES} bytes of headers")
                return
        if exchange.kept_bytes < FOLD_BYTES:
            return
        if not exchange.is_event_stream:
            if received > MAX_PLAIN_BYTES:
                self._fail(Fault.BODY_TOO_LARGE, f"more than {MAX_PLAIN_BYTES} bytes of answer")
        elif received > MAX_STREAM_BYTES:
            self._fail(Fault.BODY_TOO_LARGE, f"more than {MAX_STREAM_BYTES} bytes of stream")
        else:
            if exchange.kept_bytes >= PAUSE_BYTES:
                link.pause()
            self._reader.fold(exchange, self._on_folded)

    # -- ending -----------------------------------------------------------------------------------------

    def _finish(self, end_ns: int) -> None:
        """End the exchange, keep or close the connection, and wake who waits."""
        exchange, response, link = self._exchange, self._response, self._link
        self._exchange = self._response = None
        self._alarm.clear()
        if response is not None:
            response.close()
        if exchange is not None:
            exchange.end_ns = end_ns
            if exchange.stamp is None and exchange.bytes_received:
                exchange.stamp = Stamp.KERNEL
        if link is not None:
            self._was_slow = link.in_rounds
            if response is None or not response.complete or not response.keep_alive or link.unsent:
                self._drop_link()
            elif not self._always_slow:
                link.resume()  # else the next one is read in rounds from its beginning, if this one was
        if exchange is not None:
            self._reader.ended(exchange, self._waiter)

    def _fail(self, kind: Fault, message: str) -> None:
        if self._exchange is not None:
            self._exchange.failure = Failure(kind, message)
        if self._response is not None:
            self._response.keep_alive = False
        self._finish(time.monotonic_ns())

    def _on_end(self, exchange: Exchange, response: ResponseParser) -> None:
        """The server closed the connection: the end of some answers, too early for the others."""
        response.end()
        if response.complete:
            self._finish(self._floor_ns)
        else:
            self._fail(Fault.CLOSED_EARLY, f"connection closed by the server {exchange.progress}")

    def _on_lost(self, error: OSError, exchange: Exchange) -> None:
        reset = error.errno == errno.ECONNRESET
        what = "connection reset by the server" if reset else os.strerror(error.errno or 0)
        self._fail(Fault.RESET, f"{what} {exchange.progress}")

    def _on_unsendable(self, reason: str) -> None:
        """Sending failed; but the server may have answered before it stopped listening."""
        if self._exchange is not None:
            self._on_readable()
        if self._exchange is not None:
            self._fail(Fault.SEND, f"could not send: {reason}")
        self._drop_link()

    def _on_bad_bytes(self, error: Exception, response: ResponseParser) -> None:
        if response.too_many_headers:
            self._fail(Fault.TOO_MANY_HEADERS, "more headers than are kept")
        elif isinstance(error, ssl.SSLError):
            self._fail(Fault.TLS, f"TLS failed: {error.reason or error.strerror}")
        else:
            self._fail(Fault.BAD_HTTP, f"not HTTP/1.1: {error.args[0] if error.args else error}")

    def _on_folded(self, exchange: Exchange, failure: Failure | None) -> None:
        """Called by the reader after a fold; meanwhile the exchange may have ended."""
        if self._exchange is exchange:
            self._much_at = exchange.bytes_received + FOLD_BYTES
            if failure is not None:
                self._fail(*failure)
            elif self._link is not None and self._link.paused:
                self._link.resume()

    # -- beginning --------------------------------------------------------------------------------------

    def _begin(self, link: SocketIO, request: bytes, exchange: Exchange) -> None:
        self._response = ResponseParser(exchange)
        self._far_reads, self._always_slow = 0, True
        self._much_at = 0
        if link.tls is not None:
            request = link.tls.encrypt(request)
        timeouts = self._origin.timeouts
        self._alarm.set(min(timeouts.headers_s, timeouts.total_s))
        exchange.bytes_sent = len(request)
        exchange.sent_ns = self._floor_ns = time.monotonic_ns()
        link.write(request)

    def _open(self, exchange: Exchange) -> SocketIO | None:
        opened = dial(self._origin, exchange, self._loop, self._attach)
        if isinstance(opened, Failure):
            self._fail(*opened)
            return None
        opened.resume()
        return opened

    def _attach(self, connected: Any) -> SocketIO:
        self._link = SocketIO(
            connected, self._loop, self._on_readable, self._on_unsendable, self._reader.rounds
        )
        return self._link

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    # -- timeouts ---------------------------------------------------------------------------------------

    def _on_alarm(self) -> None:
        """One alarm for all bounds: when it rings, see which is due, and else wait for the nearest.

        So a read costs no timer of its own.
        """
        paused = self._link is not None and self._link.paused
        if not paused:
            self._on_readable()  # bytes that came in time while the loop was busy are not a timeout
        exchange = self._exchange
        if exchange is None or exchange.sent_ns is None:
            return
        timeouts = self._origin.timeouts
        now_ns = time.monotonic_ns()
        total_left_s = timeouts.total_s - (now_ns - exchange.sent_ns) / 1e9
        if exchange.headers_ns is None:
            kind, bound_s, since_ns = Fault.HEADERS_TIMEOUT, timeouts.headers_s, exchange.sent_ns
        else:
            kind, bound_s, since_ns = Fault.IDLE_TIMEOUT, timeouts.between_events_s, self._floor_ns
        left_s = bound_s - (now_ns - since_ns) / 1e9
        if total_left_s <= 0:
            self._fail(Fault.TOTAL_TIMEOUT, f"not finished within {timeouts.total_s:g} s")
        elif left_s <= 0 and not paused:
            what = "no headers" if kind is Fault.HEADERS_TIMEOUT else "nothing received"
            self._fail(kind, f"{what} for {bound_s:g} s")
        else:
            self._alarm.set(min(total_left_s, max(left_s, 0.001)))
