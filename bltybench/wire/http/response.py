"""llhttp callbacks for one response: final status and headers, pieces of the body, end of the message."""

from collections.abc import Callable
from functools import lru_cache

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from bltybench.wire.exchange import MAX_HEADERS, Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.http.header_repair import repair_head

BAD_BYTES = (HttpParserError, HttpParserUpgrade)
"""Exceptions of ``feed``: bytes that are not HTTP, bytes after the end, or a protocol upgrade."""


@lru_cache(maxsize=512)
def _lower(name: bytes) -> str:
    """Return a header name in lower case. Responses repeat the same few."""
    return name.decode("latin-1").lower()


class ResponseParser:
    """Parses one final response into an Exchange, and skips interim responses (1xx).

    ``final`` is whether the headers of the final response are complete, ``complete`` whether the message is.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.final = False
        self.complete = False
        self.keep_alive = False
        self.too_many_headers = False
        self._exchange = exchange
        # Called for every chunk of a body, so this is list.append itself and not a method.
        self.on_body = exchange.pieces.append
        self._parser = HttpResponseParser(self)
        self._head = bytearray()
        self._rejected: Exception | None = None
        self.feed: Callable[[bytes], None] = self._feed_head

    def _feed_head(self, data: bytes) -> None:
        """Parse until the headers are complete. Repair headers that the parser rejects."""
        if self._rejected is None:
            try:
                self._parser.feed_data(data)
            except HttpParserError as error:
                if self.final or self.too_many_headers:
                    raise
                self._rejected = error
        if self.final:
            self.feed = self._parser.feed_data
            return
        self._head += data
        if self._rejected is not None:
            self._parse_repaired(self._rejected)

    def _parse_repaired(self, rejected: Exception) -> None:
        try:
            head = repair_head(bytes(self._head))
        except ValueError:
            raise rejected from None
        if head is None:
            return
        exchange = self._exchange
        exchange.headers.clear()
        exchange.notes.append("bad_header")
        self._parser = HttpResponseParser(self)
        self.feed = self._parser.feed_data
        try:
            self.feed(head.data)
        finally:
            if not self.final and not self.too_many_headers:  # the headers contradict each other
                exchange.status = head.status
                exchange.headers[:] = [
                    (_lower(name), value.decode("latin-1")) for name, value in head.headers
                ]

    @property
    def started(self) -> bool:
        """Whether any byte of a response has arrived."""
        return self.final or bool(self._head)

    def close(self) -> None:
        """Break the reference cycle with the parser. The garbage collector runs rarely during a run."""
        del self._parser, self.feed

    def end(self) -> None:
        """Handle the end of the connection, which completes a response without a length (RFC 9112, 6.3)."""
        coding = self._exchange.header("transfer-encoding")
        chunked = coding.rsplit(",", 1)[-1].strip() == "chunked"
        sized = not coding and any(name == "content-length" for name, _ in self._exchange.headers)
        if self.final and not chunked and not sized:
            self.complete = True

    def failure(self, error: Exception) -> Failure:
        """Return why ``feed`` raised ``error``."""
        if self.too_many_headers:
            return Failure(Fault.TOO_MANY_HEADERS, f"more than {MAX_HEADERS} headers")
        return Failure(Fault.BAD_HTTP, f"not HTTP/1.1: {error.args[0] if error.args else error}")

    def on_message_begin(self) -> None:
        """Reject bytes after the end. The parser turns any exception into its own."""
        if self.complete:
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers are skipped: nothing is measured from them."""
        if self.final:
            return
        headers = self._exchange.headers
        if len(headers) == MAX_HEADERS:
            self.too_many_headers = True
            raise ValueError
        headers.append((_lower(name), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Record the status of the final response."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._exchange.headers.clear()
            return
        self.final = True
        self._exchange.status = status

    def on_message_complete(self) -> None:
        """Record that the response is complete."""
        if self.final:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive() and self._rejected is None
