"""Composition of requests: the next call of the mix, its messages, and its completion length."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from bltybench.scenario.arrivals.arrivals import Arrival
from bltybench.scenario.patterns import Trace
from bltybench.scenario.prompts.conversations import Conversations, read_conversations
from bltybench.scenario.prompts.lengths import draw
from bltybench.scenario.prompts.prose import block_of, pool, text_of
from bltybench.scenario.prompts.request_files import read_requests
from bltybench.scenario.prompts.tokens import PROMPT_OVERHEAD, ROLE_OVERHEAD, count
from bltybench.scenario.workload import Call, RequestsFile, Scenario


class Prepared(msgspec.Struct, frozen=True):
    """A request ready to send."""

    call: Call
    messages: list[dict[str, Any]]
    prompt_tokens: int
    """Tokens of the messages, by the local tokenizer."""
    max_tokens: int
    index: int = 0
    """Number of the request in the run. The turns of a conversation share it."""
    turns: int = 1
    """Number of turns of the conversation it starts. 1 for a single call."""
    temperature: float | None = None
    body: dict[str, Any] | None = None
    """The whole body, if it is sent as it was recorded."""
    turn: int | None = None
    """Turn of the recorded session that it belongs to."""
    after: int | None = None
    """Number of the request before it in that session, which must have ended."""
    headers: tuple[tuple[str, str], ...] = ()
    """Recorded headers to send."""


class Composer:
    """Composer of a scenario's requests.

    Request ``index`` depends only on the scenario's seed and on ``index``. Any worker can compose any
    request, and the same seed sends the same requests again. (A server that caches prompts then recognizes
    them: change the seed, or use anti_cache.) ``nonce`` distinguishes runs for calls with anti_cache.

    Raise UserError if a file of conversations or requests is missing or invalid.
    """

    def __init__(self, scenario: Scenario, base_dir: Path, nonce: str = "") -> None:
        pool()  # load the tokenizer now, not during the run
        self._seed = scenario.seed
        self._nonce = nonce
        self._calls = scenario.mix
        self._rng = Random()
        self._by_name = {call.name: chosen for chosen, call in enumerate(scenario.mix)}
        self._weights = list(accumulate(call.weight for call in scenario.mix))
        self._overheads = [overhead(call) for call in scenario.mix]
        self._block = lru_cache(maxsize=4_096)(self._make_block)
        files = {call.conversations for call in scenario.mix if call.conversations is not None}
        self._conversations: dict[str, Conversations] = {
            file: read_conversations(base_dir / file) for file in sorted(files)
        }
        self._model = None if scenario.models else scenario.model
        """Model of recorded bodies without one; None if it is drawn when they are sent."""
        arrivals = scenario.of_one_policy().arrivals
        self._timed = arrivals.file if isinstance(arrivals, Trace) else None
        """File of the trace. A requests file that is also the trace sends each body at its own time."""
        recorded = {call.requests.file for call in scenario.mix if call.requests is not None}
        self._requests = {file: read_requests(base_dir / file) for file in sorted(recorded)}

    def prepare(self, index: int, arrival: Arrival | None = None) -> Prepared:
        """Return request ``index``. Values from a trace in ``arrival`` replace the mix's.

        A prompt can't be shorter than its system message and one word. ``prompt_tokens`` has the actual
        length.
        """
        prepared = self._prepare(index, arrival)
        if arrival is None or arrival.session is None:
            return prepared
        return msgspec.structs.replace(prepared, turn=arrival.turn, after=arrival.after)

    def _prepare(self, index: int, arrival: Arrival | None) -> Prepared:
        rng = self._rng
        rng.seed(f"{self._seed}:request:{index}")  # a new Random would be seeded twice
        chosen = bisect_right(self._weights, rng.random() * self._weights[-1])
        chosen = min(chosen, len(self._calls) - 1)
        if arrival is not None and arrival.call is not None:
            chosen = self._by_name[arrival.call]
        call = self._calls[chosen]
        prompt_tokens = draw(call.prompt_tokens, rng)
        max_tokens = draw(call.max_tokens, rng)
        if arrival is not None:
            prompt_tokens = arrival.prompt_tokens or prompt_tokens
            max_tokens = arrival.max_tokens or max_tokens
        if call.requests is not None:
            number = None if arrival is None or call.requests.file != self._timed else arrival.number
            return self._recorded(call, call.requests, index, index if number is None else number, max_tokens)
        mark = self._mark(call, index)
        if call.conversations is not None:
            every = self._conversations[call.conversations].every
            conversation = every[int(rng.random() * len(every))]
            temperature = call.temperature if conversation.temperature is None else conversation.temperature
            if arrival is None or arrival.max_tokens is None:
                max_tokens = conversation.max_tokens or max_tokens
            messages = [dict(message) for message in conversation.messages]
            marked = _put_before(messages[0], mark)
            prompt_tokens = conversation.count_tokens() + marked
            if conversation.tool_keys:
                call = call.model_copy(update={"body": call.body | conversation.tool_keys})
            return Prepared(call, messages, prompt_tokens, max_tokens, index, temperature=temperature)
        messages = [] if call.system is None else [{"role": "system", "content": call.system}]
        rest = self._overheads[chosen] + (_put_before(messages[0], mark) if messages else count(mark))
        user_tokens = max(1, prompt_tokens - rest)
        if arrival is not None and arrival.blocks:
            content = self._joined(arrival.blocks, arrival.block_tokens, user_tokens)
        else:
            content = text_of(user_tokens, max_tokens, rng)
        messages.append({"role": "user", "content": content})
        if mark and call.system is None:
            messages[-1]["content"] = f"{mark} {content}"
        turns = 1
        if call.turns is not None:
            turns = call.turns.min + int(rng.random() * (call.turns.max - call.turns.min + 1))
        return Prepared(call, messages, rest + user_tokens, max_tokens, index, turns, call.temperature)

    def _recorded(
        self, call: Call, source: RequestsFile, index: int, number: int, max_tokens: int
    ) -> Prepared:
        """Return the body of a line, with its model mapped. After the last line comes the first."""
        every = self._requests[source.file].every
        row = every[number % len(every)]
        body = dict(row.body or {})
        model = body.get("model", self._model)
        if mapped := source.models.get(model or "", source.models.get("*", model)):
            body["model"] = mapped
        return Prepared(
            call,
            row.messages,
            row.count_tokens(),
            row.max_tokens or max_tokens,
            index,
            body=body,
            headers=row.headers,
        )

    def next_turn(self, last: Prepared, turn: int, answer: str) -> Prepared:
        """Return turn ``turn`` (from 1) of a conversation: the history and a follow-up."""
        turns = last.call.turns
        if turns is None:
            raise ValueError(f"call {last.call.name} has no turns")
        rng = Random(f"{self._seed}:request:{last.index}:turn:{turn}")
        tokens = draw(turns.tokens, rng)
        max_tokens = draw(last.call.max_tokens, rng)
        messages = [
            *last.messages,
            {"role": "assistant", "content": answer},
            {"role": "user", "content": text_of(tokens, max_tokens, rng)},
        ]
        added = ROLE_OVERHEAD["assistant"] + count(answer) + ROLE_OVERHEAD["user"] + tokens
        return msgspec.structs.replace(
            last, messages=messages, prompt_tokens=last.prompt_tokens + added, max_tokens=max_tokens
        )

    def _mark(self, call: Call, index: int) -> str:
        """Return random words that defeat prompt caches, or an empty string if not requested."""
        if call.anti_cache == "off":
            return ""
        about = self._nonce if call.anti_cache == "run" else f"{self._nonce}/{index}"
        return f"Case {blake2b(about.encode(), digest_size=6).hexdigest()}."

    def _joined(self, blocks: Sequence[int], block_tokens: int, tokens: int) -> str:
        """Return the text of blocks, all full except the last. The same IDs give the same text."""
        parts: list[str] = []
        for number, block in enumerate(blocks, start=1):
            size = tokens if number == len(blocks) else min(block_tokens, tokens)
            if size < 1:
                break
            parts.append(self._block(block, size))
            tokens -= size
        return "".join(parts)[1:]

    def _make_block(self, block: int, tokens: int) -> str:
        return block_of(tokens, Random(f"{self._seed}:block:{block}"))


def overhead(call: Call) -> int:
    """Return the prompt tokens of this call besides the user's text."""
    system = 0 if call.system is None else ROLE_OVERHEAD["system"] + count(call.system)
    return PROMPT_OVERHEAD + ROLE_OVERHEAD["user"] + system


def _put_before(message: dict[str, Any], mark: str) -> int:
    """Prepend the marker to a message and return the tokens added."""
    content = message.get("content")
    if not mark:
        return 0
    if isinstance(content, list):
        message["content"] = [{"type": "text", "text": mark}, *content]
        return count(mark)
    before = content or ""
    message["content"] = f"{mark} {before}"
    return count(message["content"]) - count(before)
