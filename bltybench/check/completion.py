"""Expectations on a completion that is not streamed."""

from __future__ import annotations

import time
from typing import Any, TypeGuard

from bltybench.check.client import CheckResponse
from bltybench.check.evidence import CUT_MAX_TOKENS, Evidence
from bltybench.check.judge import Group, Verdict, broken, holds, skipped, unclear, verdict

group = Group("completion")

FINISHES = ("stop", "length", "tool_calls", "content_filter", "function_call")
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
DAY_S = 86_400


def is_count(value: Any) -> TypeGuard[int]:
    """Say whether a JSON value is a whole number of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def first_choice(answer: CheckResponse) -> dict[str, Any]:
    """Return choices[0], an empty object if there is none."""
    choices = answer.object().get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def usage_verdict(answer: CheckResponse, usage: Any) -> Verdict:
    """Judge a ``usage`` object: three counts, of which the third is the sum of the others."""
    if not isinstance(usage, dict):
        return broken("there is no usage")
    prompt, completion, total = (usage.get(key) for key in COUNTS)
    if not (is_count(prompt) and is_count(completion) and is_count(total)):
        return broken(answer.show({key: usage.get(key) for key in COUNTS}))
    if prompt == 0:
        return broken("prompt_tokens is 0")
    return verdict(prompt + completion == total, f"{prompt} + {completion} = {total}")


@group.expect("a completion is made", "POST /chat/completions answers 200 with a JSON object")
def answers(evidence: Evidence) -> Verdict:
    """The main thing works."""
    answer = evidence.plain
    if answer is None:
        return skipped("not asked for")
    return verdict(answer.status == 200 and not answer.failure and bool(answer.object()), answer.summary())


@group.about("plain", "id", 'a string that starts with "chatcmpl-"')
def identity(answer: CheckResponse) -> Verdict:
    """The id looks as it should."""
    found = answer.object().get("id")
    return verdict(isinstance(found, str) and found.startswith("chatcmpl-"), answer.show(found))


@group.about("plain", "object", '"chat.completion"')
def kind(answer: CheckResponse) -> Verdict:
    """The object says what it is."""
    found = answer.object().get("object")
    return verdict(found == "chat.completion", answer.show(found))


@group.about("plain", "created", "a Unix time, about now")
def created(answer: CheckResponse) -> Verdict:
    """The time is in seconds, and within a day of this machine's."""
    found = answer.object().get("created")
    if not is_count(found):
        return broken(answer.show(found))
    away_s = found - answer.ended_s
    if abs(away_s) < DAY_S:
        return holds(f"{found}")
    return broken(f"{answer.show(found)}: this machine's clock says {time.gmtime(answer.ended_s).tm_year}")


@group.expect("model", "the model asked for is named in the answer")
def model(evidence: Evidence) -> Verdict:
    """The answer names the model; a name that goes on (a dated version) is taken for the same."""
    answer = evidence.plain
    if answer is None or answer.status != 200 or answer.failure:
        return skipped("there is no completion")
    found = answer.object().get("model")
    if not isinstance(found, str):
        return broken(answer.show(found))
    if found == evidence.model or found.startswith(evidence.model):
        return holds(answer.show(found))
    return unclear(answer.show(f"asked for {evidence.model}, answered by {found}"))


@group.about("plain", "choices", "one choice: index 0, message with role assistant and text, finish_reason")
def choices(answer: CheckResponse) -> Verdict:
    """The text is where clients look for it."""
    found = answer.object().get("choices")
    if not isinstance(found, list) or len(found) != 1:
        return broken(f"{len(found)} choices" if isinstance(found, list) else answer.show(found))
    choice = first_choice(answer)
    message = choice.get("message")
    if choice.get("index") != 0 or not isinstance(message, dict):
        return broken(answer.show(found[0]))
    if message.get("role") != "assistant":
        return broken(f"role {answer.show(message.get('role'))}")
    texts = [message.get(key) for key in ("content", "reasoning_content", "reasoning")]
    text = next((text for text in texts if isinstance(text, str) and text), None)
    return verdict(text is not None, answer.show(text if text is not None else message))


@group.about("plain", "finish_reason", "one of " + ", ".join(FINISHES))
def finish(answer: CheckResponse) -> Verdict:
    """Why the text ends is told."""
    found = first_choice(answer).get("finish_reason")
    return verdict(found in FINISHES, answer.show(found))


@group.about("plain", "usage", "prompt_tokens + completion_tokens = total_tokens")
def usage(answer: CheckResponse) -> Verdict:
    """The tokens are counted, and the sum is right."""
    return usage_verdict(answer, answer.object().get("usage"))


@group.about(
    "cut", "max_tokens", f'at most {CUT_MAX_TOKENS} tokens where {CUT_MAX_TOKENS} are allowed, "length"'
)
def max_tokens(answer: CheckResponse) -> Verdict:
    """A long answer is cut where it was asked to be."""
    found = answer.object().get("usage")
    made = found.get("completion_tokens") if isinstance(found, dict) else None
    if not is_count(made):
        return unclear("usage does not tell how many were made")
    reason = first_choice(answer).get("finish_reason")
    shown = f"{answer.show(made)} tokens, finish_reason {answer.show(reason)}"
    if made > CUT_MAX_TOKENS:
        return broken(shown)
    return verdict(reason == "length", shown) if made == CUT_MAX_TOKENS else unclear(shown)
