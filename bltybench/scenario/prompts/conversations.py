"""Recorded conversations used as prompts: a JSONL file with one ``{"messages": […]}`` per line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bltybench.errors import UserError
from bltybench.scenario.files import open_text, read_json
from bltybench.scenario.prompts.tokens import count_messages

ROLES = ("system", "developer", "user", "assistant", "tool")
SHAPE = 'a line looks like {"messages": [{"role": "user", "content": "…"}]}'


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages to send, and their token count."""

    messages: list[dict[str, Any]]
    prompt_tokens: int


def read_conversations(path: Path) -> tuple[Conversation, ...]:
    """Read and validate the whole file. Raise UserError with file and line for an error."""
    conversations = []
    for number, line in open_text(path, what="conversations file"):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        row = read_json(line, where=where, remedy=SHAPE)
        problem = _problem(row)
        if problem:
            raise UserError(problem, where=where, remedy=SHAPE)
        conversations.append(Conversation(row["messages"], count_messages(row["messages"])))
    if not conversations:
        raise UserError("contains no conversation", where=str(path), remedy=SHAPE)
    return tuple(conversations)


def _problem(row: object) -> str | None:
    """Return what is wrong with a line, or None."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        return "no list of messages"
    for index, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            return f"message {index} is not an object"
        role = message.get("role")
        if role not in ROLES:
            return f"message {index} has the role {str(role)[:40]!r}; must be one of {', '.join(ROLES)}"
        content = message.get("content")
        if not isinstance(content, str | list) and not (content is None and role == "assistant"):
            return f"message {index} has no content"
    if messages[-1]["role"] != "user":
        return f"the last message is from the {messages[-1]['role']}: it must be from the user"
    return None
