"""Terms that a page explains where the pointer rests on them, and in a list at its end."""

import re

from markupsafe import Markup, escape

TERMS = {
    "TTFT": "Time to first token: from sending the request to the first token of a streamed response.",
    "ITL": "Inter-token latency: the time between two successive tokens of a stream.",
    "TPOT": "Time per output token: from the first token to the last, divided by the tokens after the first.",
    "goodput": "Calls that succeeded and met every objective of the scenario, as a fraction of all calls.",
    "open loop": "Requests are sent on schedule, whether or not earlier ones have ended, like independent "
    "users do. In a closed loop, each user waits for a response before sending again.",
    "observer lag": "How long arrived bytes waited before the load generator read them. If it is high, the "
    "generator was slow, not the server.",
    "Retry-After": "Response header: how many seconds to wait before the next request.",
    "call": "One API call of a client, with all its retries.",
    "attempt": "One HTTP request and its response. A call has several if it is retried.",
}
"""Definition by term."""
MARKED = ("TTFT", "ITL", "TPOT", "goodput", "open loop", "observer lag")
"""Terms that are marked in text; the others are only in the list."""
_MARKED = re.compile(rf"\b({'|'.join(MARKED)})\b", re.IGNORECASE)


def gloss(value: str) -> Markup:
    """Return escaped text in which each term has its definition as a tooltip. It works without scripts."""
    by_name = {name.lower(): meaning for name, meaning in TERMS.items()}

    def marked(found: re.Match[str]) -> str:
        return f'<abbr title="{escape(by_name[found[0].lower()])}">{found[0]}</abbr>'

    return Markup(_MARKED.sub(marked, str(escape(value))))  # noqa: S704 - escaped just now
