"""Expectations for a plain (non-streamed) completion."""

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
    """Return whether a JSON value is a non-negative integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def first_choice(answer: CheckResponse) -> dict[str, Any]:
    """Return choices[0], or an empty object."""
    choices = answer.object().get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def usage_verdict(answer: CheckResponse, usage: Any) -> Verdict:
    """Check a ``usage`` object: three counts, the third being the sum of the others."""
    if not isinstance(usage, dict):
        return broken("usage is missing")
    prompt, completion, total = (usage.get(key) for key in COUNTS)
    if not (is_count(prompt) and is_count(completion) and is_count(total)):
        return broken(answer.show({key: usage.get(key) for key in COUNTS}))
    if prompt == 0:
        return broken("prompt_tokens is 0")
    return verdict(prompt + completion == total, f"{prompt} + {completion} = {total}")


@group.expect("a completion is made", "POST /chat/completions answers 200 with a JSON object")
def answers(evidence: Evidence) -> Verdict:
    """Check that a completion succeeds."""
    answer = evidence.plain
    if answer is None:
        return skipped("not asked for")
    return verdict(answer.status == 200 and not answer.failure and bool(answer.object()), answer.summary())


@group.about("plain", "id", 'a string that starts with "chatcmpl-"')
def identity(answer: CheckResponse) -> Verdict:
    """Check the form of the ID."""
    found = answer.object().get("id")
    return verdict(isinstance(found, str) and found.startswith("chatcmpl-"), answer.show(found))


@group.about("plain", "object", '"chat.completion"')
def kind(answer: CheckResponse) -> Verdict:
    """Check the object type."""
    found = answer.object().get("object")
    return verdict(found == "chat.completion", answer.show(found))


@group.about("plain", "created", "a Unix time close to now")
def created(answer: CheckResponse) -> Verdict:
    """Check that the time is in seconds and within a day of this machine's clock."""
    found = answer.object().get("created")
    if not is_count(found):
        return broken(answer.show(found))
    away_s = found - answer.ended_s
    if abs(away_s) < DAY_S:
        return holds(f"{found}")
    return broken(f"{answer.show(found)}: this machine's clock says {time.gmtime(answer.ended_s).tm_year}")


@group.expect("model", "the response names the requested model")
def model(evidence: Evidence) -> Verdict:
    """Check the model name. A longer name (a dated version) counts as the same."""
    answer = evidence.plain
    if answer is None or answer.status != 200 or answer.failure:
        return skipped("no completion")
    found = answer.object().get("model")
    if not isinstance(found, str):
        return broken(answer.show(found))
    if found == evidence.model or found.startswith(evidence.model):
        return holds(answer.show(found))
    return unclear(answer.show(f"requested {evidence.model}, received {found}"))


@group.about("plain", "choices", "one choice: index 0, message with role assistant and text, finish_reason")
def choices(answer: CheckResponse) -> Verdict:
    """Check that the text is where clients look for it."""
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
    """Check that the response says why it ended."""
    found = first_choice(answer).get("finish_reason")
    return verdict(found in FINISHES, answer.show(found))


@group.about("plain", "usage", "prompt_tokens + completion_tokens = total_tokens")
def usage(answer: CheckResponse) -> Verdict:
    """Check the token counts and their sum."""
    return usage_verdict(answer, answer.object().get("usage"))


@group.about(
    "cut",
    "max_tokens",
    f'at most {CUT_MAX_TOKENS} tokens if {CUT_MAX_TOKENS} are allowed, finish_reason "length"',
)
def max_tokens(answer: CheckResponse) -> Verdict:
    """Check that a long completion is cut at max_tokens."""
    found = answer.object().get("usage")
    made = found.get("completion_tokens") if isinstance(found, dict) else None
    if not is_count(made):
        return unclear("usage has no completion_tokens")
    reason = first_choice(answer).get("finish_reason")
    shown = f"{answer.show(made)} tokens, finish_reason {answer.show(reason)}"
    if made > CUT_MAX_TOKENS:
        return broken(shown)
    return verdict(reason == "length", shown) if made == CUT_MAX_TOKENS else unclear(shown)
