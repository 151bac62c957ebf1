"""The decision about an attempt, row by row of the table in ``classify``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_runs import S, attempt
from support_wire import ended_exchange

from bltybench.limits.observations.classify import (
    Decision,
    classify,
    classify_response,
    refusal_statuses,
)
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.wire.interpret import interpret

ACCEPTED, BROKEN = Decision.ACCEPTED, Decision.BROKEN
BY_REQUESTS, BY_TOKENS = Decision.REFUSED_BY_REQUESTS, Decision.REFUSED_BY_TOKENS
BY_CONCURRENCY, REFUSED = Decision.REFUSED_BY_CONCURRENCY, Decision.REFUSED
OVERLOAD, BILLING, LOST, CANCELLED = Decision.OVERLOAD, Decision.BILLING, Decision.LOST, Decision.CANCELLED
CLIENT_ERROR, SERVER_ERROR = Decision.CLIENT_ERROR, Decision.SERVER_ERROR
BUSY = "The engine is currently overloaded, please try again later"


def response(
    status: int | None,
    error_type: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
    *,
    outcome: str | None = None,
    **fields: Any,
) -> Attempt:
    """Return an attempt with the outcome that is usual for its status."""
    if status is None or status == 429:
        usual = "timeout" if status is None else "rate_limited"
    else:
        usual = "ok" if status < 300 else "client_error" if status < 500 else "server_error"
    return attempt(
        outcome=Outcome(outcome or usual),
        status=status,
        error_type=error_type,
        error_code=error_code,
        error_message=error_message,
        **fields,
    )


@pytest.mark.parametrize(
    ("one", "decision"),
    [
        # No response
        (response(None, outcome="transport_error", sent_ns=None), Decision.NOT_SENT),
        (response(None, outcome="timeout"), LOST),
        (response(None, outcome="transport_error"), LOST),
        (response(None, outcome="cancelled"), CANCELLED),
        # A 2xx: limiters decide before they answer
        (response(200), ACCEPTED),
        (response(200, outcome="cancelled"), ACCEPTED),
        (response(200, outcome="timeout"), BROKEN),
        (response(200, outcome="transport_error"), BROKEN),
        (response(200, "no_answer", None, "starting", outcome="no_answer"), BROKEN),
        (response(200, "missing_done", outcome="broken_stream"), BROKEN),
        # An error that the 2xx reports
        (response(200, None, "rate_limit_exceeded", "Rate limit reached", outcome="broken_stream"), REFUSED),
        (response(200, None, "429", outcome="broken_stream"), REFUSED),
        (response(200, "overloaded_error", outcome="broken_stream"), OVERLOAD),
        (response(200, None, "rate_limit_exceeded", outcome="server_error"), REFUSED),
        (response(200, "insufficient_quota", outcome="client_error"), BILLING),
        (response(200, "requests", "rate_limit_exceeded", outcome="rate_limited"), BY_REQUESTS),
        # The head of an error without its body
        (response(429, outcome="timeout"), LOST),
        (response(503, outcome="timeout"), LOST),
        (response(429, outcome="cancelled"), CANCELLED),
        # An unpaid bill
        (response(429, "insufficient_quota", "insufficient_quota", outcome="client_error"), BILLING),
        (response(429, None, "billing_hard_limit_reached", outcome="client_error"), BILLING),
        (response(429, None, "insufficient_balance"), BILLING),
        (response(402), BILLING),
        (response(403, None, "insufficient_quota"), BILLING),
        # Overload
        (response(429, "overloaded_error"), OVERLOAD),
        (response(429, None, "engine_overloaded", outcome="server_error"), OVERLOAD),
        (response(429, None, None, BUSY), OVERLOAD),
        (response(503, None, None, BUSY), OVERLOAD),
        (response(503, None, None, "The model is at capacity"), OVERLOAD),
        (response(529, "overloaded_error"), OVERLOAD),
        (response(429, "rate_limit_error", None, f"Rate limit reached. {BUSY}"), REFUSED),
        (response(429, "requests", None, BUSY), BY_REQUESTS),
        # A refusal, and the limit that it names
        (response(429), REFUSED),
        (response(429, "rate_limit_error", "rate_limit_exceeded", "Too many requests"), REFUSED),
        (response(429, "requests", "rate_limit_exceeded", "Limit 3, used 3, requested 1."), BY_REQUESTS),
        (response(429, "rate_limit_error", "rate_limit_exceeded", "60 requests per 60 s."), BY_REQUESTS),
        (response(429, "tokens", "rate_limit_exceeded"), BY_TOKENS),
        (response(429, None, "token_limit_exceeded"), BY_TOKENS),
        (response(429, None, "rate_limit_exceeded", "Limit reached on tokens per min (TPM)"), BY_TOKENS),
        (response(429, None, "concurrency_limit_exceeded"), BY_CONCURRENCY),
        (response(429, None, None, "Too many requests in parallel"), BY_CONCURRENCY),
        (response(429, None, None, "Too many simultaneous requests"), BY_CONCURRENCY),
        (response(429, None, None, "10 requests are in flight already"), BY_CONCURRENCY),
        (response(429, None, "token_limit_exceeded", "Send fewer concurrent requests"), BY_TOKENS),
        (response(503, None, None, "Rate limit reached", outcome="rate_limited"), REFUSED),
        # Other errors
        (response(302), CLIENT_ERROR),
        (response(400, "invalid_request_error", None, "max_tokens is too large"), CLIENT_ERROR),
        (response(401, "authentication_error"), CLIENT_ERROR),
        (response(403), CLIENT_ERROR),
        (response(403, "permission_error", "model_access_denied"), CLIENT_ERROR),
        (response(500), SERVER_ERROR),
        (response(503), SERVER_ERROR),
    ],
)
def test_classify_follows_the_table(one: Attempt, decision: Decision) -> None:
    assert classify(one) is decision


@pytest.mark.parametrize(
    ("one", "status", "decision"),
    [
        (response(503), 503, REFUSED),
        (response(503), 403, SERVER_ERROR),
        (response(503), 429, SERVER_ERROR),
        (response(503, None, "token_limit_exceeded"), 503, BY_TOKENS),
        (response(503, None, None, BUSY), 503, OVERLOAD),
        (response(503, None, None, "no capacity left"), 503, OVERLOAD),
        (response(403), 403, REFUSED),
        (response(403), 503, CLIENT_ERROR),
        (response(403, "permission_error"), 403, CLIENT_ERROR),
        (response(403, None, None, "over capacity"), 403, CLIENT_ERROR),
        (response(429), 503, REFUSED),
        (response(500), 503, SERVER_ERROR),
    ],
)
def test_classify_takes_a_503_or_403_for_a_refusal_if_the_run_is_refused_with_it(
    one: Attempt, status: int, decision: Decision
) -> None:
    assert classify(one, (status,)) is decision


@pytest.mark.parametrize(
    ("attempts", "status"),
    [
        ([response(200), response(429)], 429),
        ([response(200), response(429), response(503)], 429),
        ([response(200), response(503)], 503),
        ([response(200), response(403), response(403), response(503)], 403),
        ([response(503)], None),
        ([response(200), response(503, None, None, BUSY)], None),
        ([response(200), response(429, None, None, BUSY)], None),
        ([response(200), response(403, "permission_error")], None),
        ([response(200), response(429, None, "insufficient_quota", outcome="client_error")], None),
        ([response(200), response(429, outcome="timeout")], None),
        ([response(200), response(500)], None),
        ([], None),
    ],
)
def test_refusal_status_is_explicit_or_stands_in_for_a_429(
    attempts: list[Attempt], status: int | None
) -> None:
    assert next(iter(refusal_statuses(attempts)), None) == status


@pytest.mark.parametrize(
    ("decisions", "statuses"),
    [
        ("ok ok 429 429 403 403 403 ok", {403: 3, 429: 2}),
        ("ok 429 503 503 503 429 429 429 ok", {429: 4, 503: 3}),
        ("ok 503 503 503 503 403 403 403 ok", {503: 4, 403: 3}),
        ("ok 429 403 403 ok", {429: 1}),  # too few
        ("403 ok 403 ok 429 403 ok 403 ok 403", {429: 1}),  # also while requests are accepted
        ("ok 503 ok 503 ok 503 ok 429 429", {429: 2}),
        ("429 403 403 403", {429: 1}),  # nothing shows that the key may do this
    ],
)
def test_other_statuses_are_refusals_if_they_come_while_requests_are_refused(
    decisions: str, statuses: dict[int, int]
) -> None:
    codes = [200 if code == "ok" else int(code) for code in decisions.split()]
    attempts = [response(code, sent_ns=number * S) for number, code in enumerate(codes)]
    assert refusal_statuses(attempts) == statuses
    decided = [classify(one, refusal_statuses(attempts)).refused for one in attempts]
    assert decided == [code in statuses for code in codes]


CROSSED = (
    "LiteLLM Rate Limit Handler for rate limit type = key. Crossed TPM / RPM / Max Parallel Request Limit. "
    "current rpm: 2, rpm limit: 2"
)


@pytest.mark.parametrize(
    ("error", "header", "decision"),
    [
        ({"message": "Exceeded for key tokens-1. Limit type: requests. Remaining: 0"}, "", BY_REQUESTS),
        ({"message": "Exceeded for api_key: ab. Limit type: tokens. Current limit: 9"}, "", BY_TOKENS),
        ({"message": "Limit type: max_parallel_requests. Limits count tokens too"}, "", BY_CONCURRENCY),
        ({"message": "slow", "code": "tokens"}, "", BY_TOKENS),
        ({"message": "tokens are left", "code": "requests"}, "", BY_REQUESTS),
        ({"message": "slow", "type": "rate_limit_error", "rate_limit_type": "tokens"}, "", BY_TOKENS),
        ({"message": "slow", "code": "429", "limit_type": "requests"}, "", BY_REQUESTS),
        ({"message": "slow", "code": "429"}, "rate_limit_type: max_parallel_requests", BY_CONCURRENCY),
        ({"message": "tokens are left", "code": "429"}, "Rate_Limit_Type: requests", BY_REQUESTS),
        ({"message": CROSSED, "code": "429"}, "", REFUSED),
        ({"message": CROSSED, "code": "429"}, "rate_limit_type: tokens", BY_TOKENS),
    ],
)
def test_the_limit_that_the_server_names_counts_before_the_words_of_its_message(
    error: dict[str, Any], header: str, decision: Decision
) -> None:
    body = json.dumps({"error": error})
    head = f"HTTP/1.1 429 X\r\nContent-Length: {len(body)}\r\n{header}{header and chr(13) + chr(10)}\r\n"
    assert classify_response(interpret(ended_exchange(f"{head}{body}".encode()))) is decision


@pytest.mark.parametrize(
    ("decisions", "accepted", "by_request_limit", "by_concurrency_limit"),
    [
        ({ACCEPTED, BROKEN}, True, True, True),
        ({REFUSED, BY_REQUESTS}, False, False, False),
        ({BY_TOKENS}, False, None, None),
        ({BY_CONCURRENCY}, False, None, False),
        ({Decision.REFUSED_BY_DAILY_CAP}, False, None, None),
        ({SERVER_ERROR, Decision.SLOW_DOWN}, None, None, None),
        ({OVERLOAD, BILLING, CLIENT_ERROR, LOST, CANCELLED, Decision.NOT_SENT}, None, None, None),
    ],
)
def test_a_decision_says_what_each_limit_decided(
    decisions: set[Decision],
    accepted: bool | None,
    by_request_limit: bool | None,
    by_concurrency_limit: bool | None,
) -> None:
    for decision in decisions:
        assert decision.accepted is accepted
        assert decision.by_request_limit is by_request_limit
        assert decision.by_concurrency_limit is by_concurrency_limit


TEXTS = st.sampled_from(
    ["", BUSY, "rate limit", "rate_limit_exceeded", "requests", "tokens", "insufficient_quota", "capacity"]
)


@given(
    status=st.sampled_from([200, 302, 400, 401, 402, 403, 429, 500, 503, 529]),
    error_type=TEXTS,
    error_code=TEXTS,
    message=TEXTS,
    remaining=st.sampled_from(["", "X-RateLimit-Remaining: 0\r\n", "X-RateLimit-Remaining: 3\r\n"]),
)
def test_a_response_is_recorded_as_rate_limited_if_and_only_if_it_is_a_refusal(
    *, status: int, error_type: str, error_code: str, message: str, remaining: str
) -> None:
    body = json.dumps({"error": {"type": error_type, "code": error_code, "message": message}})
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{remaining}\r\n"
    result = interpret(ended_exchange(f"{head}{body}".encode()))
    assert classify_response(result).refused is (result.outcome is Outcome.RATE_LIMITED)


LITELLM = "litellm.RateLimitError: OpenAIException - Rate limit reached for m on tokens per min (TPM)"
GATEWAYS = [
    # Error responses of gateways, and the decision for each 5xx
    ({"message": LITELLM, "type": "None", "code": "500"}, BY_TOKENS),
    ({"message": "x", "type": "throttling_error", "code": "500"}, REFUSED),  # LiteLLM
    ({"message": "x", "type": "upstream_error", "code": 429}, REFUSED),  # one-api
    ({"message": "bad response status code 429", "type": "upstream_error"}, REFUSED),  # one-api
    ({"message": {"error": {"code": 429, "message": "slow"}}}, REFUSED),
    ({"message": "429 Too Many Requests"}, REFUSED),
    (
        {
            "code": 502,
            "message": "Provider returned error",
            "metadata": {"raw": "m is temporarily rate-limited upstream", "provider_name": "p"},
        },
        REFUSED,
    ),  # OpenRouter
    ({"message": "You exceeded your current quota, please check your plan"}, BILLING),
    ({"message": "upstream 429: insufficient balance"}, BILLING),
    ({"message": "Rate limiter error"}, SERVER_ERROR),
    ({"message": "failed to reach the rate limit service"}, SERVER_ERROR),  # Envoy
    ({"message": "failed after 429 ms"}, SERVER_ERROR),
    ({"message": "Provider returned error"}, SERVER_ERROR),
]


@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize(("error", "decision"), GATEWAYS)
def test_a_gateway_that_wraps_a_refusal_has_refused(
    error: dict[str, Any], status: int, decision: Decision
) -> None:
    body = json.dumps({"error": error}).encode()
    head = b"HTTP/1.1 %d X\r\nX-RateLimit-Remaining: 0\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    result = interpret(ended_exchange(head + body))
    assert classify_response(result) is decision
    assert (result.outcome is Outcome.RATE_LIMITED) == decision.refused
    # Records of older versions have the outcome of the status.
    older = response(status, result.error_type, result.error_code, result.error_message)
    assert classify(older) is decision


@pytest.mark.parametrize(
    ("quota", "decision"),
    [
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", Decision.REFUSED_BY_DAILY_CAP),
        ("GenerateRequestsPerMinutePerProjectPerModel", BY_REQUESTS),
        ("GenerateContentInputTokensPerModelPerMinute-FreeTier", BY_TOKENS),
        ("GenerateContentInputTokensPerModelPerDay", Decision.REFUSED_BY_DAILY_CAP),
        (None, REFUSED),
    ],
)
def test_violated_quota_of_the_details_tells_which_limit_refused(
    quota: str | None, decision: Decision
) -> None:
    # Google: the message is the same for all of them, and can be longer than what is recorded.
    details: list[Any] = [{"@type": "type.googleapis.com/google.rpc.Help", "links": [{}]}, "?"]
    details.append(
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]}
    )
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slower. " * 90, "details": details}
    for body in ({"error": error}, [{"error": error}]):
        raw = json.dumps(body).encode()
        result = interpret(
            ended_exchange(b"HTTP/1.1 429 X\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw))
        )
        assert classify_response(result) is decision
