"""Formats of the benchmark server's streams, which differ in what changes from event to event.

A stream has ``tokens`` events with content and four more: the role, the end, the usage, and ``[DONE]``. A
plain event has 284 bytes, within a few bytes of DeepSeek's and OpenAI's. The other formats add what they have
on top.
"""

import json
import random
import string
from collections.abc import Callable
from functools import lru_cache
from typing import Any

TEXT_BYTES = 43
"""Letters of an event."""
ALTERNATIVES = 28
"""Alternatives to a token in the format ``large``: events of 2 kB."""

Json = dict[str, Any]


class StreamBody:
    """A response body: its ``chunks`` as the server writes them one at a time, and the ``whole``."""

    def __init__(self, name: str, tokens: int, burst: int) -> None:
        events = _content_events(name, tokens)
        usage = {"prompt_tokens": 64, "completion_tokens": tokens, "total_tokens": 64 + tokens}
        finish = "tool_calls" if name == "tool_calls" else "stop"
        self.chunks = [
            _framed(_event({"role": "assistant", "content": ""})),
            *(b"".join(map(_framed, events[at : at + burst])) for at in range(0, tokens, burst)),
            _framed(_event({}, finish_reason=finish)),
            _framed(_event(None, usage=usage)),
            b"%x\r\ndata: [DONE]\n\n\r\n0\r\n\r\n" % len(b"data: [DONE]\n\n"),
        ]
        self.whole = b"".join(self.chunks)


@lru_cache
def body_of(name: str, tokens: int, burst: int) -> StreamBody:
    """Return the body of a stream."""
    return StreamBody(name, tokens, burst)


def _content_events(name: str, tokens: int) -> list[Json]:
    """Return the events with content, always the same for a format."""
    rng = random.Random(name)
    return [FORMATS[name](rng, index, tokens, _letters(rng, TEXT_BYTES)) for index in range(tokens)]


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.ascii_letters, k=count))


def _event(
    delta: Json | None, finish_reason: str | None = None, logprobs: Any = None, **changes: Any
) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-6f1c9c9be4b04d6c8e2a",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "deepseek-chat",
        "system_fingerprint": "fp_3b2a1c",
        "choices": [] if delta is None else [choice],
        **changes,
    }


def _data(event: Json) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def _framed(event: Json) -> bytes:
    data = _data(event)
    return b"%x\r\n%s\r\n" % (len(data), data)


def _plain(_rng: random.Random, _index: int, _tokens: int, text: str) -> Json:
    return _event({"content": text})


def _obfuscation(rng: random.Random, _index: int, _tokens: int, text: str) -> Json:
    """OpenAI's: a random field evens out the sizes of events."""
    cut = rng.randrange(1, TEXT_BYTES)
    return _event({"content": text[:cut]}, obfuscation=text[cut:])


def _usage(_rng: random.Random, index: int, _tokens: int, text: str) -> Json:
    """Usage so far in every event (vLLM's ``continuous_usage_stats``)."""
    usage = {"prompt_tokens": 64, "completion_tokens": index + 1, "total_tokens": 65 + index}
    return _event({"content": text}, usage=usage)


def _reasoning(_rng: random.Random, index: int, tokens: int, text: str) -> Json:
    """DeepSeek's: reasoning, then text."""
    if index < tokens // 2:
        return _event({"content": None, "reasoning_content": text})
    return _event({"content": text, "reasoning_content": None})


def _tool_calls(_rng: random.Random, index: int, _tokens: int, text: str) -> Json:
    """Arguments of a function call, in pieces. The first event has its name."""
    function = {"arguments": text} if index else {"name": "search", "arguments": text}
    call = {"index": 0, "function": function}
    return _event({"tool_calls": [call if index else {"id": "call_8f1", "type": "function", **call}]})


def _parts(_rng: random.Random, _index: int, _tokens: int, text: str) -> Json:
    """Mistral's: the content is a list of typed parts."""
    return _event({"content": [{"type": "text", "text": text}]})


def _several_tokens(_rng: random.Random, _index: int, _tokens: int, text: str) -> Json:
    """Several tokens per event, as of speculative decoding, with characters that JSON escapes."""
    return _event({"content": f'{text[:10]}\n"{text[10:20]}" {text[20:30]}é{text[30:]}'})


def _changing_ids(rng: random.Random, index: int, _tokens: int, text: str) -> Json:
    """Another id and time in every event."""
    return _event(
        {"content": text}, id=f"chatcmpl-{rng.getrandbits(80):020x}", created=1_760_000_000 + index // 4
    )


def _large(rng: random.Random, _index: int, _tokens: int, text: str) -> Json:
    """Log probabilities of each token and its alternatives."""
    tokens = [
        {"token": _letters(rng, 4), "logprob": -rng.random(), "bytes": None} for _ in range(ALTERNATIVES)
    ]
    return _event({"content": text}, logprobs={"content": [{**tokens[0], "top_logprobs": tokens}]})


FORMATS: dict[str, Callable[[random.Random, int, int, str], Json]] = {
    "plain": _plain,
    "obfuscation": _obfuscation,
    "usage": _usage,
    "reasoning": _reasoning,
    "tool_calls": _tool_calls,
    "parts": _parts,
    "several_tokens": _several_tokens,
    "changing_ids": _changing_ids,
    "large": _large,
}
"""Format names, each with the event of an index."""
USUAL = "plain"
