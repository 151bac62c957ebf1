"""Prompt tokens, as scenario.tokens counts them, without holding up the streams that run meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from bltybench.scenario.prompts import tokens

INLINE_CHARS = 1_000
"""Counting costs about 13 µs a token, so prompts up to this length (some 3 ms) are counted at once."""


@lru_cache(maxsize=4096)
def _added_by(role: str, texts: tuple[str, ...]) -> int:
    # Counts add up over messages, so what one message adds can be kept.
    message = {"role": role, "content": [{"type": "text", "text": text} for text in texts]}
    return tokens.count_messages([message]) - tokens.count_messages([])


def _count(messages: Sequence[tuple[str, tuple[str, ...]]]) -> int:
    return tokens.count_messages([]) + sum(_added_by(role, texts) for role, texts in messages)


def _texts(message: Mapping[str, Any]) -> tuple[str, ...]:
    content = message.get("content")
    if content is None:
        return ()
    return (content,) if isinstance(content, str) else tuple(part["text"] for part in content)


class PromptCounter:
    """Counts prompts: short ones at once, long ones in a thread, so that the event loop goes on."""

    def __init__(self) -> None:
        tokens.load()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="count")

    async def count(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Return the tokens of valid ``messages``: exactly what ``tokens.count_messages`` gives."""
        pairs = [(str(message["role"]), _texts(message)) for message in messages]
        if sum(len(text) for _, texts in pairs for text in texts) <= INLINE_CHARS:
            return _count(pairs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, _count, pairs)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
