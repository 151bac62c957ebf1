"""The openai package's client over a user's connections, so that its requests are recorded as attempts."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import gevent
import httpx
import msgspec
from gevent import GreenletExit
from locust.exception import StopUser

from bltybench.errors import UserError
from bltybench.load.compose_call import compose_call
from bltybench.load.forwarded_request import ForwardedRequest, Pieces
from bltybench.load.recorder import ENDPOINT, CallContext
from bltybench.load.run.context import RunContext
from bltybench.scenario.api.access import OWN_HEADERS
from bltybench.scenario.api.routes import Route
from bltybench.scenario.prompts import tokens
from bltybench.wire.fault import TIMEOUTS
from bltybench.wire.http.connection import Connection
from bltybench.wire.http.timeouts import DONE_GRACE_S

try:
    from openai import OpenAI
except ImportError as error:
    raise UserError(
        "as_openai() needs the openai package", remedy="install it: pip install openai"
    ) from error

# The package logs each request, which a load test repeats a thousand times.
logging.getLogger("httpx").setLevel(logging.WARNING)

UNUSED_KEY = "the-target's-key-is-sent-instead"
RETRY_HEADER = "x-stainless-retry-count"
"""The package's header with the number of attempts of a call before this one."""
SENT_HEADERS = frozenset({"content-type"})
"""Headers that are forwarded although bltybench sets them otherwise."""
DROPPED_HEADERS = (OWN_HEADERS | {"authorization"}) - SENT_HEADERS


class Forwarder(Protocol):
    """What the transport needs of a user's client."""

    def forward(self, request: ForwardedRequest) -> None:
        """Send one attempt and record it."""


def openai_client(
    sender: Forwarder, context: RunContext, route: Route, name: str | None, options: Mapping[str, Any]
) -> OpenAI:
    """Return the package's client for a route's target and key. ``name`` is the row of its completions."""
    http_client = httpx.Client(transport=RecordingTransport(sender, context, route, name))
    target = context.upstreams[route.target].target
    settings = {"base_url": target.base_url, "api_key": UNUSED_KEY, "http_client": http_client}
    return OpenAI(**{**options, **settings})


class RecordingTransport(httpx.BaseTransport):
    """Sends each request as an attempt of the user, over a free connection or a new one."""

    def __init__(self, sender: Forwarder, context: RunContext, route: Route, name: str | None) -> None:
        self._sender = sender
        self._context = context
        self._route = route
        self._upstream = context.upstreams[route.target]
        self._name = name
        self._base = httpx.URL(self._upstream.target.base_url.rstrip("/"))
        self._connections: list[Connection] = []
        self._free: list[Connection] = []
        self._last: CallContext | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return its response when the body begins."""
        request.read()
        try:
            forwarded = self._forwarded(request)
            stream = RecordedStream(self._sender, forwarded, request, self._free.append)
            stream.wait_for_headers()
        except StopUser as stop:
            # The package retries after exceptions, but not after this one, which also ends the user.
            raise GreenletExit from stop
        status, headers = stream.head()
        return httpx.Response(status, headers=headers, stream=stream, request=request)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def _forwarded(self, request: httpx.Request) -> ForwardedRequest:
        retries = int(request.headers.get(RETRY_HEADER, "0"))
        last = self._last
        repeats = retries > 0 and last is not None and last.body == request.content
        call = self._last = last if repeats and last is not None else self._call(request)
        headers = [(name, value) for name, value in request.headers.items() if name not in DROPPED_HEADERS]
        access = self._upstream.access
        if not self._free:
            self._connections.append(Connection(self._upstream.origin, self._context.reader))
            self._free.append(self._connections[-1])
        return ForwardedRequest(
            call=call,
            number=retries if repeats else 0,
            headers=access.headers(headers, access.keys.get(self._route.key or "", access.key)),
            connection=self._free.pop(),
        )

    def _call(self, request: httpx.Request) -> CallContext:
        context, body = self._context, request.content
        path = self._path(request.url)
        if path == ENDPOINT:
            document = msgspec.json.decode(body, type=dict[str, Any])
            reported = not document.get("stream") or (document.get("stream_options") or {}).get(
                "include_usage"
            )
            prompt_tokens = None if reported else tokens.count_messages(document.get("messages", ()))
            call = compose_call(
                context,
                self._route,
                context.next_call_id(),
                document,
                name=self._name,
                prompt_tokens=prompt_tokens,
            )
            return msgspec.structs.replace(call, body=body)
        if request.method != "GET" and self._upstream.budget.counts_tokens:
            context.abort(
                UserError(
                    f"a request to {path[:60]} can't be bounded, but the budget caps tokens or money",
                    remedy="cap requests only",
                )
            )
        return CallContext(
            route=self._route,
            call_id=context.next_call_id(),
            name=path.strip("/").partition("/")[0].partition("?")[0],
            body=body,
            stream=False,
            model=self._route.model,
            stage=context.source.stage_now(),
            method=request.method,
            endpoint=path,
        )

    def _path(self, url: httpx.URL) -> str:
        """Return the path after the target's address. Raise UserError for another address."""
        path, base_path = url.raw_path.decode("ascii"), self._base.path.rstrip("/")
        same = (url.scheme, url.host, url.port) == (self._base.scheme, self._base.host, self._base.port)
        if not same or not path.startswith(f"{base_path}/"):
            self._context.abort(
                UserError(
                    f"the OpenAI client can only send to its target, at {self._base}", where=str(url)[:200]
                )
            )
        return path.removeprefix(base_path)


