"""Server text, made safe to show: one line, short, and without secrets."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MAX_CHARS = 160
MASK = "[key]"


def clean(text: str, secrets: Iterable[str] = (), limit: int = MAX_CHARS) -> str:
    """Return ``text`` with ``secrets`` masked and control characters removed, cut to ``limit`` characters.

    Control characters could move the terminal's cursor or set its title. Format characters (bidirectional
    overrides, zero-width) could make the line read differently.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    # Cut before iterating over characters, generously, because runs of spaces shrink to one.
    text = "".join(
        " " if (kind := unicodedata.category(char)) == "Cc" or kind.startswith("Z") else char
        for char in text[: 8 * limit]
        if unicodedata.category(char) not in {"Cf", "Cs", "Co", "Cn"}
    )
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
