"""A request to a virtual API: its progress, its result for the probe, and its record in a run."""

from dataclasses import dataclass, field

from bltybench.limits.observations.classify import Decision, classify_response
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.protocol import ProbeRequest, Until
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.sandbox.quota import Grant

UNPAID_CODES = ("insufficient_quota",)
"""Codes of a 429 that is no refusal."""


@dataclass(kw_only=True)
class VirtualRequest:
    """One request and its response."""

    request: ProbeRequest
    sent_s: float
    prompt_tokens: int
    stage: str | None = None
    grant: Grant | None = None
    decided_s: float | None = None
    """Arrival of the response's head."""
    begun_s: float | None = None
    """Arrival of the first token."""
    end_s: float | None = None
    status: int | None = None
    accepted: bool | None = None
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    completion_tokens: int = 0
    served: bool = False
    """Whether it occupies a slot of the server."""
    cancelled: bool = False
    lost: bool = False
    error_type: None = None
    error_message: None = None

    @property
    def over(self) -> bool:
        """Whether the client no longer waits for it."""
        return self.end_s is not None

    @property
    def max_used_tokens(self) -> int:
        """Tokens that it counts in the probe's budget: the maximum if its usage is unknown."""
        if self.cancelled or self.lost:
            return self.request.max_total_tokens
        return self.prompt_tokens + self.completion_tokens if self.accepted else 0

    def reached(self, until: Until) -> bool:
        """Return whether the request has come this far, or has ended."""
        if self.over:
            return True
        if until == "decided":
            return self.decided_s is not None
        return until == "begun" and self.begun_s is not None

    @property
    def outcome(self) -> Outcome:
        """Outcome that a run would record."""
        if self.lost:
            return Outcome.TRANSPORT_ERROR
        if self.cancelled:
            return Outcome.CANCELLED
        if self.status is None:
            return Outcome.TIMEOUT
        if self.status == 429 and self.code not in UNPAID_CODES:
            return Outcome.RATE_LIMITED
        if self.status < 400:
            return Outcome.OK
        return Outcome.CLIENT_ERROR if self.status < 500 else Outcome.SERVER_ERROR

    @property
    def error_code(self) -> str | None:
        """Code of the error."""
        return self.code or None

    @property
    def decision(self) -> Decision | None:
        """Decision, once the client knows it."""
        if self.decided_s is None:
            return None
        if self.accepted:
            return Decision.ACCEPTED
        if self.status is None:
            return Decision.LOST
        if self.accepted is False:
            return classify_response(self, (self.status,))
        return Decision.CLIENT_ERROR if self.status < 500 else Decision.SERVER_ERROR

    def result(self) -> ProbeResult:
        """Return the result so far."""
        reset = self._number("x-ratelimit-reset")
        return ProbeResult(
            role=self.request.role,
            sent_s=self.sent_s,
            decided_s=self.decided_s,
            begun_s=self.begun_s,
            end_s=self.end_s,
            cancelled=self.cancelled,
            decision=self.decision,
            status=self.status if self.decided_s is not None else None,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens if self.over else 0,
            max_tokens=self.request.max_tokens,
            limit=self._number("x-ratelimit-limit"),
            remaining=self._number("x-ratelimit-remaining"),
            reset_s=None if reset is None or self.decided_s is None else reset - self.decided_s,
            retry_after_s=self._number("retry-after"),
        )

    def attempt(self, start_s: float) -> Attempt:
        """Return the record in a run that began at ``start_s``."""
        result = self.result()

        def ns(at_s: float) -> int:
            return round((at_s - start_s) * 1e9)

        times_s = (self.sent_s, self.decided_s, self.begun_s)
        last_s = max(at_s for at_s in times_s if at_s is not None)
        return Attempt(
            worker="w0",
            user=0,
            scenario="simulated",
            stage=self.stage,
            name=self.request.role,
            call_id="",
            attempt=0,
            due_ns=ns(self.sent_s),
            sent_ns=ns(self.sent_s),
            headers_ns=None if self.lost or self.decided_s is None else ns(self.decided_s),
            first_token_ns=None if self.begun_s is None else ns(self.begun_s),
            end_ns=ns(last_s if self.end_s is None else self.end_s),
            gaps_us=None if self.begun_s is None else [],
            outcome=self.outcome,
            status=None if self.lost else self.status,
            error_code=self.error_code,
            endpoint="/chat/completions",
            stream=self.request.stream,
            wanted_prompt_tokens=self.prompt_tokens,
            prompt_tokens=None if self.cancelled else self.prompt_tokens,
            completion_tokens=None if self.cancelled else result.completion_tokens,
            max_tokens=self.request.max_tokens,
            bytes_sent=0,
            bytes_received=0,
            limit_requests=result.limit,
            remaining_requests=result.remaining,
            reset_requests_s=result.reset_s,
            retry_after_s=result.retry_after_s,
            header_dialect=None if result.limit is None else "x-ratelimit",
            in_flight=1,
        )

    def _number(self, header: str) -> int | None:
        value = self.headers.get(header, "")
        return int(value) if value.isdigit() else None
