"""Sanitizing of text from servers and files before it is stored or shown."""

import re
from collections.abc import Iterable

MAX_LINE_CHARS = 160
"""Default limit for text that is shown on one line of a terminal."""
MAX_MESSAGE_CHARS = 300
"""Limit for error messages: enough to recognize an error, too little to fill a disk."""
REDACTED = "[redacted]"
"""What replaces a secret."""

_SCANNED_PER_CHAR = 8
"""Input characters examined per character of the limit. Whitespace and escape sequences shrink."""
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?|\x9b[0-?]*[ -/]*[@-~]")
_KEYS = re.compile(
    r"\b(bearer\s+)[^\s\"',;]{4,}|\b(sk|pk|rk|gsk|xai|api|key)-[A-Za-z0-9_*.\-]{6,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]+",
    re.IGNORECASE,
)


def sanitize(
    text: str, secrets: Iterable[str] = (), limit: int = MAX_LINE_CHARS, *, redact_keys: bool = False
) -> str:
    """Return ``text`` as one printable line of at most ``limit`` characters, without ``secrets``.

    Control characters can move a terminal's cursor or set its title; format characters (bidirectional
    overrides, zero-width) can make a line read as something else. ``redact_keys`` also removes anything that
    looks like an API key or a token.
    """
    secrets = [secret for secret in secrets if secret]
    # Secrets go first, from the whole text: cutting or removing characters can split one beyond recognition.
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    text = text[: _SCANNED_PER_CHAR * limit]
    if not (text.isascii() and text.isprintable()):
        text = _ANSI.sub("", text)
        text = "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)
        for secret in secrets:
            text = text.replace(secret, REDACTED)
    if redact_keys and _may_hold_key(text):
        text = _KEYS.sub(REDACTED, text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _may_hold_key(text: str) -> bool:
    """Return whether ``_KEYS`` can match. Every match contains one of these, and this test is much faster."""
    low = text.lower()
    return "k-" in low or "y-" in low or "i-" in low or "bearer" in low or "eyj" in low or not text.isascii()
