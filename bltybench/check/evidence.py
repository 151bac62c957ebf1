"""The requests of a check: a short, bounded list, sent first and evaluated afterwards."""

from __future__ import annotations

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
    """Duration of the drain."""
    waited_s: float | None = None
    limit_requests: int | None = None
    """The documented request limit."""
    window_s: float = 60.0
    """Window of that limit."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Reasons why a request was not sent, by field name."""

    def completions(self) -> list[CheckResponse]:
        """Return the successful completions in order. Nothing was sent between them."""
        asked = (self.plain, self.stream, self.cut)
        return [answer for answer in asked if answer is not None and answer.status == 200]

    def errors(self) -> dict[str, CheckResponse]:
        """Return the error responses, by what was wrong with the request."""
        asked = {
            "bad JSON": self.bad_json,
            "no messages": self.no_messages,
            "wrong type": self.wrong_type,
            "no key": self.no_key,
            "wrong key": self.wrong_key,
            "no permission": self.forbidden,
            "unknown model": self.no_model,
            "unknown endpoint": self.no_route,
            "over the limit": self.refused,
        }
        return {name: answer for name, answer in asked.items() if answer and (answer.status or 0) >= 400}


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
    found = Evidence(model=model, models=models)
    # Keep these three together: they show how Remaining counts down.
    found.plain = client.post(CHAT, chat(model, SHORT, SHORT_MAX_TOKENS))
    if found.plain.status == 401:
        return found
    streamed = chat(model, SHORT, SHORT_MAX_TOKENS, stream=True, stream_options={"include_usage": True})
    found.stream = client.post(CHAT, streamed)
    found.cut = client.post(CHAT, chat(model, LONG, CUT_MAX_TOKENS))

    found.bad_json = client.post_raw(CHAT, b'{"model": "' + model.encode() + b'", "messages": [')
    found.no_messages = client.post(CHAT, {"model": model, "max_tokens": 1})
    found.wrong_type = client.post(CHAT, {"model": model, "messages": "ready?", "max_tokens": 1})
    found.no_model = client.post(CHAT, chat(NO_MODEL, SHORT, 1))
    found.no_route = client.get(NOWHERE)
    if keyed:
        found.no_key = client.post_as(None, CHAT, chat(model, SHORT, 1))
        found.wrong_key = client.post_as(WRONG_KEY, CHAT, chat(model, SHORT, 1))
    else:
        found.skipped["no_key"] = found.skipped["wrong_key"] = "the target has no api_key_env"
    if restricted is not None:
        key, barred_model = restricted
        found.forbidden = client.post_as(key, CHAT, chat(barred_model, SHORT, 1))
    return found
