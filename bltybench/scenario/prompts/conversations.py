"""Recorded conversations used as prompts: a JSONL file with one ``{"messages": […]}`` per line."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, TypeGuard

from bltybench.errors import UserError
from bltybench.scenario.files import open_text, read_json, version_of
from bltybench.scenario.prompts.tokens import count_messages

logger = logging.getLogger("bltybench")

ROLES = ("system", "developer", "user", "assistant", "tool")
KEYS = ("messages", "max_tokens", "temperature")
SHAPE = 'a line looks like {"messages": [{"role": "user", "content": "…"}]}'
PROGRESS_S = 3.0
"""Seconds between two messages while a long file is read."""
MAX_COUNTED, MAX_COUNTING_S = 500, 3.0
"""Maximum conversations whose tokens are counted in advance, and the maximum time for it, in seconds. The
tokenizer takes about 10 µs per token. The other conversations are counted when they are first sent."""
SHORTEST = 20
"""Number of conversations, the shortest lines, among which the one with the fewest tokens is sought."""


@dataclass(slots=True)
class Conversation:
    """Messages to send, and the parameters of their request. None leaves a parameter to the mix."""

    messages: list[dict[str, Any]]
    max_tokens: int | None
    temperature: float | None
    body: dict[str, Any] | None = None
    """The whole body, if it is sent as it is. It contains the messages and parameters."""
    line: int = 0
    """Its line in the file, from 1."""
    _prompt_tokens: int | None = None

    def count_tokens(self) -> int:
        """Return the token count of the messages, which only the first call computes."""
        if self._prompt_tokens is None:
            self._prompt_tokens = count_messages(self.messages)
        return self._prompt_tokens


Parse = Callable[[Any, str, int], Conversation]
"""Returns the row of a line, given its place for messages and its number."""


class Conversations:
    """The conversations of a file, and a random sample of them whose tokens are already counted."""

    def __init__(self, every: list[Conversation], line_lengths: list[int]) -> None:
        self.every = every
        self.sample: list[Conversation] = []
        order = list(range(len(every)))
        Random(len(every)).shuffle(order)
        until_s = time.monotonic() + MAX_COUNTING_S
        for index in order[:MAX_COUNTED]:
            if self.sample and time.monotonic() > until_s:
                break
            every[index].count_tokens()
            self.sample.append(every[index])
        by_length = sorted(range(len(every)), key=line_lengths.__getitem__)
        self.shortest = [every[index] for index in by_length[:SHORTEST]]
        """The conversations with the shortest lines."""


def read_conversations(path: Path) -> Conversations:
    """Read and validate the whole file, unless this process has already read it.

    Raise UserError with file and line for an error.
    """
    return read_rows(path, version_of(path), "conversations file", SHAPE, _conversation)


@lru_cache(maxsize=8)
def read_rows(path: Path, _version: tuple[int, int], what: str, shape: str, parse: Parse) -> Conversations:
    """Read a JSONL file. ``what`` and ``shape`` of a line describe it in messages, ``parse`` reads a row."""
    every: list[Conversation] = []
    lengths: list[int] = []
    report_s = time.monotonic() + PROGRESS_S
    for number, line in open_text(path, what=what):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        every.append(parse(read_json(line, where=where, remedy=shape), where, number))
        lengths.append(len(line))
        if time.monotonic() > report_s:
            logger.info("Reading %s: %s lines so far", path, f"{len(every):,}")
            report_s = time.monotonic() + PROGRESS_S
    if not every:
        raise UserError("contains no line to send", where=str(path), remedy=shape)
    return Conversations(every, lengths)


def _conversation(row: Any, where: str, line: int) -> Conversation:
    problem = _problem(row)
    if problem:
        raise UserError(problem, where=where, remedy=SHAPE)
    if unknown := row.keys() - set(KEYS):
        raise UserError(
            f"unknown key {min(unknown)[:60]!r}",
            where=where,
            remedy=f"a line can have {', '.join(KEYS)}; requests files can have any (docs/workloads.md)",
        )
    return Conversation(row["messages"], row.get("max_tokens"), row.get("temperature"), line=line)


def _problem(row: object) -> str | None:
    """Return what is wrong with a line, or None."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(messages, list) or not messages:
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
    return _parameter_problem(row.get("max_tokens"), row.get("temperature"))


def _parameter_problem(max_tokens: object, temperature: object) -> str | None:
    if max_tokens is not None and not (_is_number(max_tokens, int) and max_tokens >= 1):
        return f"max_tokens must be a positive integer, not {json.dumps(max_tokens)[:40]}"
    if temperature is not None and not (_is_number(temperature, int, float) and 0 <= temperature <= 2):
        return f"temperature must be a number from 0 to 2, not {json.dumps(temperature)[:40]}"
    return None


def _is_number(value: object, *kinds: type) -> TypeGuard[int | float]:
    return isinstance(value, kinds) and not isinstance(value, bool)
