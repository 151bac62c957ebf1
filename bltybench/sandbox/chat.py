"""POST /v1/chat/completions: validate, apply limits, then respond plain or streamed at the drawn pace."""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from bltybench.sandbox.counting import PromptCounter
from bltybench.sandbox.delays import draw_s, request_rng
from bltybench.sandbox.errors import ApiError, ClientGone, Headers, invalid, server_error
from bltybench.sandbox.faults.delivery import FaultySend, ResponseEnded, status_error
from bltybench.sandbox.faults.draw import draw
from bltybench.sandbox.keys import KeyRing
from bltybench.sandbox.quota import Grant, Quotas, Refusal, unix_s
from bltybench.sandbox.reply import DEFAULT_MAX_TOKENS, PlannedChoice, plan
from bltybench.sandbox.request import CONTEXT_TOKENS, ChatRequest, parse_request
from bltybench.sandbox.response_timer import ResponseTimer
from bltybench.sandbox.service_queue import ServiceQueue
from bltybench.sandbox.stream import ChunkWriter, tool_call, usage_of
from bltybench.sandbox.structured import CONTENT_FAULTS
from bltybench.sandbox.truth import TruthRow
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import SandboxKey, SandboxSettings

MAX_BODY_BYTES = 4 * 1024 * 1024


