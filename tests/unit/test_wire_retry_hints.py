"""Waits that the body of an error announces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support_wire import ended_exchange

from bltybench.wire.interpret import interpret
from bltybench.wire.ratelimit_headers import parse_quota
from bltybench.wire.retry_hints import wait_in_message


@pytest.mark.parametrize(
    ("message", "wait_s"),
    [
        ("Rate limit reached. Please try again in 2.5s.", 2.5),  # OpenAI
        ("Please try again in 20 seconds", 20),
        ("Please try again in 1m30s. Need more?", 90),  # Groq
        ("please try again in 120ms", 0.12),
        ("please try again after 1 seconds", 1),  # Moonshot
        ("Please retry after 6 seconds.", 6),  # Azure
        ("Please retry in 35.236s.", 35.236),  # Google
        ("try again in 1 hour and 5 minutes", 3900),
        ("Please wait 7 sec before the next request", 7),
        ("try again in 6m0s", 360),
        ("try again later", None),
        ("try again in 3 steps", None),
        ("try again in 0x3c seconds", None),
        ("try again in 6_0 seconds", None),
        ("limit 60 s", None),
        (None, None),
    ],
)
def test_a_message_says_how_long_to_wait(message: str | None, wait_s: float | None) -> None:
    wait = wait_in_message(message)
    assert wait == (None if wait_s is None else pytest.approx(wait_s))


def refusal(value: Any, headers: str = "", *, stream: bool = False) -> Any:
    body = json.dumps(value)
    status, kind = (200, "text/event-stream") if stream else (429, "application/json")
    body = f"data: {body}\n\ndata: [DONE]\n\n" if stream else body
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return interpret(ended_exchange(f"{head}{body}".encode(), stream=stream)).quota


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        # Google, whose error is in a list
        (
            [
                {
                    "error": {
                        "code": 429,
                        "status": "RESOURCE_EXHAUSTED",
                        "message": "x",
                        "details": [RETRY_INFO],
                    }
                }
            ],
            3.5,
        ),
        ({"error": {"code": 429, "message": "wait", "retry_after": 2}}, 2),
        ({"error": {"code": 429, "message": "wait", "retry_after_ms": 1500}}, 1.5),
        # OpenRouter, which passes the headers of the provider on
        ({"error": {"code": 429, "message": "x", "metadata": {"headers": {"Retry-After": "9"}}}}, 9),
        ({"error": {"code": 429, "message": "try again in 20 seconds"}}, 20),
        ({"error": {"code": 429, "message": "x", "retry_after": "1e999"}}, None),
        ({"error": {"code": 429, "message": "x", "retry_after": "6_0"}}, None),
        ({"error": {"code": 429, "message": "x", "retry_after": "0x3c"}}, None),
        ({"error": {"code": 429, "message": "x", "retry_after": True}}, None),
        ({"error": {"code": 429, "message": "x", "retry_after": -1}}, None),
    ],
)
def test_the_wait_in_a_body_is_taken(*, value: Any, wait_s: float | None, stream: bool) -> None:
    assert refusal(value, stream=stream).retry_after_s == wait_s


def test_a_header_takes_precedence_over_the_body() -> None:
    quota = refusal({"error": {"message": "try again in 20s"}}, "Retry-After: 3\r\n")
    assert (quota.retry_after_s, quota.dialect) == (3, "retry-after")


def test_headers_in_a_body_complete_the_quota() -> None:
    headers = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"}
    quota = refusal({"error": {"code": 429, "message": "x", "metadata": {"headers": headers}}})
    assert (quota.limit_requests, quota.remaining_requests, quota.reset_requests_s) == (20, 0, 30)


@pytest.mark.parametrize("text", ["1e999", "6_0", "0x3c", "inf", "nan", "١٢", "1e5"])
def test_what_only_python_reads_as_a_number_is_no_header_value(text: str) -> None:
    quota = parse_quota([("retry-after", text), ("x-ratelimit-remaining", text)], 1.8e9)
    assert (quota.retry_after_s, quota.remaining_requests) == (None, None)
