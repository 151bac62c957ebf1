from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from bltybench.sandbox.counting import INLINE_CHARS, PromptCounter
from bltybench.scenario.prompts import tokens

LONG = "The quick brown fox jumps over the lazy dog; 漢字 too, and 12,345 times. " * 40


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Hi"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        [{"role": "assistant", "content": None}, {"role": "tool", "content": "4"}],
        [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": " two"}]}],
        [{"role": "user", "content": [{"type": "text", "text": LONG}]}, {"role": "user", "content": LONG}],
        [{"role": "user", "content": ""}],
    ],
)
def test_counts_equal_the_tokenizers(messages: list[dict[str, Any]]) -> None:
    counter = PromptCounter()
    try:
        for _ in range(2):  # the second call uses the cache
            assert asyncio.run(counter.count(messages)) == tokens.count_messages(messages)
    finally:
        counter.close()


def test_long_prompts_are_counted_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    count = tokens.count_messages

    def noted(messages: Any) -> int:
        threads.append(threading.current_thread().name)
        return count(messages)

    monkeypatch.setattr(tokens, "count_messages", noted)
    counter = PromptCounter()
    try:
        asyncio.run(counter.count([{"role": "user", "content": "short, and not seen before"}]))
        inline, threads[:] = set(threads), []
        asyncio.run(counter.count([{"role": "user", "content": "x y " * INLINE_CHARS}]))
    finally:
        counter.close()
    assert inline == {threading.current_thread().name}
    assert {name.partition("_")[0] for name in threads} == {"count"}
