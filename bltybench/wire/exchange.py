"""One HTTP exchange while it goes on: times, status, headers, the bytes kept, and what went wrong."""

from __future__ import annotations

from array import array
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from bltybench.runs.attempt import Stamp

if TYPE_CHECKING:
    from bltybench.wire.interpret import Reading
    from bltybench.wire.sse.stream import StreamFold

MAX_HEADERS = 256
MAX_HEADER_BYTES = 64 * 1024
"""Up to the end of the final headers, interim answers included."""
MAX_PLAIN_BYTES = 16 * 1024 * 1024
MAX_STREAM_BYTES = 128 * 1024 * 1024


class Fault(StrEnum):
    """What ended an exchange, or spoilt its answer, on this side. Written as the record's error_type."""

    NAME = "name_resolution"
    CONNECT = "connect"
    TLS = "tls"
    TLS_VERIFICATION = "tls_verification"
    CONNECT_TIMEOUT = "connect_timeout"
    HEADERS_TIMEOUT = "headers_timeout"
    IDLE_TIMEOUT = "between_events_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    SEND = "send"
    RESET = "connection_reset"
    CLOSED_EARLY = "closed_early"
    BAD_HTTP = "bad_http"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    BODY_TOO_LARGE = "body_too_large"
    EVENT_TOO_LARGE = "event_too_large"
    TOO_MANY_EVENTS = "too_many_events"
    CONTENT_ENCODING = "content_encoding"
    REDIRECT = "redirect"
    NOT_JSON = "not_json"
    NOT_EVENT_STREAM = "not_event_stream"
    BAD_EVENT = "bad_event"
    MISSING_DONE = "missing_done"
    CANCELLED = "cancelled"


TIMEOUTS = frozenset({Fault.CONNECT_TIMEOUT, Fault.HEADERS_TIMEOUT, Fault.IDLE_TIMEOUT, Fault.TOTAL_TIMEOUT})


class Failure(NamedTuple):
    """Why an exchange did not run to its end. The message is ours, not the server's."""

    kind: Fault
    message: str


class Exchange:
    """One request and its answer. The caller makes it, a Connection fills it, a Reader reads it.

    It can be read at any moment, also after the greenlet that sent it was killed. Times are
    ``time.monotonic_ns`` (``connect_ns`` and ``tls_ns`` are durations); None is what did not happen.
    ``stream`` says whether server-sent events were asked for, ``keep_text`` whether the Reading shall
    hold the text, ``awaited`` whether who sends it needs the Reading to go on.
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
        "reading",
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
        # Body bytes as they came: pieces[i] arrived at arrivals[i]. A fold empties them.
        self.pieces: list[bytes] = []
        self.arrivals = array("q")
        self.folded_bytes = 0
        self.fold: StreamFold | None = None
        self.queued = False
        self.reading: Reading | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.end_ns is not None

    @property
    def observer_lag_us(self) -> int | None:
        """The longest that received bytes lay in the kernel before they were read; None if not known."""
        return self.observer_lag_ns // 1000 if self.observer_lag_ns >= 0 else None

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer is a successful one made of server-sent events, as was asked for."""
        return self.stream and self.status == 200 and "text/event-stream" in self.header("content-type")

    @property
    def progress(self) -> str:
        """How far the answer has come, in words."""
        if not self.bytes_received:
            reused = " (a kept-alive connection)" if self.connect_ns is None else ""
            return f"before any answer{reused}"
        if self.headers_ns is None:
            return "within the headers"
        return f"within the body, after {self.bytes_received} bytes"

    def header(self, name: str) -> str:
        """Return the first header of that (lower-case) name in lower case, or an empty string."""
        for key, value in self.headers:
            if key == name:
                return value.lower()
        return ""

    @property
    def kept_bytes(self) -> int:
        """How much has come since the last fold."""
        return self.bytes_received - self.folded_bytes

    def take_pieces(self) -> tuple[list[bytes], array[int]]:
        """Return the body's pieces kept so far and their arrivals, and keep them no longer."""
        # Without an arrival are pieces of a read that was not HTTP to its end.
        kept = self.pieces[: len(self.arrivals)], self.arrivals
        self.pieces.clear()  # the same list as before: the parser goes on filling it
        self.arrivals, self.folded_bytes = array("q"), self.bytes_received
        return kept
