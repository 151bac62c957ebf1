"""Text from a server, made fit to be shown: one line, short, and without secrets."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MAX_CHARS = 160
MASK = "[key]"


def clean(text: str, secrets: Iterable[str] = (), limit: int = MAX_CHARS) -> str:
    """Return ``text`` with ``secrets`` masked, without control characters, of at most ``limit`` characters.

    Control characters could move the cursor or set the title of the terminal that shows them; format
    characters (bidirectional overrides, zero-width) could make the line read as something else.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    # Cut before the walk over characters, generously, since runs of spaces shrink to one.
    text = "".join(
        " " if (kind := unicodedata.category(char)) == "Cc" or kind.startswith("Z") else char
        for char in text[: 8 * limit]
        if unicodedata.category(char) not in {"Cf", "Cs", "Co", "Cn"}
    )
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