class ChatEndpoint:
    """The endpoint as a plain ASGI application. Starlette's response classes would cost more per event."""

    def __init__(
        self, settings: SandboxSettings, ring: KeyRing, counter: PromptCounter, quotas: Quotas
    ) -> None:
        self._settings = settings
        self._ring = ring
        self._counter = counter
        self._quotas = quotas
        self._ordinal = 0
        self._faults = settings.faults.of_requests()
        self._queue = ServiceQueue(settings.queue) if settings.queue is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI chat request."""
        row: TruthRow = scope["state"]["row"]
        raw = await read_body(receive)
        row.received_ns = time.monotonic_ns()
        key = self._ring.authenticate(scope["headers"])
        row.key = key.name
        request = self._checked(raw, key, row)
        row.prompt_tokens = await self._counter.count(request.messages)
        reserved = CallSize(row.prompt_tokens, request.n * (request.max_tokens or DEFAULT_MAX_TOKENS))
        if row.prompt_tokens + (request.max_tokens or 1) > CONTEXT_TOKENS:
            raise invalid(
                f"This model's context is {CONTEXT_TOKENS} tokens; the messages have {row.prompt_tokens} and "
                f"{request.max_tokens or 1} were asked for.",
                "messages",
                "context_length_exceeded",
            )
        verdict = self._quotas.of(key.name, request.model).admit(unix_s(), reserved)
        row.decided_ns = time.monotonic_ns()
        if isinstance(verdict, Refusal):
            row.decision = f"refused:{verdict.limit}"
            raise verdict.error
        await self._answer(request, verdict, scope, receive, send)

    def _checked(self, raw: bytes, key: SandboxKey, row: TruthRow) -> ChatRequest:
        """Return a valid, permitted request. Raise ApiError otherwise, charged if the settings say so."""
        try:
            request = parse_request(raw)
            row.model, row.stream = request.model[:100], request.stream
            self._ring.authorize(key, request.model)
        except ApiError as error:
            if error.status in self._settings.limits.charged_errors:
                refusal = self._quotas.of(key.name, self._settings.models[0]).charge(unix_s())
                if refusal is not None:
                    row.decision = f"refused:{refusal.limit}"
                    raise refusal.error from error
            raise
        return request

    async def _answer(
        self, request: ChatRequest, grant: Grant, scope: Scope, receive: Receive, send: Send
    ) -> None:
        row: TruthRow = scope["state"]["row"]
        seed, ordinal = self._settings.seed, self._ordinal
        self._ordinal += 1
        rng = request_rng(seed, ordinal)
        fault = row.fault = draw(self._faults, seed, "request", ordinal) if self._faults else None
        used_prompt = 0
        left_s = 0.0
        try:
            if rng.random() < self._settings.error_rate:
                raise server_error(grant.headers)
            if fault is not None and (error := status_error(fault, grant.headers)) is not None:
                raise error
            row.decision = "accepted"
            row.completion_tokens = 0
            used_prompt = row.prompt_tokens or 0
            choices = plan(request, rng, fault)
            async with ResponseTimer(receive) as timer:
                begun_ns = row.received_ns
                if not grant.has_slot:
                    await timer.while_there(grant.turn())
                    begun_ns = time.monotonic_ns()
                served_ns = begun_ns + round(grant.delay_s * 1e9)
                if self._queue is not None:
                    served_ns = self._queue.served_ns(served_ns)
                if fault == "latency_spike":
                    served_ns += round(self._settings.faults.spike_ms * 1e6)
                # A completion that stops before its first token takes as long as that token.
                steps = max(1, *(choice.tokens for choice in choices))
                times_ns = islice(self._times_ns(rng, served_ns), steps)
                answer = _Answer(request, choices, row, times_ns, grant.headers)
                if fault is not None and fault not in {"latency_spike", *CONTENT_FAULTS}:
                    # In a stream, the roles and half of the tokens come first.
                    pieces = len(choices) + sum(choice.tokens for choice in choices) // 2
                    send = FaultySend(fault, scope, send, timer, pieces)
                try:
                    await (answer.stream(timer, send) if request.stream else answer.plain(timer, send))
                except ResponseEnded:
                    pass
                except ClientGone:
                    if self._settings.limits.cancelled_keeps_slot:
                        left_s = (answer.end_ns() - time.monotonic_ns()) / 1e9
                    raise
        finally:
            used = CallSize(used_prompt, row.completion_tokens or 0)
            grant.settle(unix_s(), used, keep_slot=left_s > 0)
            if left_s > 0:
                asyncio.get_running_loop().call_later(left_s, grant.free)

    def _times_ns(self, rng: random.Random, start_ns: int) -> Iterator[int]:
        """Yield the times of tokens: the first one TTFT after the start, each further one ITL later."""
        at_s = draw_s(self._settings.ttft, rng)
        while True:
            yield start_ns + round(at_s * 1e9)
            at_s += draw_s(self._settings.itl, rng)


@dataclass(slots=True)
class _Answer:
    request: ChatRequest
    choices: list[PlannedChoice]
    row: TruthRow
    times_ns: Iterator[int]
    """Times of the tokens not yet sent."""
    headers: Headers
    id: str = field(default_factory=lambda: f"chatcmpl-{os.urandom(12).hex()}")
    created: int = field(default_factory=lambda: int(time.time()))
    _end_ns: int = 0

    def end_ns(self) -> int:
        """Draw the times of all tokens and return the last one's."""
        self._end_ns = max(self.times_ns, default=self._end_ns)
        return self._end_ns

    async def plain(self, timer: ResponseTimer, send: Send) -> None:
        """Wait as long as a stream would take until its last token, then send everything."""
        await timer.until(self.end_ns())
        self.row.completion_tokens = sum(choice.tokens for choice in self.choices)
        body: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.request.model,
            "choices": [self._plain_choice(index, choice) for index, choice in enumerate(self.choices)],
            "usage": self._usage(),
            "system_fingerprint": "fp_sandbox",
        }
        await send_whole(send, 200, msgspec.json.encode(body), self.headers)

    async def stream(self, timer: ResponseTimer, send: Send) -> None:
        """Send the headers and the role immediately, then each token at its time, one write per event."""
        row = self.row
        writer = ChunkWriter(self.id, self.created, self.request)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for index in range(len(self.choices)):
            await _write(send, writer.role(index))
        for step, at_ns in enumerate(self.times_ns):
            await timer.until(at_ns)
            for index, choice in enumerate(self.choices):
                if step >= choice.tokens:
                    continue
                if index:
                    await timer.give_way()
                event = writer.token(index, choice, step)
                row.event_ns.append(time.monotonic_ns())
                row.completion_tokens = len(row.event_ns)
                await _write(send, event)
        # Gives the last token its own write, and so its own arrival time.
        await timer.give_way()
        for index, choice in enumerate(self.choices):
            await _write(send, writer.finish(index, choice.finish_reason))
        if self.request.include_usage:
            await _write(send, writer.usage(self._usage()))
        await _write(send, b"data: [DONE]\n\n", more=False)

    def _plain_choice(self, index: int, choice: PlannedChoice) -> dict[str, Any]:
        text = "".join(choice.content)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if choice.tool is not None:
            message |= {"content": None, "tool_calls": [tool_call(self.id, index, choice.tool, text)]}
        if choice.reasoning:
            message["reasoning_content"] = "".join(choice.reasoning)
        return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish_reason}

    def _usage(self) -> dict[str, Any]:
        reasoning = sum(len(choice.reasoning) for choice in self.choices)
        return usage_of(self.row.prompt_tokens or 0, self.row.completion_tokens or 0, reasoning)


async def _write(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def read_body(receive: Receive) -> bytes:
    """Return the request body. Raise ApiError (413) if too large, ClientGone if it breaks off."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            text = f"The request body is larger than {MAX_BODY_BYTES} bytes."
            # The rest of the body is not read, so the connection has to close.
            headers = [(b"connection", b"close")]
            raise ApiError(413, "invalid_request_error", text, code="request_too_large", headers=headers)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def send_whole(
    send: Send, status: int, body: bytes, headers: Headers, content_type: bytes = b"application/json"
) -> None:
    """Send a complete answer."""
    length = str(len(body)).encode()
    head = [(b"content-type", content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await _write(send, body, more=False)
