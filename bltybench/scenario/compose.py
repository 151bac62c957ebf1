"""Composing requests: which call of the mix comes next, with what messages and how long an answer."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from bltybench.scenario.arrivals import Arrival
from bltybench.scenario.conversations import Conversation, read_conversations
from bltybench.scenario.lengths import draw
from bltybench.scenario.prose import pool, text_of
from bltybench.scenario.tokens import PROMPT_OVERHEAD, ROLE_OVERHEAD, count
from bltybench.scenario.workload import Call, Scenario


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to be sent."""

    call: Call
    messages: list[dict[str, Any]]
    prompt_tokens: int
    """Of the messages, by our tokenizer."""
    max_tokens: int


class Composer:
    """Makes the requests of a scenario.

    Request ``index`` depends on the scenario's seed and on ``index`` alone: any worker can compose any
    request, and the same seed sends the same requests again. (A server that caches prompts will then know
    them; change the seed to send new ones.)

    Raises UserError where a conversations file is missing or has a mistake in it.
    """

    def __init__(self, scenario: Scenario, base_dir: Path) -> None:
        pool()  # load the tokenizer now, not in the middle of a run
        self._seed = scenario.seed
        self._calls = scenario.mix
        self._weights = list(accumulate(call.weight for call in scenario.mix))
        self._overheads = [_overhead(call) for call in scenario.mix]
        files = {call.conversations for call in scenario.mix if call.conversations is not None}
        self._conversations: dict[str, tuple[Conversation, ...]] = {
            file: read_conversations(base_dir / file) for file in sorted(files)
        }

    def prepare(self, index: int, arrival: Arrival | None = None) -> Prepared:
        """Return request ``index``. Lengths that ``arrival`` brings from a trace replace those of the call.

        A prompt cannot be shorter than its system message and one word; ``prompt_tokens`` says what it is.
        """
        rng = Random(f"{self._seed}:request:{index}")
        chosen = bisect_right(self._weights, rng.random() * self._weights[-1])
        chosen = min(chosen, len(self._calls) - 1)
        call = self._calls[chosen]
        prompt_tokens = draw(call.prompt_tokens, rng)
        max_tokens = draw(call.max_tokens, rng)
        if arrival is not None:
            prompt_tokens = arrival.prompt_tokens or prompt_tokens
            max_tokens = arrival.max_tokens or max_tokens
        if call.conversations is not None:
            known = self._conversations[call.conversations]
            conversation = known[int(rng.random() * len(known))]
            messages = [dict(message) for message in conversation.messages]
            return Prepared(call, messages, conversation.prompt_tokens, max_tokens)
        overhead = self._overheads[chosen]
        user_tokens = max(1, prompt_tokens - overhead)
        messages = [{"role": "user", "content": text_of(user_tokens, max_tokens, rng)}]
        if call.system is not None:
            messages.insert(0, {"role": "system", "content": call.system})
        return Prepared(call, messages, overhead + user_tokens, max_tokens)


def _overhead(call: Call) -> int:
    """Return the tokens of a prompt of this call other than the user's text."""
    system = 0 if call.system is None else ROLE_OVERHEAD["system"] + count(call.system)
    return PROMPT_OVERHEAD + ROLE_OVERHEAD["user"] + system
