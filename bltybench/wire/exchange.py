"""One HTTP exchange in progress: times, status, headers, received bytes, and the failure, if any."""

from __future__ import annotations

from array import array

from bltybench.runs.attempt import Stamp
from bltybench.wire.fault import Failure
from bltybench.wire.result import ExchangeResult
from bltybench.wire.sse.stream import StreamFold

MAX_HEADERS = 256
MAX_HEADER_BYTES = 64 * 1024
"""Limit for everything up to the end of the final headers, 1xx responses included."""
MAX_PLAIN_BYTES = 16 * 1024 * 1024
MAX_STREAM_BYTES = 128 * 1024 * 1024


class Exchange:
    """One request and its response. The caller creates it, a Connection fills it, a Reader interprets it.

    It can be interpreted at any time, even after the greenlet that sent it was killed. Times are
    ``time.monotonic_ns`` (``connect_ns`` and ``tls_ns`` are durations); None is what did not happen.
    ``stream`` is whether server-sent events were requested, ``keep_text`` whether the result holds the text,
    ``awaited`` whether the sender needs the result before it can continue.
    """

    __slots__ = (
        "__weakref__",
        "arrivals",
        "awaited",
        "bytes_received",
        "bytes_sent",
        "connect_ns",
        "end_ns",
        "failure",
        "fold",
        "folded_bytes",
        "headers",
        "headers_ns",
        "keep_text",
        "observer_lag_ns",
        "pieces",
        "queued",
        "result",
        "secrets",
        "sent_ns",
        "stamp",
        "status",
        "stream",
        "tls_ns",
    )

    def __init__(self, *, stream: bool = False, keep_text: bool = True, awaited: bool = True) -> None:
        self.stream = stream
        self.keep_text = keep_text
        self.awaited = awaited
        self.connect_ns: int | None = None
        self.tls_ns: int | None = None
        self.sent_ns: int | None = None
        self.headers_ns: int | None = None
        self.end_ns: int | None = None
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []  # names in lower case
        self.failure: Failure | None = None
        self.stamp: Stamp | None = None
        self.observer_lag_ns = -1
        self.bytes_sent = 0
        self.bytes_received = 0
        self.secrets: tuple[str, ...] = ()
        # Body bytes as received: pieces[i] arrived at arrivals[i]. A fold empties them.
        self.pieces: list[bytes] = []
        self.arrivals = array("q")
        self.folded_bytes = 0
        self.fold: StreamFold | None = None
        self.queued = False
        self.result: ExchangeResult | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, with success or without."""
        return self.end_ns is not None

    @property
    def observer_lag_us(self) -> int | None:
        """Longest time that received bytes waited in the kernel, in microseconds; None if unknown."""
        return self.observer_lag_ns // 1000 if self.observer_lag_ns >= 0 else None

    @property
    def is_event_stream(self) -> bool:
        """Whether the response is the requested stream of server-sent events."""
        return self.stream and self.status == 200 and "text/event-stream" in self.header("content-type")

    @property
    def progress(self) -> str:
        """How far the response got, for messages."""
        if not self.bytes_received:
            reused = " (a kept-alive connection)" if self.connect_ns is None else ""
            return f"before any response{reused}"
        if self.headers_ns is None:
            return "within the headers"
        return f"within the body, after {self.bytes_received} bytes"

    @property
    def kept_bytes(self) -> int:
        """Bytes received since the last fold."""
        return self.bytes_received - self.folded_bytes

    def header(self, name: str) -> str:
        """Return the lower-case value of the first header called ``name`` (lower case), or ""."""
        for key, value in self.headers:
            if key == name:
                return value.lower()
        return ""

    def take_pieces(self) -> tuple[list[bytes], array[int]]:
        """Return the kept pieces of the body and their arrivals, and stop keeping them."""
        # Pieces without an arrival are from a read that turned out not to be HTTP.
        kept = self.pieces[: len(self.arrivals)], self.arrivals
        self.pieces.clear()  # keep the list itself: the parser appends to it
        self.arrivals, self.folded_bytes = array("q"), self.bytes_received
        return kept
