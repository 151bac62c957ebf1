"""A request to the virtual API: its progress, and the record that a run would hold of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bltybench.limits.observations.classify import Decision, classify_response
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.protocol import ProbeRequest
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.sandbox.quota import Grant

BILLING_CODES = ("insufficient_quota",)
"""Codes of a 429 that is not a refusal, because waiting does not help."""


@dataclass(kw_only=True)
class VirtualRequest:
    """One request to the virtual API."""

    shot: ProbeRequest
    sent_s: float
    prompt: int
    grant: Grant | None = None
    decided_s: float | None = None
    begun_s: float | None = None
    end_s: float | None = None
    status: int | None = None
    code: str = ""
    cancelled: bool = False
    accepted: bool | None = None
    tokens: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    served: bool = False
    over: bool = False
    lost: bool = False
    stage: str | None = None
    error_type: None = None
    error_message: None = None

    def number(self, name: str) -> int | None:
        """Return the value of a header; None if it is missing or not a number."""
        value = self.headers.get(name, "")
        return int(value) if value.isdigit() else None

    def reached(self, until: str) -> bool:
        """Return whether it is ``decided``, ``begun``, or ``over``."""
        if self.end_s is not None:
            return True
        if until == "decided":
            return self.decided_s is not None
        return until == "begun" and self.begun_s is not None

    @property
    def outcome(self) -> Outcome:
        """The outcome that a run would record."""
        if self.lost:
            return Outcome.TRANSPORT_ERROR
        if self.cancelled:
            return Outcome.CANCELLED
        if self.status is None:
            return Outcome.TIMEOUT
        if self.status == 429 and self.code not in BILLING_CODES:
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
        """The decision, as far as it is known to the client."""
        if self.decided_s is None:
            return None
        if self.accepted:
            return Decision.ACCEPTED
        if self.status is None:
            return Decision.LOST
        if self.accepted is False:
            return classify_response(self, refusal_status=self.status)
        return Decision.CLIENT_ERROR if self.status < 500 else Decision.SERVER_ERROR

    def result(self) -> ProbeResult:
        """Return its result as far as the client knows it."""
        number, reset = self.number, self.number("x-ratelimit-reset")
        return ProbeResult(
            role=self.shot.role,
            sent_s=self.sent_s,
            decided_s=self.decided_s,
            begun_s=self.begun_s,
            end_s=self.end_s,
            cancelled=self.cancelled,
            decision=self.decision,
            status=self.status if self.decided_s is not None else None,
            prompt_tokens=self.prompt,
            completion_tokens=self.tokens if self.end_s is not None else 0,
            max_tokens=self.shot.max_tokens,
            limit=number("x-ratelimit-limit"),
            remaining=number("x-ratelimit-remaining"),
            reset_s=None if reset is None or self.decided_s is None else reset - self.decided_s,
            retry_after_s=number("retry-after"),
        )

    def attempt(self, start_s: float) -> Attempt:
        """Return the record of it in a run that began at ``start_s``."""
        result = self.result()

        def ns(at_s: float | None) -> int | None:
            return None if at_s is None else round((at_s - start_s) * 1e9)

        times = [self.sent_s, self.decided_s, self.begun_s]
        end_s = self.end_s if self.end_s is not None else max(at_s for at_s in times if at_s is not None)
        return Attempt(
            worker="w0",
            user=0,
            scenario="simulated",
            stage=self.stage,
            name=self.shot.role,
            call_id="",
            attempt=0,
            due_ns=round((self.sent_s - start_s) * 1e9),
            sent_ns=ns(self.sent_s),
            headers_ns=None if self.lost else ns(self.decided_s),
            first_token_ns=ns(self.begun_s),
            end_ns=round((end_s - start_s) * 1e9),
            gaps_us=None if self.begun_s is None else [],
            outcome=self.outcome,
            status=None if self.lost else self.status,
            error_code=self.error_code,
            endpoint="/chat/completions",
            stream=self.shot.stream,
            wanted_prompt_tokens=self.prompt,
            prompt_tokens=None if self.cancelled else self.prompt,
            completion_tokens=None if self.cancelled else result.completion_tokens,
            max_tokens=self.shot.max_tokens,
            bytes_sent=0,
            bytes_received=0,
            limit_requests=result.limit,
            remaining_requests=result.remaining,
            reset_requests_s=result.reset_s,
            retry_after_s=result.retry_after_s,
            header_dialect=None if result.limit is None else "x-ratelimit",
            in_flight=1,
        )
