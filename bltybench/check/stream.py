"""Expectations for a streamed completion."""

from __future__ import annotations

import json
import re
from typing import Any

from bltybench.check.client import CheckResponse
from bltybench.check.completion import COUNTS, FINISHES, usage_verdict
from bltybench.check.evidence import Evidence
from bltybench.check.judge import Group, Verdict, broken, holds, skipped, verdict

group = Group("streaming")

DONE = "[DONE]"
LINE_END = re.compile(rb"\r\n|\r|\n")
TEXT_KEYS = ("content", "reasoning_content", "reasoning")


def events(body: bytes) -> list[str]:
    """Return the data of each server-sent event of a complete body (WHATWG HTML 9.2.6), without comments."""
    found: list[str] = []
    data: list[str] = []
    for line in LINE_END.split(body)[:-1]:  # the text after the last line end is not a line
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" ").decode(errors="replace"))
        elif not line and data:
            found.append("\n".join(data))
            data = []
    return found


def chunks(answer: CheckResponse) -> list[dict[str, Any]]:
    """Return the events that are JSON objects."""
    found = []
    for event in events(answer.body):
        try:
            chunk = json.loads(event)
        except (ValueError, RecursionError):
            continue
        if isinstance(chunk, dict):
            found.append(chunk)
    return found


def choices(answer: CheckResponse) -> list[dict[str, Any]]:
    """Return the first choice of each chunk that has one."""
    found = [chunk.get("choices") for chunk in chunks(answer)]
    return [entry[0] for entry in found if isinstance(entry, list) and entry and isinstance(entry[0], dict)]


def deltas(answer: CheckResponse) -> list[dict[str, Any]]:
    """Return the deltas, in order."""
    found = [choice.get("delta") for choice in choices(answer)]
    return [delta for delta in found if isinstance(delta, dict)]


@group.expect("a stream is made", '"stream": true answers 200 with text/event-stream')
def answers(evidence: Evidence) -> Verdict:
    """Check that the response is declared as an event stream."""
    answer = evidence.stream
    if answer is None:
        return skipped("not asked for")
    is_stream = (
        answer.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"
    )
    return verdict(answer.status == 200 and not answer.failure and is_stream, answer.summary())


@group.about("stream", "chunks", 'JSON objects, "object": "chat.completion.chunk", the same id in all')
def shape(answer: CheckResponse) -> Verdict:
    """Check that every event is a chunk of the same completion."""
    data = [event for event in events(answer.body) if event != DONE]
    found = chunks(answer)
    if not data:
        return broken("no events")
    if len(found) < len(data):
        return broken(f"{len(data) - len(found)} of {len(data)} events are not JSON objects")
    if "error" in found[-1]:
        return broken(f"an error inside the stream: {answer.show(found[-1]['error'])}")
    kinds = {answer.show(chunk.get("object")) for chunk in found}
    ids = {answer.show(chunk.get("id")) for chunk in found}
    if kinds != {"chat.completion.chunk"}:
        return broken(f"object {answer.show(', '.join(sorted(kinds)))}")
    if len(ids) != 1 or not next(iter(ids)).startswith("chatcmpl-"):
        return broken(f"id {answer.show(', '.join(sorted(ids)))}")
    return holds(f"{len(found)} chunks")


@group.about("stream", "role first", "the first delta has the role assistant")
def role(answer: CheckResponse) -> Verdict:
    """Check that the role precedes the text."""
    found = deltas(answer)
    if not found:
        return broken("no deltas")
    return verdict(found[0].get("role") == "assistant", answer.show(found[0]))


@group.about("stream", "text in deltas", "content (or reasoning) arrives in deltas")
def text(answer: CheckResponse) -> Verdict:
    """Check that text arrives in pieces."""
    pieces = [delta[key] for delta in deltas(answer) for key in TEXT_KEYS if isinstance(delta.get(key), str)]
    pieces = [piece for piece in pieces if piece]
    if not pieces:
        return broken("no delta has text")
    return holds(f"{len(pieces)} deltas: {answer.show(''.join(pieces)[:80])}")


@group.about("stream", "finish_reason", "exactly one choice has it, the last one")
def finish(answer: CheckResponse) -> Verdict:
    """Check that the reason for the end is given once, at the end."""
    reasons = [choice.get("finish_reason") for choice in choices(answer)]
    told = [reason for reason in reasons if reason is not None]
    if len(told) != 1:
        return broken(f"{len(told)} of {len(reasons)} choices have a finish_reason")
    if reasons[-1] is None:
        return broken("choices follow finish_reason")
    return verdict(told[0] in FINISHES, answer.show(told[0]))


@group.about("stream", "[DONE]", "the last event is data: [DONE]")
def done(answer: CheckResponse) -> Verdict:
    """Check that the end is marked, so that a broken stream can be recognized."""
    found = events(answer.body)
    if DONE not in found:
        return broken("it never arrives")
    return verdict(found[-1] == DONE, "at the end" if found[-1] == DONE else "events follow it")


@group.about("stream", "include_usage", "a last chunk with empty choices and a usage whose sum is right")
def usage(answer: CheckResponse) -> Verdict:
    """Check that a stream reports its tokens on request."""
    found = chunks(answer)
    if all(chunk.get("usage") is None for chunk in found):
        return broken("no chunk has usage")
    last = found[-1]
    if last.get("usage") is None:
        return broken("chunks follow the one with usage")
    if last.get("choices") != []:
        return broken(f"its choices are {answer.show(last.get('choices'))}")
    return usage_verdict(answer, last["usage"])


@group.expect("same usage", "a stream's usage has the shape and prompt_tokens of a plain completion's")
def same_usage(evidence: Evidence) -> Verdict:
    """Check that the same prompt costs the same either way."""
    plain, stream = evidence.plain, evidence.stream
    if plain is None or stream is None:
        return skipped("not asked for")
    told = [chunk["usage"] for chunk in chunks(stream) if isinstance(chunk.get("usage"), dict)]
    one = plain.object().get("usage")
    if not told or not isinstance(one, dict):
        return skipped("one of them has no usage")
    other = told[-1]
    missing = [key for key in COUNTS if (key in one) != (key in other)]
    if missing:
        return broken(f"only one of them has {', '.join(missing)}")
    shown = plain.show(f"prompt_tokens {one.get('prompt_tokens')} and {other.get('prompt_tokens')}")
    return verdict(one.get("prompt_tokens") == other.get("prompt_tokens"), shown)