class RecordedStream(httpx.SyncByteStream):
    """The body of a response, while it is received and recorded by a greenlet of its own.

    A client that stops reading cancels the request, except after ``[DONE]``.
    """

    def __init__(
        self,
        sender: Forwarder,
        forwarded: ForwardedRequest,
        request: httpx.Request,
        release: Callable[[Connection], None],
    ) -> None:
        self._forwarded = forwarded
        self._request = request
        self._raised: Exception | None = None
        self._done = False
        self._greenlet = gevent.spawn(self._send, sender, release)
        self._greenlet.link(lambda _: forwarded.pieces.arrived.set())

    def wait_for_headers(self) -> None:
        """Wait until the body begins or has ended. Raises what sending it raised."""
        if not self._pieces.unread:
            self._wait()
        if self._greenlet.ready() and self._raised is not None:
            raise self._raised

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Return status and headers. Raises an httpx error if there was no response."""
        exchange = self._forwarded.exchange
        if exchange is None or exchange.status is None:
            raise self._error("no response")
        return exchange.status, exchange.headers

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces of the body as they arrive. Raises an httpx error if it does not end properly."""
        unread = self._pieces.unread
        while True:
            while unread:
                piece = unread.popleft()
                self._done = self._done or b"[DONE]" in piece
                yield piece
            if self._greenlet.ready():
                break
            self._wait()
        if self._raised is not None:
            raise self._raised
        exchange = self._forwarded.exchange
        if exchange is not None and exchange.failure is not None:
            raise self._error(exchange.failure.message)

    def close(self) -> None:
        """Cancel the request unless its response has ended."""
        if self._done:
            self._greenlet.join(timeout=2 * DONE_GRACE_S)
        self._greenlet.kill()

    @property
    def _pieces(self) -> Pieces:
        return self._forwarded.pieces

    def _send(self, sender: Forwarder, release: Callable[[Connection], None]) -> None:
        try:
            sender.forward(self._forwarded)
        except Exception as error:  # noqa: BLE001 - it belongs to the user's greenlet, which waits for this
            self._raised = error
        finally:
            release(self._forwarded.connection)

    def _wait(self) -> None:
        """Wait for a piece or the end. If the user is stopped meanwhile, the request is cancelled."""
        arrived = self._pieces.arrived
        arrived.clear()
        if self._pieces.unread or self._greenlet.ready():
            return
        try:
            arrived.wait()
        except BaseException:
            self._greenlet.kill()
            raise

    def _error(self, message: str) -> httpx.TransportError:
        exchange = self._forwarded.exchange
        failure = None if exchange is None else exchange.failure
        if failure is not None and failure.kind in TIMEOUTS:
            return httpx.ReadTimeout(failure.message, request=self._request)
        connected = exchange is not None and exchange.sent_ns is not None
        kind = httpx.ReadError if connected else httpx.ConnectError
        return kind(failure.message if failure else message, request=self._request)
