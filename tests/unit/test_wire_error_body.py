from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.text import MAX_MESSAGE_CHARS
from bltybench.wire.error_body import ErrorDetails, from_body


@pytest.mark.parametrize(
    ("body", "details"),
    [
        (
            {
                "error": {
                    "message": "Slow down",
                    "type": "requests",
                    "code": "rate_limit_exceeded",
                    "param": None,
                }
            },
            ErrorDetails("requests", "rate_limit_exceeded", "Slow down"),
        ),
        ({"error": "nope", "code": 7}, ErrorDetails(None, "7", "nope")),
        ({"message": "nope"}, ErrorDetails(None, None, "nope")),
        (
            {"detail": [{"loc": ["body"], "msg": "bad"}]},
            ErrorDetails(None, None, '[{"loc":["body"],"msg":"bad"}]'),
        ),
        ({"error": None}, ErrorDetails(None, None, None)),
        ({"error": {"message": 5, "type": ["x"], "code": True}}, ErrorDetails(None, None, "5")),
        ([1, 2], ErrorDetails(None, None, "[1,2]")),
    ],
)
def test_json_bodies_of_known_shapes_give_their_details(body: object, details: ErrorDetails) -> None:
    assert from_body(json.dumps(body).encode()) == details


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>", "502 Bad Gateway"),
        (b"<h1>Oops</h1><script>alert(1)</script><p>gone", "Oops gone"),
        (b"upstream connect error\r\n\r\n", "upstream connect error"),
        (b"", None),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_html_and_text_bodies_give_a_message(body: bytes, message: str | None) -> None:
    assert from_body(body) == ErrorDetails(None, None, message)


def test_keys_in_a_message_are_redacted() -> None:
    details = from_body(b'{"error":{"message":"bad key sk-abcdefghijkl","code":"tok-1"}}', ["tok-1"])
    assert details == ErrorDetails(None, "[redacted]", "bad key [redacted]")


@given(st.binary(max_size=300))
def test_any_body_gives_a_bounded_message_or_none(body: bytes) -> None:
    message = from_body(body, ["tok-9f8e7d6c5b4a"]).message
    assert message is None or 0 < len(message) <= MAX_MESSAGE_CHARS
