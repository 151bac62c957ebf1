"""The attempt record: one flat, typed, immutable row per HTTP attempt, whatever its outcome."""

from enum import StrEnum

import msgspec

FORMAT_VERSION = 2
"""Version of the columns below. docs/format.md lists the changes; readers refuse newer versions."""


class Outcome(StrEnum):
    """Outcome of an attempt. Exactly one applies."""

    OK = "ok"
    RATE_LIMITED = "rate_limited"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TRANSPORT_ERROR = "transport_error"
    TIMEOUT = "timeout"
    BROKEN_STREAM = "broken_stream"
    NO_ANSWER = "no_answer"
    """A 2xx response without content, reasoning, a tool call, a refusal, or audio."""
    CANCELLED = "cancelled"


class Stamp(StrEnum):
    """Source of arrival timestamps: the kernel on arrival, or this process after the read."""

    KERNEL = "kernel"
    USER = "user"


class TokensSource(StrEnum):
    """Source of token counts: the server's usage, or an estimate.

    Estimates are from the local tokenizer; those of streams in runs of format 1, from the number of events.
    """

    USAGE = "usage"
    TOKENIZER = "tokenizer"
    EVENTS = "events"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One HTTP attempt.

    Times (``*_ns``) are integer nanoseconds since the start of the run on one monotonic axis. ``connect_ns``
    and ``tls_ns`` are durations. Missing values are None, never 0.
    """

    # identity
    worker: str
    user: int | None = None
    """Number of the Locust user, or of the client in a log. None if the log does not name it."""
    scenario: str
    target: str | None = None
    key: str | None = None
    """Name of the environment variable that holds the key. None if the target has no such key."""
    stage: str | None = None
    """Step of the ramp or search that the call belongs to."""
    name: str | None = None
    """Call name from the mix or the locustfile."""
    turn: int | None = None
    """Turn within the conversation or recorded session, from 1. None outside."""
    call_id: str
    """API call. All attempts of a call share it."""
    attempt: int
    """0 for the first attempt of a call, then 1, 2, …"""
    request_id: str | None = None
    response_id: str | None = None

    # times
    due_ns: int
    """Time at which the schedule, or the retry policy, planned to send the attempt."""
    held_until_ns: int | None = None
    """Time until which it waited for the answer before it in a recorded session, or for its pacing. None if
    it did not wait."""
    paced_ns: int | None = None
    """Time for which the pacing held it. None if it did not."""
    sent_ns: int | None = None
    """Time just before the first request byte was written. None if it was never sent."""
    headers_ns: int | None = None
    first_token_ns: int | None = None
    """Arrival of the first event with content, reasoning, a tool call, a refusal, or audio. Streams only."""
    first_output_ns: int | None = None
    """The same, ignoring reasoning."""
    last_token_ns: int | None = None
    end_ns: int
    """Arrival of the last byte, or the time the attempt was abandoned."""
    connect_ns: int | None = None
    """Time to connect. None on a connection that was already open."""
    tls_ns: int | None = None
    gaps_us: list[int] | None = None
    """Microseconds between successive content events: one fewer than the events. Streams only."""

    # outcome
    outcome: Outcome
    status: int | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    """Redacted, at most ``bltybench.text.MAX_MESSAGE_CHARS`` characters."""
    finish_reason: str | None = None
    notes: str | None = None
    """Deviations of the server that damaged nothing, separated by commas: the names of docs/dialects.md."""

    # answer, of the first choice and only if the outcome is ok
    tool_calls: int | None = None
    """Number of tool calls. None if the request has no ``tools``."""
    json_valid: bool | None = None
    """Whether the arguments of its tool calls, or else its content if the request asks for JSON, are JSON.
    None if there is nothing to check, or if it can't be checked (note ``unchecked``)."""
    schema_valid: bool | None = None
    """Whether those with a schema satisfy it, and each tool called is one of the request's."""

    # work
    endpoint: str
    model: str | None = None
    """Model that the response names, or else ``requested_model``."""
    requested_model: str | None = None
    """Model that the request names."""
    stream: bool | None = None
    """Whether a stream was requested. None if a log does not say."""
    wanted_prompt_tokens: int | None = None
    """Tokens the prompt was built to have, by the local tokenizer. ``max_tokens`` is the requested
    completion."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    tokens_source: TokensSource | None = None
    max_tokens: int | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None

    # quota, as reported by the rate-limit headers
    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    """Seconds from the response until the reset, whatever the header's format."""
    window_requests_s: float | None = None
    """Length of the window, if a policy states it."""
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None
    retry_after_s: float | None = None
    """Wait that the headers announced, or else the body."""
    header_dialect: str | None = None
    waited_s: float | None = None
    """Time the retry policy waited before the next attempt. None if there was none."""

    # trust
    stamp: Stamp | None = None
    observer_lag_us: int | None = None
    """Longest time received bytes waited in the kernel before they were read."""
    coalesced_events: int | None = None
    """Events that shared a read with a later one. Their timestamps are upper bounds."""
    first_token_coalesced: bool | None = None
    """Whether the first token is one of them, so that TTFT is an upper bound. None without a first token."""
    in_flight: int | None = None
    """Attempts this process had in flight when sending, including this one. None in an imported run."""

    @property
    def ttft_ns(self) -> int | None:
        """Time to first token, in nanoseconds; None if there was no first token."""
        if self.first_token_ns is None or self.sent_ns is None:
            return None
        return self.first_token_ns - self.sent_ns

    def __post_init__(self) -> None:
        """Reject a record that contradicts itself: a loud failure is better than a wrong row."""
        if self.attempt < 0 or (self.in_flight is not None and self.in_flight < 0):
            raise ValueError(f"attempt and in_flight must be 0 or more: {self.attempt}, {self.in_flight}")
        last = self.sent_ns
        for name in ("headers_ns", "first_token_ns", "last_token_ns", "end_ns"):
            at: int | None = getattr(self, name)
            if at is None:
                continue
            if last is not None and at < last:
                raise ValueError(f"{name} ({at}) precedes an earlier event ({last})")
            last = at
        if self.outcome is Outcome.OK and (self.status is None or not 200 <= self.status < 300):
            raise ValueError(f"an attempt with status {self.status} cannot be ok")
        if self.outcome is Outcome.RATE_LIMITED and self.status is None:
            raise ValueError("a refusal has a status")
        if (self.first_token_ns is None) != (self.gaps_us is None):
            raise ValueError("first_token_ns and gaps_us must be set together")


