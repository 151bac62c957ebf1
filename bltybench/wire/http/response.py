"""llhttp's callbacks for one answer: final status and headers, body pieces, end of the message."""

from __future__ import annotations

from functools import lru_cache

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from bltybench.wire.exchange import MAX_HEADERS, Exchange

BAD_BYTES = (HttpParserError, HttpParserUpgrade)
"""What ``feed`` raises: for bytes that are not HTTP, for what follows the end, for a switch of protocols."""


@lru_cache(maxsize=512)
def _lower(name: bytes) -> str:
    """Return a header's name in lower case; answers have the same few again and again."""
    return name.decode("latin-1").lower()


class ResponseParser:
    """Parses one final answer into an Exchange; interim answers (1xx) are passed over.

    ``final``: the headers of the final answer are complete. ``complete``: so is the message.
    """

    __slots__ = (
        "_exchange",
        "_parser",
        "complete",
        "feed",
        "final",
        "keep_alive",
        "on_body",
        "too_many_headers",
    )

    def __init__(self, exchange: Exchange) -> None:
        self.final = False
        self.complete = False
        self.keep_alive = False
        self.too_many_headers = False
        self._exchange = exchange
        # Called for every chunk of a body, so not a method of ours: list.append itself.
        self.on_body = exchange.pieces.append
        self._parser = HttpResponseParser(self)
        self.feed = self._parser.feed_data

    def close(self) -> None:
        """Let go of the parser: it holds this and this holds it, and the collector comes late in a run."""
        del self._parser, self.feed

    def end(self) -> None:
        """The connection has ended, and with it an answer that said neither its length nor that it is chunked
        (RFC 9112, 6.3)."""
        coding = self._exchange.header("transfer-encoding")
        chunked = coding.rsplit(",", 1)[-1].strip() == "chunked"
        sized = not coding and any(name == "content-length" for name, _ in self._exchange.headers)
        if self.final and not chunked and not sized:
            self.complete = True

    def on_message_begin(self) -> None:
        """Refuse what comes after the end. The exception ends the feed; its type does not get through."""
        if self.complete:
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are passed over, nothing here is measured from them."""
        if self.final:
            return
        headers = self._exchange.headers
        if len(headers) == MAX_HEADERS:
            self.too_many_headers = True
            raise ValueError
        headers.append((_lower(name), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Note the status of the final answer."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._exchange.headers.clear()
            return
        self.final = True
        self._exchange.status = status

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.final:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()
