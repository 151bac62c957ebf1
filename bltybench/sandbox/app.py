"""The sandbox application: routes, errors in the API's format, and a log row per exchange."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bltybench.sandbox.chat import ChatEndpoint, send_whole
from bltybench.sandbox.counting import PromptCounter
from bltybench.sandbox.errors import ApiError, ClientGone, no_model, server_error
from bltybench.sandbox.keys import KeyRing
from bltybench.sandbox.quota import Quotas, unix_s
from bltybench.sandbox.truth import TruthLog, TruthRow
from bltybench.scenario.target import SandboxSettings

FLUSH_S = 0.25
"""Interval between log writes, in seconds."""

ABOUT = (
    "bltybench sandbox: a BLTYAPI look-alike on this machine, for load tests. Completions are random words.\n"
    "POST /v1/chat/completions, GET /v1/models.\n"
)

logger = logging.getLogger(__name__)


class Exchanges:
    """Outermost ASGI layer: gives each exchange its x-request-id and log row, and turns errors into
    responses."""

    def __init__(self, app: ASGIApp, log: TruthLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{os.urandom(12).hex()}"
        path: str = scope["path"]
        row = TruthRow(request_id=request_id, path=path[:200], received_ns=time.monotonic_ns())
        scope.setdefault("state", {})["row"] = row
        id_header = (b"x-request-id", request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], id_header]
                row.status = message["status"]
            await send(message)

        try:
            await self._answer(row, scope, receive, send_with_id)
        except (ClientGone, asyncio.CancelledError):
            # Cancelled: the sandbox itself was stopped during the exchange.
            row.disconnected = True
        finally:
            row.end_ns = time.monotonic_ns()
            self._log.add(row)

    async def _answer(self, row: TruthRow, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientGone:
            raise
        except ApiError as error:
            response = error
        except Exception:
            logger.exception("the sandbox failed on %s", row.path)
            if row.status is not None:
                raise
            response = server_error([])
        else:
            return
        row.decided_ns = row.decided_ns or time.monotonic_ns()
        row.decision = row.decision or "error"
        await send_whole(send, response.status, response.body(), response.headers, response.content_type)


async def _not_routed(request: Request, error: Exception) -> Response:
    """Replace Starlette's plain-text errors."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        message = f"Not allowed to {request.method} on {request.url.path[:200]}; allowed: {allow}."
        headers = [(b"allow", allow.encode())]
        raise ApiError(405, "invalid_request_error", message, code="method_not_supported", headers=headers)
    message = f"Unknown request URL: {request.method} {request.url.path[:200]}"
    raise ApiError(404, "not_found_error", message, code="unknown_url")


def create_app(settings: SandboxSettings, log: TruthLog) -> Starlette:
    """Return the application. It writes to ``log``, which the caller closes."""
    ring = KeyRing(settings.keys, settings.models)
    counter = PromptCounter()
    quotas = Quotas(settings.limits)
    started = int(time.time())

    def model(name: str) -> dict[str, str | int]:
        return {"id": name, "object": "model", "created": started, "owned_by": "bltybench"}

    def authenticated(request: Request) -> list[str]:
        key = ring.authenticate(request.scope["headers"])
        request.scope["state"]["row"].key = key.name
        if "models" in settings.limits.charged_endpoints:
            refusal = quotas.of(key.name, settings.models[0]).charge(unix_s())
            if refusal is not None:
                raise refusal.error
        return ring.models_for(key)

    async def list_models(request: Request) -> Response:
        return _json({"object": "list", "data": [model(name) for name in authenticated(request)]})

    async def get_model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in authenticated(request):
            raise no_model(name)
        return _json(model(name))

    async def about(_: Request) -> Response:
        return PlainTextResponse(ABOUT)

    async def flush_often() -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            # The rows are kept. If they can't be written when the sandbox stops, it says so.
            with contextlib.suppress(OSError):
                log.flush()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        flushing = asyncio.get_running_loop().create_task(flush_often())
        try:
            yield
        finally:
            flushing.cancel()
            counter.close()

    app = Starlette(
        routes=[
            Route("/", about, methods=["GET"]),
            Route("/v1/chat/completions", ChatEndpoint(settings, ring, counter, quotas), methods=["POST"]),
            Route("/v1/models", list_models, methods=["GET"]),
            Route("/v1/models/{name:path}", get_model, methods=["GET"]),
        ],
        middleware=[Middleware(Exchanges, log=log)],
        exception_handlers={HTTPException: _not_routed},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