class GeneratorSecond(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One second of one load-generating process, to detect whether the generator was the bottleneck."""

    worker: str
    at_ns: int
    """End of the second, on the run's axis."""
    stall_us: int
    """Largest delay of an event-loop timer in this second."""
    cpu_share: float
    """CPU time of this process divided by wall time. 1.0 is one core."""
    cpu_wait_share: float | None = None
    """Fraction of wall time in which the main thread was runnable but not running (Linux)."""
    steal_share: float | None = None
    """Fraction of the machine's CPU time that the hypervisor gave to other guests (Linux)."""
    rss_bytes: int
    users: int
    in_flight: int
    sent: int
    """Attempts sent in this second."""
    schedule_delay_p50_us: int | None = None
    schedule_delay_p99_us: int | None = None
    schedule_delay_max_us: int | None = None
    observer_lag_p50_us: int | None = None
    """Over the attempts that ended in this second, each by its largest lag."""
    observer_lag_p99_us: int | None = None
    observer_lag_max_us: int | None = None
    events: int
    """Server-sent events of the attempts that ended in this second."""
    coalesced_events: int
    bytes_received: int
    no_free_user: int | None = None
    """Arrivals claimed in this second that were due before a user was idle: the user limit was reached."""
    never_sent: int | None = None
    """Arrivals that were due but had no user when the run ended. In the last row only."""
    paced: int | None = None
    """The same, if pacing held requests before them. In the last row only."""
    backlog: int
    """Responses received but not yet parsed at the end of the second."""
