"""Keys of a request that an API rejects. What it rejects is sent again with another key, or without it."""

from collections.abc import Callable
from typing import Any

from bltybench.check.client import CheckResponse, Client
from bltybench.check.evidence import Evidence
from bltybench.scenario.api.request_options import MAX_TOKENS_KEYS

REJECTIONS = frozenset({400, 422})
BOUND, STREAM_OPTIONS, TEMPERATURE = "max_tokens", "stream_options", "temperature"
MAX_REPEATS = 3
"""Requests that a check can add: one for each of these keys."""


def send_accepted(
    client: Client, evidence: Evidence, path: str, body_of: Callable[[], dict[str, Any]]
) -> CheckResponse:
    """Send the request that ``body_of`` makes, until the API names no more keys that can be changed."""
    tried: list[str] = []
    target = client.target
    while True:
        body = body_of()
        response = client.post(path, body)
        key = _rejected(response, body, evidence)
        if key is None:
            break
        evidence.rejected[key] = response.summary()
        tried.append(key)
        if key == BOUND:
            current = client.target.max_tokens_key or MAX_TOKENS_KEYS[0]
            other = next(name for name in MAX_TOKENS_KEYS if name != current)
            client.target = client.target.model_copy(update={"max_tokens_key": other})
            evidence.keys["max_tokens_key"] = other
        elif key == STREAM_OPTIONS:
            client.target = client.target.model_copy(update={"stream_options": False})
            evidence.keys["stream_options"] = False
    if response.status != 200 and tried:
        # Something else is wrong, so the changes helped nothing.
        client.target = target
        for key in tried:
            del evidence.rejected[key]
            evidence.keys.pop("max_tokens_key" if key == BOUND else key, None)
    return response


def _rejected(response: CheckResponse, body: dict[str, Any], evidence: Evidence) -> str | None:
    """Return the key that a rejection names, if it can be changed and was not yet."""
    if response.status not in REJECTIONS:
        return None
    text = response.body.decode(errors="replace")
    bound = next((key for key in MAX_TOKENS_KEYS if key in body), None)
    names = {STREAM_OPTIONS: STREAM_OPTIONS, BOUND: bound, TEMPERATURE: TEMPERATURE}
    return next(
        (
            key
            for key, name in names.items()
            if name is not None and name in body and name in text and key not in evidence.rejected
        ),
        None,
    )
