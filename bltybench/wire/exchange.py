"""One HTTP exchange in progress: times, status, headers, received bytes, and the failure, if any."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field

from bltybench.runs.attempt import Stamp
from bltybench.wire.content_encoding import CODINGS, MAX_DECOMPRESSED_BYTES, BodyDecoder
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.result import ExchangeResult
from bltybench.wire.sse.stream import StreamFold

MAX_HEADERS = 256
MAX_HEADER_BYTES = 64 * 1024
"""Limit for everything up to the end of the final headers, 1xx responses included."""
MAX_PLAIN_BYTES = MAX_DECOMPRESSED_BYTES
MAX_STREAM_BYTES = 128 * 1024 * 1024
MAX_AFTER_DONE_BYTES = 1024
"""End of a read in which ``[DONE]`` is searched. Little follows it, and reads can be long."""
MAX_SPLIT_DONE_BYTES = 64
"""Reads below this size can hold the rest of a split ``[DONE]``."""


_SNIFFED_PIECES = 16
"""Pieces in which the beginning of a body, or a split ``[DONE]``, is searched."""
_SNIFFED_BYTES = 256
_EVENT_STREAM = re.compile(rb"(\xef\xbb\xbf)?\s*((data|event|id|retry)[ \t]*:|:)")
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*[{\[]")
_DONE_LINE = re.compile(rb"data:[ \t]*\[DONE\][ \t]*(?:[\r\n]|\Z)")


@dataclass(kw_only=True, eq=False, slots=True, weakref_slot=True)
class Exchange:
    """One request and its response. The caller creates it, a Connection fills it, a Reader interprets it.

    It can be interpreted at any time, even after the greenlet that sent it was killed. Times are
    ``time.monotonic_ns`` (``connect_ns`` and ``tls_ns`` are durations); None is what did not happen.
    ``stream`` is whether server-sent events were requested, ``keep_text`` whether the result holds the text,
    ``awaited`` whether the sender needs the result before it can continue, ``completion`` whether a
    completion was requested, ``can_be_empty`` whether it can end before its first character, at a stop
    string.
    """

    stream: bool = False
    keep_text: bool = True
    awaited: bool = True
    completion: bool = True
    can_be_empty: bool = False
    connect_ns: int | None = None
    tls_ns: int | None = None
    sent_ns: int | None = None
    headers_ns: int | None = None
    end_ns: int | None = None
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Names in lower case, with their values."""
    failure: Failure | None = None
    stamp: Stamp | None = None
    observer_lag_ns: int = -1
    bytes_sent: int = 0
    bytes_received: int = 0
    secrets: tuple[str, ...] = ()
    pieces: list[bytes] = field(default_factory=list)
    """Body bytes as received: ``pieces[i]`` arrived at ``arrivals[i]``. A fold empties both."""
    arrivals: array[int] = field(default_factory=lambda: array("q"))
    folded_bytes: int = 0
    fold: StreamFold | None = None
    queued: bool = False
    notes: list[str] = field(default_factory=list)
    """Deviations that the connection found, by the names of docs/dialects.md."""
    result: ExchangeResult | None = None
    decoder: BodyDecoder | None = None
    """Of a compressed body."""
    _encoding: str | None = None

    @property
    def encoding(self) -> str:
        """Content coding of the body, in lower case; empty if it has none."""
        if self._encoding is None:
            coding = self.header("content-encoding").strip()
            self._encoding = "" if coding == "identity" else coding
            if self._encoding in CODINGS:
                self.decoder = BodyDecoder()
        return self._encoding

    @property
    def body(self) -> bytes:
        """The body received since the last fold, decompressed."""
        data = b"".join(self.pieces)
        return BodyDecoder().decode(data) if self.encoding in CODINGS else data

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
        """Whether the response is a stream of server-sent events, requested or not.

        The body decides if it begins as one or as JSON, because servers and proxies get Content-Type wrong.
        """
        if self.fold is not None:
            return True
        if not self.completion or self.status is None or not 200 <= self.status < 300:
            return False
        pieces = self.pieces
        if pieces and pieces[0].startswith(b"data:") and not self.encoding:
            return True
        if self.encoding:
            start = BodyDecoder(_SNIFFED_BYTES).decode(b"".join(pieces[:_SNIFFED_PIECES]))
        else:
            start = b"".join(piece[:_SNIFFED_BYTES] for piece in pieces[:_SNIFFED_PIECES])
        if _EVENT_STREAM.match(start):
            return True
        announced = self.stream and "text/event-stream" in self.header("content-type")
        return announced and not _JSON.match(start)

    def overrun(self) -> Failure | None:
        """Return the size limit that the response exceeds, if any."""
        kind, limit = ("stream", MAX_STREAM_BYTES) if self.is_event_stream else ("response", MAX_PLAIN_BYTES)
        if self.bytes_received <= limit:
            return None
        return Failure(Fault.BODY_TOO_LARGE, f"more than {limit} bytes of {kind}")

    def ends_with_done(self, fresh: int) -> bool:
        """Return whether ``[DONE]`` is in the last ``fresh`` pieces, or ends in them."""
        recent = b"".join(self.pieces[-fresh - _SNIFFED_PIECES :])
        at = recent.rfind(b"[DONE]")  # searching the end for a fixed text is much faster than for the line
        line = max(recent.rfind(b"\n", 0, at), recent.rfind(b"\r", 0, at)) + 1
        return at >= 0 and bool(_DONE_LINE.match(recent, line)) and self.is_event_stream

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
        """Return the kept pieces of the body, decompressed, and their arrivals. Stop keeping them."""
        # Pieces without an arrival are from a read that turned out not to be HTTP.
        pieces, arrivals = self.pieces[: len(self.arrivals)], self.arrivals
        self.pieces.clear()  # keep the list itself: the parser appends to it
        self.arrivals, self.folded_bytes = array("q"), self.bytes_received
        if self.encoding and self.decoder is not None:
            pieces = [self.decoder.decode(piece) for piece in pieces]
        return pieces, arrivals
