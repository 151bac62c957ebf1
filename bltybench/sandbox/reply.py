"""Completions: seeded words of one token each, cut as the request says."""

import random
from dataclasses import dataclass

from bltybench.sandbox.request import ChatRequest
from bltybench.sandbox.structured import json_text

DEFAULT_MAX_TOKENS = 1024
"""Tokens reserved if the request sets no max_tokens."""
NATURAL_TOKENS = (16, 256)
"""Shortest and longest completion if the request sets no max_tokens, in tokens."""
PIECE_CHARS = 4
"""Characters of JSON that count as a token."""

# One token each in scenario/prompts/tokens.py, with and without a leading space. Tests verify this.
VOCABULARY = """
and the water over under river stone light wind house road tree bird song night day hand eye door window
bridge paper letter story table market city field cloud rain star sun fire earth boat ship wave shore sand
hill forest leaf root seed flower bread salt apple green blue red white black old new long short high low
cold quiet slow fast open near far
"""
WORDS = tuple(VOCABULARY.split())


@dataclass(frozen=True, slots=True)
class PlannedChoice:
    """One completion, as the tokens sent one by one."""

    reasoning: tuple[str, ...]
    content: tuple[str, ...]
    """Pieces of the text, or of the arguments of ``tool``."""
    finish_reason: str
    tool: str | None = None
    """Name of the tool that it calls."""
    is_json: bool = False

    @property
    def tokens(self) -> int:
        """Completion tokens, reasoning included. One per event."""
        return len(self.reasoning) + len(self.content)


def plan(request: ChatRequest, rng: random.Random, fault: str | None = None) -> list[PlannedChoice]:
    """Return the ``n`` completions of a request, all drawn from ``rng``.

    With max_tokens, a completion has exactly that length (finish_reason length), so lengths follow the load.
    Without it, the completion ends by itself. A stop string ends it earlier (finish_reason stop). JSON
    ends by itself, and max_tokens can cut it.
    """
    return [_json_choice(request, rng, fault) or _choice(request, rng) for _ in range(request.n)]


def _json_choice(request: ChatRequest, rng: random.Random, fault: str | None) -> PlannedChoice | None:
    wanted = None if request.structure is None else request.structure.choose(rng)
    if wanted is None:
        return None
    text = json_text(wanted, rng, fault)
    pieces = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]
    kept = tuple(pieces[: request.max_tokens])
    ended = "stop" if wanted.tool is None else "tool_calls"
    finish_reason = ended if len(kept) == len(pieces) else "length"
    return PlannedChoice((), kept, finish_reason, wanted.tool, is_json=True)


def _choice(request: ChatRequest, rng: random.Random) -> PlannedChoice:
    if request.max_tokens is None:
        length, finish_reason = rng.randint(*NATURAL_TOKENS), "stop"
    else:
        length, finish_reason = request.max_tokens, "length"
    words = rng.choices(WORDS, k=length)
    thought = length // 2 if request.model.endswith("reasoner") else 0
    whole = _spaced(words[thought:])
    content = cut(whole, request.stop)
    if content != whole:
        finish_reason = "stop"
    return PlannedChoice(tuple(_spaced(words[:thought])), tuple(content), finish_reason)


def _spaced(words: list[str]) -> list[str]:
    """Return the words as text pieces: a leading space on each but the first."""
    return [f" {word}" if index else word for index, word in enumerate(words)]


def cut(tokens: list[str], stops: tuple[str, ...]) -> list[str]:
    """Return the tokens before the first stop string. The last one can be a partial token."""
    text = "".join(tokens)
    ends = [end for end in map(text.find, stops) if end >= 0]
    if not ends:
        return tokens
    left = min(ends)
    kept: list[str] = []
    for token in tokens:
        if left <= 0:
            break
        kept.append(token[:left])
        left -= len(token)
    return kept
