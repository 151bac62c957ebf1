"""Files of recorded request bodies, one per line, also in OpenAI's batch format, with times and headers."""

from pathlib import Path
from typing import Any

from bltybench.errors import UserError
from bltybench.scenario.api.access import CREDENTIAL, OWN_HEADERS, valid_headers
from bltybench.scenario.api.request_options import as_json, choices, max_completion_tokens
from bltybench.scenario.arrivals.trace_line import SESSION_KEYS
from bltybench.scenario.files import version_of
from bltybench.scenario.prompts.conversations import Conversation, Conversations, read_rows
from bltybench.scenario.target import Target
from bltybench.scenario.workload import Scenario

SHAPE = (
    'a line looks like {"model": "…", "messages": [{"role": "user", "content": "…"}]}, with any further keys '
    'of the body, or like {"method": "POST", "url": "/v1/chat/completions", "body": {…}}'
)
FRAME_KEYS = ("custom_id", "method", "url", "body", "timestamp", "headers", *SESSION_KEYS)
UNSENT_HEADERS = frozenset({*OWN_HEADERS, "accept", "user-agent"})
"""Recorded headers that bltybench sets itself. Credentials are those of the target."""
CHAT_PATH = "/chat/completions"
MAX_BODY_TOKENS = 10**9
"""Largest bound of a completion that a body can have, in tokens."""


def read_requests(path: Path) -> Conversations:
    """Read a file, unless this process has already read it.

    Raise UserError with file and line for an error.
    """
    return read_rows(path, version_of(path), "requests file", SHAPE, _request)


def require_bounds(name: str, scenario: Scenario, target: Target, base_dir: Path) -> None:
    """Raise UserError if the budget caps tokens or money, but a body has no bound of its completion."""
    if target.budget.tokens is None and target.budget.money is None:
        return
    for call in scenario.mix:
        if call.requests is None:
            continue
        for row in read_requests(base_dir / call.requests.file).every:
            if row.max_tokens is None:
                raise UserError(
                    "the budget caps tokens or money, but this body has neither max_tokens nor "
                    "max_completion_tokens",
                    where=f"{row.where} (scenarios.{name}.mix[{call.name}])",
                    remedy="add one of them to the body, or cap requests instead",
                )


def without_bounds(scenario: Scenario, base_dir: Path) -> str | None:
    """Return which bodies of a scenario have no bound of their completion; None if all have one."""
    found: list[str] = []
    for call in scenario.mix:
        if call.requests is None:
            continue
        checked = read_requests(base_dir / call.requests.file).every.checked
        missing = [row.where for row in checked if row.max_tokens is None]
        if missing:
            place = missing[0].removeprefix(str(base_dir / call.requests.file)).lstrip(":, ")
            first = place if place.startswith("entry") else f"line {place}"
            found.append(
                f"{len(missing):,} of {len(checked):,} bodies in {call.requests.file} (the first: {first})"
            )
    return " and ".join(found) or None


def _request(row: object, where: str) -> Conversation:
    """Return the request of a line. Its messages and bound are those of its body."""
    frame: dict[str, Any] = row if isinstance(row, dict) and "body" in row else {"body": row}
    body = frame["body"]
    problem = _frame_problem(frame) or _body_problem(body)
    if problem or not isinstance(body, dict):
        raise UserError(problem or "not an object", where=where, remedy=SHAPE)
    try:
        checked: dict[str, Any] = as_json(body, "the body")
    except ValueError as error:
        raise UserError(str(error), where=where, remedy=SHAPE) from None
    headers = _headers(frame.get("headers") or {}, where)
    bound = max_completion_tokens(checked)
    return Conversation(checked["messages"], bound, None, body=checked, where=where, headers=headers)


def _headers(recorded: object, where: str) -> tuple[tuple[str, str], ...]:
    """Return the recorded headers that are sent. Raise UserError for one that can't be, without its value."""
    if not isinstance(recorded, dict) or not all(isinstance(value, str) for value in recorded.values()):
        raise UserError("headers is not an object of texts", where=where, remedy=SHAPE)
    sent = {
        name: value
        for name, value in recorded.items()
        if name.lower() not in UNSENT_HEADERS and not CREDENTIAL.search(name)
    }
    try:
        valid_headers(sent)
    except ValueError as error:
        raise UserError(f"headers: {error}", where=where, remedy="fix or remove the header") from None
    return tuple(sent.items())


def _frame_problem(frame: dict[str, Any]) -> str | None:
    """Return what is wrong with the keys next to a body, or None."""
    if unknown := frame.keys() - set(FRAME_KEYS):
        return f"unknown key {min(unknown)[:60]!r} next to body"
    method, url = frame.get("method", "POST"), frame.get("url", CHAT_PATH)
    if method != "POST" or not isinstance(url, str) or not url.endswith(CHAT_PATH):
        return f"{str(method)[:20]} {str(url)[:60]} is not a chat completion"
    return None


def _body_problem(body: object) -> str | None:
    """Return what is wrong with a body as far as measurement depends on it, or None."""
    if not isinstance(body, dict):
        return "not an object"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "no list of messages"
    if not all(isinstance(message, dict) for message in messages):
        return "a message is not an object"
    return _parameter_problem(body)


def _parameter_problem(body: dict[str, Any]) -> str | None:
    if not isinstance(body.get("model", ""), str):
        return "model must be text"
    if not isinstance(body.get("stream", False), bool | None):
        return "stream must be true or false"
    bound = max_completion_tokens(body) or 1
    if isinstance(bound, bool) or not 0 < bound * choices(body) <= MAX_BODY_TOKENS:
        return "max_tokens must be a positive integer"
    return None
