"""The chat API as an ASGI application, and limiters without a framework in front of it."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from benchmarks.limiters.api import CHAT, TOKEN_S, Reply, reply

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Allow = Callable[[str], bool | Awaitable[bool]]
"""Decides on one request, given its key."""


async def chat_api(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request of the chat API."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    answer = reply(scope["method"], scope["path"], authorization(scope), body)
    headers = [(b"content-type", answer.content_type.encode())]
    if len(answer.chunks) == 1:
        headers.append((b"content-length", str(len(answer.chunks[0])).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    gone = asyncio.ensure_future(receive())
    for number, chunk in enumerate(answer.chunks):
        last = number == len(answer.chunks) - 1
        await send({"type": "http.response.body", "body": chunk, "more_body": not last})
        if last or (await asyncio.wait({gone}, timeout=TOKEN_S))[0]:
            break
    gone.cancel()


async def paced(answer: Reply) -> AsyncIterator[bytes]:
    """Yield the chunks of a response TOKEN_S apart."""
    for number, chunk in enumerate(answer.chunks):
        if number:
            await asyncio.sleep(TOKEN_S)
        yield chunk


def slept(answer: Reply) -> Iterator[bytes]:
    """Yield the chunks of a response TOKEN_S apart, for an application that has a thread per request."""
    for number, chunk in enumerate(answer.chunks):
        if number:
            time.sleep(TOKEN_S)
        yield chunk


def authorization(scope: Scope) -> str:
    """Return the header Authorization."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return headers.get(b"authorization", b"").decode("latin-1")


def behind(allow: Allow, status: int = 429) -> App:
    """Return the chat API, whose completions need the consent of ``allow``. A refusal has no headers."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == CHAT:
            allowed = allow(authorization(scope) or "nobody")
            if not (await allowed if inspect.isawaitable(allowed) else allowed):
                body = b'{"error": {"message": "Too many requests", "type": "rate_limit_error"}}'
                headers = [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                ]
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await chat_api(scope, receive, send)

    return limited


async def _lifespan(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
