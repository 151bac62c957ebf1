"""Expectations for a streamed completion."""

import json
import re
from contextlib import suppress
from typing import Any

from bltybench.check.capabilities import NO_DONE, NO_STREAM_USAGE
from bltybench.check.client import CheckResponse
from bltybench.check.evidence import Evidence
from bltybench.check.expectations.completion import COUNTS, FINISHES, TEXT_KEYS, usage_verdict
from bltybench.check.judge import Group, Verdict, broken, holds, skipped, verdict

group = Group("streaming")

DONE = "[DONE]"
LINE_END = re.compile(rb"\r\n|\r|\n")


def events(body: bytes) -> list[str]:
    """Return the data of each server-sent event of a complete body (WHATWG HTML 9.2.6), without comments."""
    complete: list[str] = []
    data: list[str] = []
    for line in LINE_END.split(body)[:-1]:  # the text after the last line end is not a line
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" ").decode(errors="replace"))
        elif not line and data:
            complete.append("\n".join(data))
            data = []
    return complete


def _chunks(response: CheckResponse) -> list[dict[str, Any]]:
    """Return the events that are JSON objects."""
    chunks = []
    for event in events(response.body):
        with suppress(ValueError, RecursionError):
            chunks.append(json.loads(event))
    return [chunk for chunk in chunks if isinstance(chunk, dict)]


def _choices(response: CheckResponse) -> list[dict[str, Any]]:
    """Return the first choice of each chunk that has one."""
    lists = [chunk.get("choices") for chunk in _chunks(response)]
    return [entry[0] for entry in lists if isinstance(entry, list) and entry and isinstance(entry[0], dict)]


def _deltas(response: CheckResponse) -> list[dict[str, Any]]:
    deltas = [choice.get("delta") for choice in _choices(response)]
    return [delta for delta in deltas if isinstance(delta, dict)]


@group.expect("a stream is made", '"stream": true answers 200 with text/event-stream')
def _made(evidence: Evidence) -> Verdict:
    response = evidence.stream
    if response is None:
        return skipped("not asked for")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    good = response.status == 200 and not response.failure and media_type == "text/event-stream"
    return verdict(good, response.summary())


@group.about("stream", "chunks", 'JSON objects, "object": "chat.completion.chunk", the same id in all')
def _shape(response: CheckResponse) -> Verdict:
    data = [event for event in events(response.body) if event != DONE]
    chunks = _chunks(response)
    if not data:
        return broken("no events")
    if len(chunks) < len(data):
        return broken(f"{len(data) - len(chunks)} of {len(data)} events are not JSON objects")
    if "error" in chunks[-1]:
        return broken(f"an error inside the stream: {response.show(chunks[-1]['error'])}")
    kinds = {response.show(chunk.get("object")) for chunk in chunks}
    ids = {response.show(chunk.get("id")) for chunk in chunks}
    if kinds != {"chat.completion.chunk"}:
        return broken(f"object {response.show(', '.join(sorted(kinds)))}")
    if len(ids) != 1 or not next(iter(ids)).startswith("chatcmpl-"):
        return broken(f"id {response.show(', '.join(sorted(ids)))}")
    return holds(f"{len(chunks)} chunks")


@group.about("stream", "role first", "the first delta has the role assistant")
def _role(response: CheckResponse) -> Verdict:
    deltas = _deltas(response)
    if not deltas:
        return broken("no deltas")
    return verdict(deltas[0].get("role") == "assistant", response.show(deltas[0]))


@group.about("stream", "text in deltas", "content (or reasoning) arrives in deltas")
def _text(response: CheckResponse) -> Verdict:
    values = [delta.get(key) for delta in _deltas(response) for key in TEXT_KEYS]
    pieces = [value for value in values if isinstance(value, str) and value]
    if not pieces:
        return broken("no delta has text")
    return holds(f"{len(pieces)} deltas: {response.show(''.join(pieces)[:80])}")


@group.about("stream", "finish_reason", "exactly one choice has it, the last one")
def _finish_reason(response: CheckResponse) -> Verdict:
    values = [choice.get("finish_reason") for choice in _choices(response)]
    reasons = [value for value in values if value is not None]
    if len(reasons) != 1:
        return broken(f"{len(reasons)} of {len(values)} choices have a finish_reason")
    if values[-1] is None:
        return broken("choices follow finish_reason")
    return verdict(reasons[0] in FINISHES, response.show(reasons[0]))


@group.about("stream", "[DONE]", "the last event is data: [DONE]")
def _done(response: CheckResponse) -> Verdict:
    received = events(response.body)
    if DONE not in received:
        return broken(NO_DONE)
    return holds("at the end") if received[-1] == DONE else broken("events follow it")


@group.about(
    "stream",
    "include_usage",
    "a last chunk with empty choices and a usage whose sum is right",
    unless="usage",
)
def _usage(response: CheckResponse) -> Verdict:
    chunks = _chunks(response)
    if all(chunk.get("usage") is None for chunk in chunks):
        return broken(NO_STREAM_USAGE)
    last = chunks[-1]
    if last.get("usage") is None:
        return broken("chunks follow the one with usage")
    if last.get("choices") != []:
        return broken(f"its choices are {response.show(last.get('choices'))}")
    return usage_verdict(response, last["usage"])


@group.expect("same usage", "a stream's usage has the shape and prompt_tokens of a plain completion's")
def _same_usage(evidence: Evidence) -> Verdict:
    plain, stream = evidence.plain, evidence.stream
    if plain is None or stream is None:
        return skipped("not asked for")
    usages = [chunk["usage"] for chunk in _chunks(stream) if isinstance(chunk.get("usage"), dict)]
    one = plain.object().get("usage")
    if not usages or not isinstance(one, dict):
        return skipped("one of them has no usage")
    other = usages[-1]
    missing = [key for key in COUNTS if (key in one) != (key in other)]
    if missing:
        return broken(f"only one of them has {', '.join(missing)}")
    shown = plain.show(f"prompt_tokens {one.get('prompt_tokens')} and {other.get('prompt_tokens')}")
    return verdict(one.get("prompt_tokens") == other.get("prompt_tokens"), shown)
