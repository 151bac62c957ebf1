"""The chunks of a stream as bytes. Everything but the token is encoded once per request."""

from typing import Any

import msgspec

from bltybench.sandbox.reply import PlannedChoice
from bltybench.sandbox.request import ChatRequest

MARK = "\x00"
# The marker as it appears in JSON. No other part of a chunk contains it: model names come from the settings.
MARK_JSON = msgspec.json.encode(MARK)[1:-1]


class ChunkWriter:
    """Encoder of one response's server-sent events."""

    def __init__(self, completion_id: str, created: int, request: ChatRequest) -> None:
        self._head: dict[str, Any] = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": request.model,
            "system_fingerprint": "fp_sandbox",
        }
        # If usage is requested, every chunk before the last has it as null.
        self._tail: dict[str, Any] = {"usage": None} if request.include_usage else {}
        self._content = [self._frame(index, "content") for index in range(request.n)]
        self._reasoning = [self._frame(index, "reasoning_content") for index in range(request.n)]

    def role(self, index: int) -> bytes:
        """Return the first event of a choice: its role, without a token."""
        return self._chunk(index, {"role": "assistant", "content": ""}, None)

    def token(self, index: int, choice: PlannedChoice, step: int) -> bytes:
        """Return the event of a choice's token number ``step``, reasoning first."""
        thought = len(choice.reasoning)
        if step < thought:
            before, after = self._reasoning[index]
            return before + choice.reasoning[step].encode() + after
        piece = choice.content[step - thought]
        if choice.tool is not None:
            call: dict[str, Any] = {"index": 0, "function": {"arguments": piece}}
            if step == 0:
                call = {"index": 0, **tool_call(self._head["id"], index, choice.tool, piece)}
            return self._chunk(index, {"tool_calls": [call]}, None)
        before, after = self._content[index]
        # Words need no escapes.
        return before + (msgspec.json.encode(piece)[1:-1] if choice.is_json else piece.encode()) + after

    def finish(self, index: int, reason: str) -> bytes:
        """Return the last event of a choice."""
        return self._chunk(index, {}, reason)

    def usage(self, usage: dict[str, Any]) -> bytes:
        """Return the event before ``[DONE]``, with no choices."""
        return _event({**self._head, "choices": [], "usage": usage})

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**self._head, "choices": [choice], **self._tail})

    def _frame(self, index: int, field: str) -> tuple[bytes, bytes]:
        before, mark, after = self._chunk(index, {field: MARK}, None).partition(MARK_JSON)
        if not mark:
            raise AssertionError("the mark must be in the chunk")
        return before, after


def tool_call(completion_id: str, index: int, name: str, arguments: str) -> dict[str, Any]:
    """Return the tool call of a choice in the API's form."""
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{completion_id[-20:]}{index}", "type": "function", "function": function}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def usage_of(prompt_tokens: int, completion_tokens: int, reasoning_tokens: int) -> dict[str, Any]:
    """Return ``usage`` in the API's form. Completion tokens include reasoning."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }
