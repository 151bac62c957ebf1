"""What the sandbox says: seeded words of one token each, cut where the request wants them cut."""

from __future__ import annotations

import random
from dataclasses import dataclass

from bltybench.sandbox.request import ChatRequest

DEFAULT_MAX_TOKENS = 1024
"""Reserved where the request gives no max_tokens."""
NATURAL_TOKENS = (16, 256)
"""Shortest and longest answer where the request gives no max_tokens."""

# One token each for the tokenizer of scenario/tokens.py, with and without a space before it; the tests hold
# them to that.
VOCABULARY = """
and the water over under river stone light wind house road tree bird song night day hand eye door window
bridge paper letter story table market city field cloud rain star sun fire earth boat ship wave shore sand
hill forest leaf root seed flower bread salt apple green blue red white black old new long short high low
cold quiet slow fast open near far
"""
WORDS = tuple(VOCABULARY.split())


@dataclass(frozen=True, slots=True)
class PlannedChoice:
    """One answer, as the tokens that are sent one by one."""

    reasoning: tuple[str, ...]
    content: tuple[str, ...]
    finish_reason: str

    @property
    def tokens(self) -> int:
        """Completion tokens: one for each event, reasoning included."""
        return len(self.reasoning) + len(self.content)


def thinks(model: str) -> bool:
    """Whether the model sends ``reasoning_content`` before its answer."""
    return model.endswith("reasoner")


def plan(request: ChatRequest, rng: random.Random) -> list[PlannedChoice]:
    """Return the ``n`` answers to a request, all drawn from ``rng``.

    With max_tokens an answer has exactly so many (finish_reason length), so that lengths are what the load
    asked for; without, it ends by itself. A stop string ends it before the string (finish_reason stop).
    """
    return [_choice(request, rng) for _ in range(request.n)]


def _choice(request: ChatRequest, rng: random.Random) -> PlannedChoice:
    if request.max_tokens is None:
        length, finish_reason = rng.randint(*NATURAL_TOKENS), "stop"
    else:
        length, finish_reason = request.max_tokens, "length"
    words = rng.choices(WORDS, k=length)
    thought = length // 2 if thinks(request.model) else 0
    whole = _spaced(words[thought:])
    content = cut(whole, request.stop)
    if content != whole:
        finish_reason = "stop"
    return PlannedChoice(tuple(_spaced(words[:thought])), tuple(content), finish_reason)


def _spaced(words: list[str]) -> list[str]:
    """Return the words as they join to a text: a space before each but the first."""
    return [f" {word}" if index else word for index, word in enumerate(words)]


def cut(tokens: list[str], stops: tuple[str, ...]) -> list[str]:
    """Return the tokens before the first stop string; the last one may be a part of a token."""
    text = "".join(tokens)
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if not found:
        return tokens
    left = min(found)
    kept: list[str] = []
    for token in tokens:
        if left <= 0:
            break
        kept.append(token[:left])
        left -= len(token)
    return kept
