"""The result of an exchange: outcome, token counts and times, text, and quota headers."""

from typing import Any

import msgspec

from bltybench.runs.attempt import Outcome
from bltybench.wire.ratelimit_headers import Quota


class ExchangeResult(msgspec.Struct, kw_only=True, gc=False):
    """An interpreted exchange. Times are ``time.monotonic_ns``; None is what the server did not report."""

    outcome: Outcome
    status: int | None = None
    error_type: str | None = None
    """The server's error type, or a ``Fault`` if this side found the error."""
    error_code: str | None = None
    error_message: str | None = None
    finish_reason: str | None = None
    notes: str | None = None
    """Deviations that damaged nothing, separated by commas: the names of docs/dialects.md."""
    request_id: str | None = None
    response_id: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    streamed: bool = False
    """Whether server-sent events arrived. A server can ignore a request for a stream."""
    events: int = 0
    """Number of events with content, reasoning, a tool call, a refusal, or audio."""
    first_token_ns: int | None = None
    first_output_ns: int | None = None
    last_token_ns: int | None = None
    gaps_us: list[int] | None = None
    coalesced_events: int | None = None
    """Number of content events that shared their read with bytes of a later event."""
    first_token_coalesced: bool | None = None
    """Whether the first content event is one of them."""
    uncounted_text: str = ""
    """What the server generated, if it did not report its number of tokens."""
    estimated_tokens: int | None = None
    """Our count of that text, once it was needed."""
    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = msgspec.field(default_factory=list)
    declined: bool = False
    """Whether the model declined to answer (``refusal``), so the text is its refusal."""
    quota: Quota = msgspec.field(default_factory=Quota)
