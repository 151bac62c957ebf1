"""What a delta says: text, reasoning, a part of a tool call, in the forms that servers give them."""

from __future__ import annotations

from typing import Any

from bltybench.wire.sse.chunk import Delta, mend


def text_in(content: Any) -> str:
    """Return the text of a content field: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def reasoning_in(delta: Delta) -> str:
    """Return the reasoning of a delta; servers have two names for it."""
    return text_in(delta.reasoning_content) or text_in(delta.reasoning)


def merge_tool_call(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    """Add one delta of a tool call: strings of ``function.arguments`` are joined, the rest is set once."""
    index = part.get("index")
    known = calls.setdefault(index if isinstance(index, int) else len(calls), {"function": {}})
    for key in ("id", "type"):
        if isinstance(part.get(key), str):
            known.setdefault(key, mend(part[key]))
    function = part.get("function")
    if isinstance(function, dict):
        if isinstance(function.get("name"), str):
            known["function"].setdefault("name", mend(function["name"]))
        if isinstance(function.get("arguments"), str):
            known["function"]["arguments"] = known["function"].get("arguments", "") + mend(
                function["arguments"]
            )
