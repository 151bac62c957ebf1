"""Text, reasoning, and tool calls of a delta, in the forms that servers send."""

from typing import Any

from bltybench.wire.sse.chunk import Delta, TextPart, join_surrogates

REASONING_PARTS = frozenset(
    {"thinking", "redacted_thinking", "reasoning", "reasoning_text", "reasoning.text"}
)
"""Types of the parts of a content field that are reasoning, not output."""
FAILED_FINISH_REASONS = frozenset(
    {
        "abort",
        "aborted",
        "canceled",
        "cancelled",
        "error",
        "failed",
        "insufficient_system_resource",
        "network_error",
    }
)
"""Finish reasons of answers that the server gave up (DeepSeek, vLLM, SGLang, OpenRouter, Zhipu), in lower
case."""

MAX_DEPTH = 8
"""Parts within parts whose text is read."""


def text_in(content: Any) -> str:
    """Return the output text of a content field: a string, or typed parts."""
    if isinstance(content, str):
        return content
    return "".join(_part_text(part) for part in _parts(content) if not _is_reasoning(part))


def text_of(parts: list[TextPart] | None) -> str:
    """Return the text of typed parts."""
    return "".join([part.text for part in parts]) if parts else ""


def reasoning_in(delta: Delta) -> str:
    """Return the reasoning of a delta: two fields, or parts of the content."""
    reasoning = _joined(delta.reasoning_content) or _joined(delta.reasoning)
    if reasoning or isinstance(delta.content, str):
        return reasoning
    return "".join(_part_text(part) for part in _parts(delta.content) if _is_reasoning(part))


def finish_reason_in(value: Any) -> str | None:
    """Return a finish reason: a string, or the ``type`` of SGLang's own form."""
    reason = value.get("type") if isinstance(value, dict) else value
    return reason if isinstance(reason, str) else None


def is_failure(finish_reason: str | None) -> bool:
    """Return whether a finish reason says that the server gave up the answer."""
    return finish_reason is not None and finish_reason.lower() in FAILED_FINISH_REASONS


def uncommon_text_in(delta: Delta, *, tool_calls: bool) -> str:
    """Return generated text of other kinds: the transcript of audio, old function calls, and tool calls."""
    texts = [_joined(delta.audio)] if isinstance(delta.audio, dict) and "data" not in delta.audio else []
    calls = list(delta.tool_calls) if tool_calls and isinstance(delta.tool_calls, list) else []
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    for function in (*functions, delta.function_call):
        if isinstance(function, dict):
            values = (function.get("name"), function.get("arguments"))
            texts += [value for value in values if isinstance(value, str)]
    return "".join(texts)


def has_audio(delta: Delta) -> bool:
    """Return whether a delta holds audio, or its transcript."""
    audio = delta.audio
    return bool(audio.get("data") or audio.get("transcript")) if isinstance(audio, dict) else False


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, dict):
        return [content]
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _is_reasoning(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and kind in REASONING_PARTS


def _part_text(part: dict[str, Any], depth: int = MAX_DEPTH) -> str:
    """Return the text of a part, which can hold further parts (Mistral), up to ``depth`` levels."""
    return next((text for key in _PART_KEYS if (text := _joined(part.get(key), depth))), "")


def _joined(value: Any, depth: int = MAX_DEPTH) -> str:
    if isinstance(value, str):
        return value
    return "".join(_part_text(part, depth - 1) for part in _parts(value)) if depth else ""


_PART_KEYS = ("text", "thinking", "reasoning", "refusal", "data", "transcript")


def merge_tool_call(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    """Merge one delta of a tool call: append to ``function.arguments``, set everything else once."""
    index = part.get("index")
    call = calls.setdefault(index if isinstance(index, int) else len(calls), {"function": {}})
    for key in ("id", "type"):
        if isinstance(part.get(key), str):
            call.setdefault(key, join_surrogates(part[key]))
    function = part.get("function")
    if isinstance(function, dict):
        known = call["function"]
        if isinstance(function.get("name"), str):
            known.setdefault("name", join_surrogates(function["name"]))
        if isinstance(function.get("arguments"), str):
            known.setdefault("arguments", []).append(function["arguments"])


def joined_tool_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call with its arguments as one text."""
    function = call["function"]
    if "arguments" not in function:
        return call
    return call | {"function": function | {"arguments": join_surrogates("".join(function["arguments"]))}}
