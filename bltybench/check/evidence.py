"""The requests of a check: a short, bounded list, sent first and evaluated afterwards."""

from dataclasses import dataclass, field
from typing import Any

from bltybench.check.client import CheckResponse, Client

CHAT = "/chat/completions"
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
"""Of these, three are completions."""
FIXED_TOKENS = 3 * PROMPT_TOKENS + 2 * SHORT_MAX_TOKENS + CUT_MAX_TOKENS


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


def chat(model: str, messages: list[dict[str, str]], max_tokens: int, **more: Any) -> dict[str, Any]:
    """Return the body of a chat completion request."""
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, **more}


def gather(
    client: Client, model: str, models: CheckResponse, *, keyed: bool, restricted: tuple[str, str] | None
) -> Evidence:
    """Send all requests except those for the 429.

    ``keyed``: whether the target needs a key. ``restricted``: a key without permission, and the model it may
    not use. Stop immediately if the key itself is refused.
    """
    evidence = Evidence(model=model, models=models)
    # Keep these three together: they show how Remaining counts down.
    evidence.plain = client.post(CHAT, chat(model, SHORT, SHORT_MAX_TOKENS))
    if evidence.plain.status == 401:
        return evidence
    streamed = chat(model, SHORT, SHORT_MAX_TOKENS, stream=True, stream_options={"include_usage": True})
    evidence.stream = client.post(CHAT, streamed)
    evidence.cut = client.post(CHAT, chat(model, LONG, CUT_MAX_TOKENS))

    evidence.bad_json = client.post(CHAT, b'{"model": "' + model.encode() + b'", "messages": [')
    evidence.no_messages = client.post(CHAT, {"model": model, "max_tokens": 1})
    evidence.wrong_type = client.post(CHAT, {"model": model, "messages": "ready?", "max_tokens": 1})
    evidence.no_model = client.post(CHAT, chat(NO_MODEL, SHORT, 1))
    evidence.no_route = client.get(NOWHERE)
    if keyed:
        evidence.no_key = client.post_as(None, CHAT, chat(model, SHORT, 1))
        evidence.wrong_key = client.post_as(WRONG_KEY, CHAT, chat(model, SHORT, 1))
    else:
        evidence.skipped["no_key"] = evidence.skipped["wrong_key"] = "the target has no api_key_env"
    if restricted is not None:
        key, barred_model = restricted
        evidence.forbidden = client.post_as(key, CHAT, chat(barred_model, SHORT, 1))
    return evidence
