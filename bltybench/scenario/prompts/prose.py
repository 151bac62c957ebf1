"""Readable text with an exact number of tokens, built without running the tokenizer.

Every sentence of the pool begins with a letter and ends with a full stop. GPT-style tokenizers split text at
exactly these places before merging bytes, so a text has the tokens of its sentences. The pool is tokenized
once; composing is then addition.
"""

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
"""Questions that end a prompt and request a completion length."""

OPENER = (
    "Tell me in a few words what makes the sea so cold and the sky so wide at night when the wind is still"
)
"""Words of one token each. A prompt too short for a sentence and a question is a prefix of this."""

SHORT = 23
"""Texts shorter than this many tokens are cut from OPENER. Longer ones have a sentence and a question."""

WORDS_PER_TOKEN = 0.75
"""English words per token, a rule of thumb, used only to request a completion length."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Sentences with their token counts, and endings of any number of tokens."""

    sentences: tuple[tuple[str, int], ...]
    """Sentences with a leading space, with their tokens."""
    longest: int
    endings: dict[int, tuple[str, ...]]
    """Texts of exactly n tokens, for each n from 2 to ``longest`` + 1."""
    asks: tuple[tuple[str, int], ...]
    """Questions without the word count, with their tokens."""


@cache
def pool() -> Pool:
    """Return the packaged pool with token counts. The first call takes a second; later calls are free."""
    lines = (files("bltybench.scenario.prompts") / "sentences.txt").read_text(encoding="utf-8").splitlines()
    texts = [" " + line for line in lines if line and not line.startswith("#")]
    sentences = tuple((text, count(text)) for text in texts)
    longest = max(tokens for _, tokens in sentences)
    endings = {}
    for total in range(2, longest + 2):
        single = tuple(text for text, tokens in sentences if tokens == total)
        pairs = (a + b for (a, m), (b, n) in product(sentences, sentences) if m + n == total)
        endings[total] = single or tuple(pairs)
    asks = tuple((" " + ask, count(" " + ask.format(words=1)) - 1) for ask in ASKS)
    return Pool(sentences, longest, endings, asks)


def text_of(tokens: int, answer_tokens: int, rng: Random) -> str:
    """Return prose plus a question with exactly ``tokens`` tokens in total (1 or more).

    The question requests about ``answer_tokens`` tokens. Below SHORT tokens there is no room for it, and the
    text is the start of one sentence.
    """
    if tokens < SHORT:
        return " ".join(OPENER.split()[:tokens])
    source = pool()
    words = max(2, round(answer_tokens * WORDS_PER_TOKEN))
    ask, ask_tokens = source.asks[int(rng.random() * len(source.asks))]
    prose = _prose(tokens - ask_tokens - number_tokens(words), rng)
    return (prose + ask.format(words=words))[1:]


def block_of(tokens: int, rng: Random) -> str:
    """Return prose of exactly ``tokens`` tokens (1 or more), with a leading space and no question.

    Blocks can be concatenated: their tokens add up.
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
    """Return the tokens of an integer: one per started group of three digits."""
    return (len(str(number)) + 2) // 3
