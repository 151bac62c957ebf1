"""Text, reasoning, and tool calls of a delta, in the forms that servers send."""

from __future__ import annotations

from typing import Any

from bltybench.wire.sse.chunk import Delta, join_surrogates


def text_in(content: Any) -> str:
    """Return the text of a content field: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def reasoning_in(delta: Delta) -> str:
    """Return the reasoning of a delta. Servers use two names for it."""
    return text_in(delta.reasoning_content) or text_in(delta.reasoning)


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
            known["arguments"] = known.get("arguments", "") + join_surrogates(function["arguments"])
