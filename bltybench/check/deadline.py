"""Time limits of one request, however slowly its bytes arrive.

httpx limits the wait for each read only. A server that sends a byte now and then would be read indefinitely.
"""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self


class RequestDeadline:
    """Ends the connection of a request if the headers, or the whole response, take too long."""

    def __init__(self, headers_s: float, total_s: float) -> None:
        self.passed: str | None = None
        """What was not received in time."""
        self._headers_s = headers_s
        self._total = self._timer(total_s, f"not finished within {total_s:g} s")
        self._headers: threading.Timer | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        self._total.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._total.cancel()
        self._clear_headers()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Follow the request. httpx calls this before and after each of its steps."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
        elif event.endswith(".send_request_headers.started"):
            self._clear_headers()
            self._headers = self._timer(self._headers_s, f"no headers within {self._headers_s:g} s")
            self._headers.start()
        elif event.endswith(".receive_response_headers.complete"):
            self._clear_headers()

    def _timer(self, after_s: float, message: str) -> threading.Timer:
        timer = threading.Timer(after_s, self._end, [message])
        timer.daemon = True
        return timer

    def _clear_headers(self) -> None:
        if self._headers is not None:
            self._headers.cancel()

    def _end(self, message: str) -> None:
        self.passed = self.passed or message
        if self._socket is not None:
            with suppress(OSError):  # it was closed just now
                # Not the method of a TLS socket: that one would change state that the reader uses.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
