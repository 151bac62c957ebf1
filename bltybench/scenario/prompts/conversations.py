"""Recorded conversations used as prompts: messages, ShareGPT, or only prompts, one per line or in a list."""

import json
import logging
import time
from array import array
from codecs import BOM_UTF8 as BOM
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random
from typing import Any, TypeGuard, overload

from bltybench.errors import UserError
from bltybench.scenario.api.request_options import as_json
from bltybench.scenario.files import decoded, open_lines, read_json, version_of
from bltybench.scenario.prompts.tokens import count_messages

logger = logging.getLogger("bltybench")

ROLES = ("system", "developer", "user", "assistant", "tool")
TOOL_KEYS = ("tools", "tool_choice", "response_format")
KEYS = ("messages", "max_tokens", "temperature", *TOOL_KEYS)
SHAPE = 'a line looks like {"messages": [{"role": "user", "content": "…"}]}'
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
"""Roles by the name of the speaker in ShareGPT's files."""
PROGRESS_S = 3.0
"""Seconds between two messages while a long file is read."""
MAX_COUNTED, MAX_COUNTING_S = 500, 1.0
"""Maximum conversations whose tokens are counted in advance, and the maximum time for it, in seconds. The
tokenizer takes about 10 µs per token. The other conversations are counted when they are first sent."""
MAX_CHECKED_BYTES = 64 * 1024 * 1024
"""Size of the part of a file that is validated before the first request. It takes about a second."""
SHORTEST = 20
"""Number of the shortest lines among which the conversation with the fewest tokens is sought."""


@dataclass(slots=True)
class Conversation:
    """Messages to send, and the parameters of their request. None leaves a parameter to the mix."""

    messages: list[dict[str, Any]]
    max_tokens: int | None
    temperature: float | None
    body: dict[str, Any] | None = None
    """The whole body, if it is sent as it is. It contains the messages and parameters."""
    where: str = ""
    """File and line, for messages."""
    headers: tuple[tuple[str, str], ...] = ()
    """Recorded headers that are sent, too."""
    tool_keys: dict[str, Any] = field(default_factory=dict)
    """Those of TOOL_KEYS that it has. They replace the call's."""
    _prompt_tokens: int | None = None

    def count_tokens(self) -> int:
        """Return the token count of the messages, which only the first call computes."""
        if self._prompt_tokens is None:
            self._prompt_tokens = count_messages(self.messages)
        return self._prompt_tokens


Parse = Callable[[Any, str], Conversation | None]
"""Returns a row, given its content and its place for messages; None if it has nothing to send."""


