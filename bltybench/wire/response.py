"""llhttp's callbacks for one answer: final status and headers, body pieces, end of the message."""

from __future__ import annotations

from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from bltybench.wire.exchange import MAX_HEADERS, Exchange


class TrailingDataError(Exception):
    """Bytes came after the end of the message."""


class ResponseParser(HTTPResponseParser):
    """Parses one final answer into an Exchange; interim answers (1xx) are passed over.

    ``final``: the headers of the final answer are complete. ``complete``: so is the message.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.final = False
        self.complete = False
        self.keep_alive = False
        self.too_many_headers = False
        self._exchange = exchange
        self._headers = exchange.headers
        self._name = ""
        self._value: str | None = None
        # A bound C method in place of a Python one: a busy stream has one body callback a chunk.
        self._on_body = exchange.pieces.append

    def _on_message_begin(self) -> None:
        if self.complete:
            raise TrailingDataError

    def _on_status(self, text: str) -> None:
        """Pass over the reason phrase; the parser insists on the method."""

    def _on_header_field(self, text: str) -> None:
        if self._value is not None:
            self._store_header()
        self._name += text

    def _on_header_value(self, text: str) -> None:
        self._value = text if self._value is None else self._value + text

    def _store_header(self) -> None:
        if self.final:
            pass  # trailers: nothing here is measured from them
        elif len(self._headers) < MAX_HEADERS:
            self._headers.append((self._name, self._value or ""))
        else:
            self.too_many_headers = True
            raise HTTPParseError("too many headers")
        self._name, self._value = "", None

    def _on_headers_complete(self) -> None:
        if self._name:
            self._store_header()
        status = self.get_code()
        if 100 <= status < 200:
            self._headers.clear()
            return
        self.final = True
        self._exchange.status = status

    def _on_message_complete(self) -> None:
        if self.final:
            self.complete = True
            self.keep_alive = self.should_keep_alive()
