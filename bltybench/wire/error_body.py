"""Error details from response bodies of many shapes, redacted so that they are safe to store."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from bltybench.text import MAX_MESSAGE_CHARS, sanitize
from bltybench.wire.sse.chunk import decode_any, json_text
from bltybench.wire.sse.error_shapes import CODE_KEYS, LIMIT_TYPE_KEYS, MESSAGE_KEYS, TYPE_KEYS

MAX_NAME_CHARS = 80
"""Limit for types, codes, and identifiers."""
MAX_PROSE_BYTES = 128 * MAX_MESSAGE_CHARS
"""Part of an HTML or text body that is searched for a message."""
_MARKUP = re.compile(r"<(script|style)\b.*?(</\1>|$)|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)


class ErrorDetails(NamedTuple):
    """Type, code, and message of an error, as far as the server reported them; safe to store and to show."""

    type: str | None = None
    code: str | None = None
    message: str | None = None

    def with_limit_type(self, limit_type: str | None) -> "ErrorDetails":
        """Return the details with the limit that refused after the code, unless the code contains it."""
        if limit_type is None or limit_type in (self.code or "").split():
            return self
        return self._replace(code=f"{self.code or ''} {limit_type}".strip()[:MAX_NAME_CHARS])


def redacted(text: str, secrets: Iterable[str] = (), limit: int = MAX_MESSAGE_CHARS) -> str:
    """Return a server-sent message, sanitized and without anything that looks like a key."""
    return sanitize(text, secrets, limit, redact_keys=True)


def name_or_none(value: Any, secrets: Iterable[str] = ()) -> str | None:
    """Return a short server-sent name (a type, a code, an identifier), or None if there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    if isinstance(value, int) and abs(value) > 1 << 53:
        return None
    return sanitize(str(value), secrets, MAX_NAME_CHARS, redact_keys=True) or None


def from_body(body: bytes, secrets: Iterable[str] = ()) -> ErrorDetails:
    """Return the details in an error body: OpenAI's shape, simpler JSON, HTML, or plain text."""
    try:
        value = decode_any(body)
    except ValueError:
        return ErrorDetails(message=_prose(body, secrets))
    return from_value(value, secrets)


def from_value(value: Any, secrets: Iterable[str] = ()) -> ErrorDetails:
    """Return the details in a decoded error, or in the object or list that contains it."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0]
    parent = value if isinstance(value, dict) else {}
    error = parent.get("error", parent.get("errors", value))
    if isinstance(error, list) and error and isinstance(error[0], dict):
        error = error[0]
    if isinstance(error, str):
        return ErrorDetails(
            type=_first_name(parent, TYPE_KEYS, secrets),
            code=_first_name(parent, CODE_KEYS, secrets),
            message=redacted(error, secrets) or None,
        ).with_limit_type(_first_name(parent, LIMIT_TYPE_KEYS, secrets))
    if not isinstance(error, dict):
        return ErrorDetails(message=redacted(json_text(error), secrets) if error is not None else None)
    message = next((error[key] for key in MESSAGE_KEYS if error.get(key)), None)
    if message is not None and not isinstance(message, str):
        message = json_text(message)
    if quota := _violated_quota(error):
        message = ": ".join(filter(None, (quota, message)))
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):  # OpenRouter: the words of its provider
        raw = metadata["raw"]
        message = ": ".join(filter(None, (message, raw if isinstance(raw, str) else json_text(raw))))
    return ErrorDetails(
        type=_first_name(error, TYPE_KEYS, secrets),
        code=_first_name(error, CODE_KEYS, secrets),
        message=redacted(message, secrets) or None if message is not None else None,
    ).with_limit_type(_first_name(error, LIMIT_TYPE_KEYS, secrets))


def _violated_quota(error: dict[str, Any]) -> str | None:
    """Return the first quota of Google's QuotaFailure, which names the period that the message omits."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        violations = detail.get("violations") if isinstance(detail, dict) else None
        if isinstance(violations, list) and violations and isinstance(violations[0], dict):
            return name_or_none(violations[0].get("quotaId"))
    return None


def _first_name(error: dict[str, Any], keys: Iterable[str], secrets: Iterable[str]) -> str | None:
    return next((name for key in keys if (name := name_or_none(error.get(key), secrets))), None)


def _prose(body: bytes, secrets: Iterable[str]) -> str | None:
    text = body[:MAX_PROSE_BYTES].decode("utf-8", "replace")
    if "<" in text:
        title = _TITLE.search(text)
        text = title.group(1) if title and title.group(1).strip() else _MARKUP.sub(" ", text)
    return redacted(text, secrets) or None
