"""Expectations for a plain (non-streamed) completion."""

import time
from typing import Any, TypeGuard

from bltybench.check.capabilities import NO_USAGE
from bltybench.check.client import CheckResponse
from bltybench.check.evidence import CUT_MAX_TOKENS, Evidence
from bltybench.check.judge import Group, Verdict, broken, holds, skipped, unclear, verdict

group = Group("completion")

TEXT_KEYS = ("content", "reasoning_content", "reasoning")
FINISHES = ("stop", "length", "tool_calls", "content_filter", "function_call")
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
DAY_S = 86_400


def is_count(value: Any) -> TypeGuard[int]:
    """Return whether a JSON value is a non-negative integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def first_choice(response: CheckResponse) -> dict[str, Any]:
    """Return choices[0], or an empty object."""
    choices = response.object().get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def usage_verdict(response: CheckResponse, usage: Any) -> Verdict:
    """Check a ``usage`` object: three counts, the third being the sum of the others."""
    if not isinstance(usage, dict):
        return broken(NO_USAGE)
    prompt, completion, total = (usage.get(key) for key in COUNTS)
    if not (is_count(prompt) and is_count(completion) and is_count(total)):
        return broken(response.show({key: usage.get(key) for key in COUNTS}))
    if prompt == 0:
        return broken("prompt_tokens is 0")
    return verdict(prompt + completion == total, f"{prompt} + {completion} = {total}")


@group.expect("a completion is made", "POST /chat/completions answers 200 with a JSON object")
def _made(evidence: Evidence) -> Verdict:
    plain = evidence.plain
    if plain is None:
        return skipped("not asked for")
    return verdict(plain.status == 200 and not plain.failure and bool(plain.object()), plain.summary())


@group.about("plain", "id", 'a string that starts with "chatcmpl-"')
def _id(response: CheckResponse) -> Verdict:
    value = response.object().get("id")
    return verdict(isinstance(value, str) and value.startswith("chatcmpl-"), response.show(value))


@group.about("plain", "object", '"chat.completion"')
def _object(response: CheckResponse) -> Verdict:
    value = response.object().get("object")
    return verdict(value == "chat.completion", response.show(value))


@group.about("plain", "created", "a Unix time close to now")
def _created(response: CheckResponse) -> Verdict:
    created_s = response.object().get("created")
    if not is_count(created_s):
        return broken(response.show(created_s))
    if abs(created_s - response.ended_s) < DAY_S:
        return holds(f"{created_s}")
    year = time.gmtime(response.ended_s).tm_year
    return broken(f"{response.show(created_s)}: this machine's clock says {year}")


@group.expect("model", "the response names the requested model")
def _model(evidence: Evidence) -> Verdict:
    plain = evidence.plain
    if plain is None or plain.status != 200 or plain.failure:
        return skipped("no completion")
    model = plain.object().get("model")
    if not isinstance(model, str):
        return broken(plain.show(model))
    if model.startswith(evidence.model):  # a longer name is a dated version of the same model
        return holds(plain.show(model))
    return unclear(plain.show(f"requested {evidence.model}, received {model}"))


@group.about("plain", "choices", "one choice: index 0, message with role assistant and text, finish_reason")
def _choices(response: CheckResponse) -> Verdict:
    choices = response.object().get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        return broken(f"{len(choices)} choices" if isinstance(choices, list) else response.show(choices))
    choice = first_choice(response)
    message = choice.get("message")
    if choice.get("index") != 0 or not isinstance(message, dict):
        return broken(response.show(choices[0]))
    if message.get("role") != "assistant":
        return broken(f"role {response.show(message.get('role'))}")
    texts = (message.get(key) for key in TEXT_KEYS)
    text = next((text for text in texts if isinstance(text, str) and text), None)
    return verdict(text is not None, response.show(text or message))


@group.about("plain", "finish_reason", "one of " + ", ".join(FINISHES))
def _finish_reason(response: CheckResponse) -> Verdict:
    reason = first_choice(response).get("finish_reason")
    return verdict(reason in FINISHES, response.show(reason))


@group.about("plain", "usage", "prompt_tokens + completion_tokens = total_tokens")
def _usage(response: CheckResponse) -> Verdict:
    return usage_verdict(response, response.object().get("usage"))


@group.about(
    "cut",
    "max_tokens",
    f'at most {CUT_MAX_TOKENS} tokens if {CUT_MAX_TOKENS} are allowed, finish_reason "length"',
)
def _max_tokens(response: CheckResponse) -> Verdict:
    usage = response.object().get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not is_count(tokens):
        return unclear("usage has no completion_tokens")
    reason = first_choice(response).get("finish_reason")
    shown = f"{response.show(tokens)} tokens, finish_reason {response.show(reason)}"
    if tokens > CUT_MAX_TOKENS:
        return broken(shown)
    return verdict(reason == "length", shown) if tokens == CUT_MAX_TOKENS else unclear(shown)
