"""What went wrong, in the server's words: found in error bodies of many shapes, made safe to keep."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from bltybench.runs.attempt import MAX_MESSAGE_CHARS
from bltybench.wire.sse.chunk import decode_any

MAX_NAME_CHARS = 80
"""Bound for types, codes, ids and the like."""
_SCAN_CHARS = 8 * MAX_MESSAGE_CHARS
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?|\x9b[0-?]*[ -/]*[@-~]")
_MARKUP = re.compile(r"<(script|style)\b.*?(</\1>|$)|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_KEYS = re.compile(
    r"\b(bearer\s+)[^\s\"',;]{4,}|\b(sk|pk|rk|gsk|xai|api|key)-[A-Za-z0-9_*.\-]{6,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]+",
    re.IGNORECASE,
)
_HIDDEN = "[redacted]"


class Problem(NamedTuple):
    """Type, code and message of an error, as far as the server gave them; safe to store and to show."""

    type: str | None = None
    code: str | None = None
    message: str | None = None


def clean(text: str, secrets: Iterable[str] = (), limit: int = MAX_MESSAGE_CHARS) -> str:
    """Return ``text`` without keys, control characters and terminal escapes, at most ``limit`` long."""
    # Secrets first and over the whole text: cutting or removing first could split one past recognition.
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    text = text[:_SCAN_CHARS]
    if not (text.isascii() and text.isprintable()):
        text = _ANSI.sub("", text)
        text = "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)
        for secret in secrets:
            text = text.replace(secret, _HIDDEN)
    if _may_hold_key(text):
        text = _KEYS.sub(_HIDDEN, text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _may_hold_key(text: str) -> bool:
    """Tell most texts that hold no key from the others, at a fraction of what searching for keys costs."""
    low = text.lower()
    return "k-" in low or "y-" in low or "i-" in low or "bearer" in low or "eyj" in low or not text.isascii()


def name_or_none(value: Any, secrets: Iterable[str] = ()) -> str | None:
    """Return a short server-sent name (a type, a code, an id), or None where there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    if isinstance(value, int) and abs(value) > 1 << 53:
        return None
    return clean(str(value), secrets, MAX_NAME_CHARS) or None


def from_body(body: bytes, secrets: Iterable[str] = ()) -> Problem:
    """Return what an error body says: OpenAI's shape, simpler ones, HTML or plain text."""
    try:
        value = decode_any(body)
    except ValueError:
        return Problem(message=_prose(body, secrets))
    return from_value(value.get("error", value) if isinstance(value, dict) else value, secrets, value)


def from_value(error: Any, secrets: Iterable[str] = (), whole: Any = None) -> Problem:
    """Return what a decoded error says; ``whole`` is the object around it."""
    if isinstance(error, str):
        code = whole.get("code") if isinstance(whole, dict) else None
        return Problem(code=name_or_none(code, secrets), message=clean(error, secrets) or None)
    if not isinstance(error, dict):
        return Problem(message=clean(str(error), secrets) if error is not None else None)
    message = next(
        (error[key] for key in ("message", "detail", "error_description", "msg", "title") if error.get(key)),
        None,
    )
    if message is not None and not isinstance(message, str):
        message = msgspec.json.encode(message).decode("utf-8", "replace")
    return Problem(
        type=name_or_none(error.get("type"), secrets),
        code=name_or_none(error.get("code"), secrets),
        message=clean(message, secrets) or None if message is not None else None,
    )


def _prose(body: bytes, secrets: Iterable[str]) -> str | None:
    text = body[: 16 * _SCAN_CHARS].decode("utf-8", "replace")
    if "<" in text:
        title = _TITLE.search(text)
        text = title.group(1) if title and title.group(1).strip() else _MARKUP.sub(" ", text)
    return clean(text, secrets) or None
