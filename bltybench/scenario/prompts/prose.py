"""Readable text of an exact number of tokens, put together without running the tokenizer.

Every sentence of the pool begins with a letter and ends with a full stop. A tokenizer of the GPT family
splits text before it merges bytes into tokens, and it splits at exactly these places, so the tokens of a
text are those of its sentences. The pool is counted once; then composing is addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product
from random import Random

from bltybench.scenario.prompts.tokens import count

ASKS = (
    "Sum this up in about {words} words.",
    "What is the most useful point here? Answer in about {words} words.",
    "Tell a story that begins this way, in about {words} words.",
    "Which two of these belong together, and why? Use about {words} words.",
    "What should we ask next? Explain it in about {words} words.",
)
"""What the prompt asks for, with the length of the answer."""

OPENER = (
    "Tell me in a few words what makes the sea so cold and the sky so wide at night when the wind is still"
)
"""Words of one token each. A prompt too short for a sentence and a question is the start of this."""

SHORT = 23
"""Texts below this many tokens are cut from OPENER; longer ones have at least one sentence and a question."""

WORDS_PER_TOKEN = 0.75
"""English words per token, the usual rule of thumb: only used to ask for an answer of some length."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The sentences with their token counts, and ways to end on any number of tokens."""

    sentences: tuple[tuple[str, int], ...]
    """Each with the space before it, and its tokens."""
    longest: int
    endings: dict[int, tuple[str, ...]]
    """For every number from 2 to ``longest`` + 1: texts of exactly so many tokens."""
    asks: tuple[tuple[str, int], ...]
    """Each with its tokens, the number of words left out."""


@cache
def pool() -> Pool:
    """Return the packaged pool, counted. Takes a second at the first call and nothing after that."""
    lines = (files("bltybench.scenario.prompts") / "sentences.txt").read_text(encoding="utf-8").splitlines()
    texts = [" " + line for line in lines if line and not line.startswith("#")]
    sentences = tuple((text, count(text)) for text in texts)
    longest = max(tokens for _, tokens in sentences)
    endings: dict[int, list[str]] = {tokens: [] for tokens in range(2, longest + 2)}
    for text, tokens in sentences:
        endings[tokens].append(text)
    for wanted, found in endings.items():
        if not found:
            found.extend(a + b for (a, m), (b, n) in product(sentences, sentences) if m + n == wanted)
    return Pool(
        sentences=sentences,
        longest=longest,
        endings={wanted: tuple(found) for wanted, found in endings.items()},
        asks=tuple((" " + ask, count(" " + ask.format(words=1)) - 1) for ask in ASKS),
    )


def text_of(tokens: int, answer_tokens: int, rng: Random) -> str:
    """Return prose and a question that together have exactly ``tokens`` tokens (1 or more).

    The question asks for an answer of about ``answer_tokens`` tokens. Below SHORT tokens there is no room
    for that and the text is the start of one sentence.
    """
    if tokens < SHORT:
        return " ".join(OPENER.split()[:tokens])
    source = pool()
    words = max(2, round(answer_tokens * WORDS_PER_TOKEN))
    ask, ask_tokens = source.asks[int(rng.random() * len(source.asks))]
    prose = _prose(tokens - ask_tokens - number_tokens(words), rng)
    return (prose + ask.format(words=words))[1:]


def block_of(tokens: int, rng: Random) -> str:
    """Return prose of exactly ``tokens`` tokens (1 or more) without a question, a space before it.

    Blocks may be put one behind the other: their tokens add up.
    """
    if tokens < SHORT:
        return "".join(f" {word}" for word in OPENER.split()[:tokens])
    return _prose(tokens, rng)


def _prose(left: int, rng: Random) -> str:
    source = pool()
    parts: list[str] = []
    sentences, size = source.sentences, len(source.sentences)
    while left > source.longest + 1:
        text, n = sentences[int(rng.random() * size)]
        parts.append(text)
        left -= n
    ending = source.endings[left]
    parts.append(ending[int(rng.random() * len(ending))])
    return "".join(parts)


def number_tokens(number: int) -> int:
    """Return how many tokens a whole number has: one for each three digits begun."""
    return (len(str(number)) + 2) // 3
