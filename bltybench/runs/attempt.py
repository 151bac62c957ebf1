"""The record: one flat, typed, immutable row for every HTTP attempt, whatever became of it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

FORMAT_VERSION = 1
"""Version of the columns below. docs/format.md tells its history; readers refuse a newer one."""

MAX_MESSAGE_CHARS = 300
"""Server-sent text is untrusted and kept short: enough to recognise an error, too little to fill a disk."""


class Outcome(StrEnum):
    """What became of an attempt. Exactly one holds."""

    OK = "ok"
    RATE_LIMITED = "rate_limited"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TRANSPORT_ERROR = "transport_error"
    TIMEOUT = "timeout"
    BROKEN_STREAM = "broken_stream"
    CANCELLED = "cancelled"


class Stamp(StrEnum):
    """Who stamped the arrival of the bytes: the kernel when they came, or we after the read."""

    KERNEL = "kernel"
    USER = "user"


class TokensSource(StrEnum):
    """Where the token counts come from: the server, our tokenizer, or the number of content events."""

    USAGE = "usage"
    TOKENIZER = "tokenizer"
    EVENTS = "events"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One HTTP attempt.

    Times (``*_ns``) are integer nanoseconds from the run's start on one monotonic axis, except
    ``connect_ns`` and ``tls_ns``, which are durations. Absent is None, never 0.
    """

    # identity
    worker: str
    user: int
    scenario: str
    stage: str | None = None
    call_id: str
    """The logical request; its attempts share it."""
    attempt: int
    """0 for the first try of a call, then 1, 2, …"""
    request_id: str | None = None
    response_id: str | None = None

    # times
    due_ns: int
    """When the schedule (or, for a retry, the retry policy) wanted the attempt sent."""
    sent_ns: int | None = None
    """Just before the first byte of the request was written; None if it never was."""
    headers_ns: int | None = None
    first_token_ns: int | None = None
    """Arrival of the first event with non-empty content, reasoning or tool call. Streams only."""
    first_output_ns: int | None = None
    """The same, reasoning not counted."""
    last_token_ns: int | None = None
    end_ns: int
    """Arrival of the last byte, or the moment the attempt was given up."""
    connect_ns: int | None = None
    """How long connecting took; None on a connection that was already open."""
    tls_ns: int | None = None
    gaps_us: list[int] | None = None
    """Microseconds between successive content events; one fewer than there were. Streams only."""

    # outcome
    outcome: Outcome
    status: int | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    """Redacted, at most MAX_MESSAGE_CHARS characters."""
    finish_reason: str | None = None

    # work
    endpoint: str
    model: str | None = None
    stream: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    tokens_source: TokensSource | None = None
    max_tokens: int | None = None
    bytes_sent: int
    bytes_received: int

    # quota: what the rate-limit headers of the answer said
    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    """Seconds from the answer until the reset, whatever form the header had."""
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None
    retry_after_s: float | None = None
    header_dialect: str | None = None
    waited_s: float | None = None
    """How long the retry policy then waited before the next attempt; None if there was none."""

    # trust
    stamp: Stamp | None = None
    observer_lag_us: int | None = None
    """The longest that received bytes lay in the kernel before we read them."""
    coalesced_events: int | None = None
    """Events that shared a read with a later one: their stamp is an upper bound."""
    in_flight: int
    """Our own open attempts at the moment of sending, this one included."""

    def __post_init__(self) -> None:
        """Refuse a record that contradicts itself: a wrong row is worse than a loud failure."""
        if self.attempt < 0 or self.in_flight < 0:
            raise ValueError(f"attempt and in_flight must be 0 or more: {self.attempt}, {self.in_flight}")
        last = self.sent_ns
        for name in ("headers_ns", "first_token_ns", "last_token_ns", "end_ns"):
            at: int | None = getattr(self, name)
            if at is None:
                continue
            if last is not None and at < last:
                raise ValueError(f"{name} ({at}) lies before what came earlier ({last})")
            last = at
        if self.outcome is Outcome.OK and (self.status is None or not 200 <= self.status < 300):
            raise ValueError(f"an attempt with status {self.status} cannot be ok")
        if self.outcome is Outcome.RATE_LIMITED and self.status is None:
            raise ValueError("a refusal has a status")
        if (self.first_token_ns is None) != (self.gaps_us is None):
            raise ValueError("first_token_ns and gaps_us come together")


class GeneratorSecond(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One second in the life of one load-generating process: is it itself the bottleneck?"""

    worker: str
    at_ns: int
    """End of the second, on the run's axis."""
    stall_us: int
    """How late the event loop served a timer, at worst in this second."""
    cpu_share: float
    """CPU time of this process over wall time; 1.0 is one core."""
    cpu_wait_share: float | None = None
    """Share of wall time in which its main thread was ready to run and others had the core (Linux)."""
    steal_share: float | None = None
    """Share of the machine's CPU time that the hypervisor gave to others (Linux)."""
    rss_bytes: int
    users: int
    in_flight: int
    sent: int
    """Attempts sent in this second."""
    schedule_delay_p50_us: int | None = None
    schedule_delay_p99_us: int | None = None
    schedule_delay_max_us: int | None = None
    observer_lag_p50_us: int | None = None
    """Over the attempts that ended in this second, each with its worst lag."""
    observer_lag_p99_us: int | None = None
    observer_lag_max_us: int | None = None
    events: int
    """Server-sent events of the attempts that ended in this second."""
    coalesced_events: int
    bytes_received: int
    backlog: int
    """Answers received and not yet looked at, at the end of the second."""
