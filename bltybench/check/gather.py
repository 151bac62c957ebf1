"""Sending the requests of a check."""

import re
from typing import Any

from pydantic import SecretStr

from bltybench.check.capabilities import UNREQUESTED
from bltybench.check.client import CheckResponse, Client
from bltybench.check.evidence import (
    CUT_MAX_TOKENS,
    LONG,
    NO_MODEL,
    NOWHERE,
    SHORT,
    SHORT_MAX_TOKENS,
    WRONG_KEY,
    Evidence,
    chat,
)
from bltybench.check.request_keys import TEMPERATURE, send_accepted

_USAGE = re.compile(rb'"usage"\s*:\s*{')


def gather(
    client: Client, model: str, models: CheckResponse, *, keyed: bool, restricted: tuple[str, str] | None
) -> Evidence:
    """Send all requests except those for the 429.

    ``keyed``: whether the target needs a key. ``restricted``: a key without permission, and the model it may
    not use. Stop immediately if the key itself is refused.
    """
    evidence = Evidence(model=model, models=models)
    path = client.target.path_of_chat(model)

    def body(messages: list[dict[str, str]], max_tokens: int, *, stream: bool = False) -> dict[str, Any]:
        cold = TEMPERATURE not in evidence.rejected
        return chat(client.target, model, messages, max_tokens, stream=stream, cold=cold)

    def send(messages: list[dict[str, str]], max_tokens: int, *, stream: bool = False) -> CheckResponse:
        return send_accepted(client, evidence, path, lambda: body(messages, max_tokens, stream=stream))

    # Keep these three together: they show how Remaining counts down.
    evidence.plain = send(SHORT, SHORT_MAX_TOKENS)
    if evidence.plain.status == 401:
        return evidence
    evidence.stream = send(SHORT, SHORT_MAX_TOKENS, stream=True)
    if client.target.stream_options is False and not _USAGE.search(evidence.stream.body):
        evidence.skipped["usage"] = UNREQUESTED
    evidence.cut = client.post(path, body(LONG, CUT_MAX_TOKENS))

    target, minimal = client.target, body(SHORT, 1)
    evidence.bad_json = client.post(path, b'{"model": "' + model.encode() + b'", "messages": [')
    evidence.no_messages = client.post(
        path, {key: value for key, value in minimal.items() if key != "messages"}
    )
    evidence.wrong_type = client.post(path, minimal | {"messages": "ready?"})
    evidence.no_model = client.post(target.path_of_chat(NO_MODEL), minimal | {"model": NO_MODEL})
    evidence.no_route = client.get(NOWHERE)
    if keyed:
        evidence.no_key = client.post_as(None, path, minimal)
        evidence.wrong_key = client.post_as(SecretStr(WRONG_KEY), path, minimal)
    else:
        evidence.skipped["no_key"] = evidence.skipped["wrong_key"] = "the target has no api_key_env"
    if restricted is not None:
        key, barred_model = restricted
        barred = minimal | {"model": barred_model}
        evidence.forbidden = client.post_as(SecretStr(key), target.path_of_chat(barred_model), barred)
    return evidence
