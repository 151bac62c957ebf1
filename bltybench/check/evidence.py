"""The requests of a check: a short, bounded list, sent first and evaluated afterwards."""

from dataclasses import dataclass, field
from typing import Any

from bltybench.check.client import CheckResponse
from bltybench.scenario.api.request_options import choices, request_body
from bltybench.scenario.prompts.tokens import count_definitions
from bltybench.scenario.target import Target

MODELS = "/models"
NOWHERE = "/no-such-endpoint"
NO_MODEL = "bltybench-no-such-model"
WRONG_KEY = "sk-bltybench-check-0123456789abcdefghijklmnop"
"""A key that belongs to nobody."""

SHORT = [{"role": "user", "content": "Reply with the word ready."}]
LONG = [{"role": "user", "content": "Count from one to one hundred in words."}]
SHORT_MAX_TOKENS = 16
CUT_MAX_TOKENS = 5
PROMPT_TOKENS = 40
"""Upper bound on the tokens of either prompt in any common tokenizer, including the chat template."""

FIXED_REQUESTS = 12
"""Requests of a check without a drain. Of these, three are completions."""


@dataclass(slots=True, kw_only=True)
class Evidence:
    """The responses of one check. None means not sent."""

    model: str
    models: CheckResponse
    plain: CheckResponse | None = None
    stream: CheckResponse | None = None
    cut: CheckResponse | None = None
    """A completion that needs far more tokens than allowed."""
    bad_json: CheckResponse | None = None
    no_messages: CheckResponse | None = None
    wrong_type: CheckResponse | None = None
    no_key: CheckResponse | None = None
    wrong_key: CheckResponse | None = None
    forbidden: CheckResponse | None = None
    no_model: CheckResponse | None = None
    no_route: CheckResponse | None = None
    refused: CheckResponse | None = None
    """The last 429 of the drain, or its last response if there was none."""
    after_wait: CheckResponse | None = None
    """The request sent after Retry-After had passed."""
    drained: int = 0
    """Requests sent to provoke the 429."""
    drained_s: float = 0.0
    waited_s: float | None = None
    limit_requests: int | None = None
    """The documented request limit."""
    window_s: float = 60.0
    """Window of that limit."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Reasons why a request was not sent, by field name."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Keys of the body that the API rejects, with its words. They were then changed or omitted."""
    keys: dict[str, str | bool] = field(default_factory=dict)
    """Keys to set in the target, because the API needs them."""


def chat(
    target: Target,
    model: str,
    messages: list[dict[str, str]],
    max_tokens: int,
    *,
    stream: bool = False,
    cold: bool = True,
) -> dict[str, Any]:
    """Return the body of a chat completion request, with the target's request options.

    ``cold``: whether to ask for a temperature of 0, unless the target sets one.
    """
    temperature = None if "temperature" in target.body or not cold else 0
    return request_body(
        target,
        model=model,
        messages=messages,
        stream=stream,
        max_tokens=max_tokens,
        temperature=temperature,
    )


def max_tokens(target: Target) -> int:
    """Return the maximum tokens of the three completions, if the API respects max_tokens."""
    prompt, count = PROMPT_TOKENS + count_definitions(target.body), choices(target.body)
    return 3 * prompt + count * (2 * SHORT_MAX_TOKENS + CUT_MAX_TOKENS)