class Rows(Sequence[Conversation]):
    """The rows of a file: those of its first part are parsed and kept, the others are parsed when used.

    So a file of any size starts immediately, and takes little memory.
    """

    def __init__(self, path: Path, what: str, shape: str, parse: Parse) -> None:
        self._path, self._what, self._shape, self._parse = path, what, shape, parse
        self.checked: list[Conversation] = []
        """The parsed rows."""
        self.lengths: list[int] = []
        """Length of each row's line."""
        self._later = array("q")
        """Number and place of each line that is not parsed yet, in pairs."""

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | Sequence[Conversation]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index < len(self.checked):
            return self.checked[index]
        # A row without anything to send is replaced by the next one, and the last one by the first.
        for later in range(index - len(self.checked), len(self._later) // 2):
            if (row := self._read_later(later)) is not None:
                return row
        return self.checked[0]

    def _read_later(self, later: int) -> Conversation | None:
        number, at = self._later[2 * later : 2 * later + 2]
        with closing(open_lines(self._path, what=self._what, at=at)) as lines:
            _, line = next(lines)
        return self._parsed(number, line)

    def read(self) -> int:
        """Read the file. Return how many rows have nothing to send."""
        skipped, report_s = 0, time.monotonic() + PROGRESS_S
        lines = open_lines(self._path, what=self._what)
        for number, (at, line) in enumerate(lines, start=1):
            if not line.strip():
                continue
            if (
                not self.lengths
                and self._path.suffix != ".txt"
                and line.removeprefix(BOM).lstrip()[:1] == b"["
            ):
                return self._read_list(b"".join([line, *(rest for _, rest in lines)]), number)
            if at > MAX_CHECKED_BYTES and self.checked:
                self._later.extend((number, at))
            elif (row := self._parsed(number, line)) is None:
                skipped += 1
                continue
            else:
                self.checked.append(row)
            self.lengths.append(len(line))
            if time.monotonic() > report_s:
                logger.info("Reading %s: %s lines so far", self._path, f"{len(self):,}")
                report_s = time.monotonic() + PROGRESS_S
        return skipped

    def _read_list(self, text: bytes, number: int) -> int:
        """Read a JSON list, which has to be parsed as a whole."""
        where = f"{self._path}:{number}"
        entries = read_json(decoded(text, where=where), where=where, remedy=self._shape)
        rows = [
            self._parse(entry, f"{self._path}, entry {place}") for place, entry in enumerate(entries, start=1)
        ]
        self.checked = [row for row in rows if row is not None]
        self.lengths = [
            len(json.dumps(entry)) for entry, row in zip(entries, rows, strict=True) if row is not None
        ]
        return len(rows) - len(self.checked)

    def _parsed(self, number: int, line: bytes) -> Conversation | None:
        where = f"{self._path}:{number}"
        text = decoded(line, where=where)
        is_text = self._path.suffix == ".txt"
        return self._parse(text if is_text else read_json(text, where=where, remedy=self._shape), where)


class Conversations:
    """The conversations of a file."""

    def __init__(self, every: Rows) -> None:
        self.every = every
        by_length = sorted(range(len(every)), key=every.lengths.__getitem__)
        self.shortest = [every[index] for index in by_length[:SHORTEST]]
        """The conversations with the shortest lines."""

    @cached_property
    def sample(self) -> list[Conversation]:
        """A random sample whose tokens are counted. Only estimates need it, so workers save the time."""
        order = list(range(len(self.every)))
        Random(len(self.every)).shuffle(order)
        counted: list[Conversation] = []
        until_s = time.monotonic() + MAX_COUNTING_S
        for index in order[:MAX_COUNTED]:
            if counted and time.monotonic() > until_s:
                break
            row = self.every[index]
            row.count_tokens()
            counted.append(row)
        return counted


def read_conversations(path: Path) -> Conversations:
    """Read a file, unless this process has already read it.

    Raise UserError with file and line for an error.
    """
    return read_rows(path, version_of(path), "conversations file", SHAPE, _conversation)


@lru_cache(maxsize=8)
def read_rows(path: Path, _version: tuple[int, int], what: str, shape: str, parse: Parse) -> Conversations:
    """Read a file of rows. ``what`` and ``shape`` describe it and its lines in messages."""
    rows = Rows(path, what, shape, parse)
    skipped = rows.read()
    if not rows:
        raise UserError("contains no line to send", where=str(path), remedy=shape)
    if skipped:
        logger.warning("%s: skipped %s conversations in which the user says nothing", path, f"{skipped:,}")
    return Conversations(rows)


def _conversation(row: Any, where: str) -> Conversation | None:
    if isinstance(row, str):
        row = {"messages": [{"role": "user", "content": row}]}
    elif isinstance(row, dict) and "messages" not in row:
        if isinstance(row.get("prompt"), str):
            row = row | {"messages": [{"role": "user", "content": row["prompt"]}]}
            del row["prompt"]
        elif isinstance(row.get("conversations"), list):
            row = {"messages": _sharegpt(row["conversations"], where)}
            if not row["messages"]:
                return None
    problem = _problem(row)
    if problem:
        raise UserError(problem, where=where, remedy=SHAPE)
    if unknown := row.keys() - set(KEYS):
        raise UserError(
            f"unknown key {min(unknown)[:60]!r}",
            where=where,
            remedy=f"a line can have {', '.join(KEYS)}; requests files can have any (docs/workloads.md)",
        )
    try:
        # Empty ones mean the same as none, and APIs reject them.
        tool_keys = {key: as_json(row[key], key) for key in TOOL_KEYS if row.get(key)}
    except ValueError as error:
        raise UserError(str(error), where=where, remedy=SHAPE) from None
    return Conversation(
        row["messages"], row.get("max_tokens"), row.get("temperature"), where=where, tool_keys=tool_keys
    )


def _sharegpt(turns: list[Any], where: str) -> list[dict[str, str]]:
    """Return the messages of a ShareGPT conversation up to the user's last one; none if there is none."""
    messages: list[dict[str, str]] = []
    for number, turn in enumerate(turns, start=1):
        speaker, text = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if not isinstance(speaker, str) or speaker not in SHAREGPT_ROLES or not isinstance(text, str):
            names = ", ".join(SHAREGPT_ROLES)
            raise UserError(
                f"turn {number} has no text from one of {names}",
                where=where,
                remedy='a turn looks like {"from": "human", "value": "…"}',
            )
        messages.append({"role": SHAREGPT_ROLES[speaker], "content": text})
    while messages and messages[-1]["role"] != "user":
        messages.pop()
    return messages


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
    if messages[-1]["role"] not in {"user", "tool"}:
        return f"the last message is from the {messages[-1]['role']}: it must be from the user or a tool"
    return _parameter_problem(row.get("max_tokens"), row.get("temperature"), row.get("tools"))


def _parameter_problem(max_tokens: object, temperature: object, tools: object) -> str | None:
    if not isinstance(tools, list | None):
        return "tools is not a list"
    if max_tokens is not None and not (_is_number(max_tokens, int) and max_tokens >= 1):
        return f"max_tokens must be a positive integer, not {json.dumps(max_tokens)[:40]}"
    if temperature is not None and not (_is_number(temperature, int, float) and 0 <= temperature <= 2):
        return f"temperature must be a number from 0 to 2, not {json.dumps(temperature)[:40]}"
    return None


def _is_number(value: object, *kinds: type) -> TypeGuard[int | float]:
    return isinstance(value, kinds) and not isinstance(value, bool)
