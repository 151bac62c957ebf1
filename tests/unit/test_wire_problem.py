from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.runs.attempt import MAX_MESSAGE_CHARS
from bltybench.wire.error_body import Problem, clean, from_body

SECRET = "tok-9f8e7d6c5b4a"


@pytest.mark.parametrize(
    ("body", "problem"),
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
            Problem("requests", "rate_limit_exceeded", "Slow down"),
        ),
        ({"error": "nope", "code": 7}, Problem(None, "7", "nope")),
        ({"message": "nope"}, Problem(None, None, "nope")),
        (
            {"detail": [{"loc": ["body"], "msg": "bad"}]},
            Problem(None, None, '[{"loc":["body"],"msg":"bad"}]'),
        ),
        ({"error": None}, Problem(None, None, None)),
        ({"error": {"message": 5, "type": ["x"], "code": True}}, Problem(None, None, "5")),
        ([1, 2], Problem(None, None, "[1, 2]")),
    ],
)
def test_json_bodies(body: object, problem: Problem) -> None:
    assert from_body(json.dumps(body).encode()) == problem


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
def test_other_bodies(body: bytes, message: str | None) -> None:
    assert from_body(body) == Problem(None, None, message)


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abcdEFGH1234. See",
        "header was 'Authorization: Bearer abc.def-123'",
        "sk-****************wxyz",
        f"your token {SECRET} is not valid",
        f"your token tok-9f8e\x1b[0m7d6c5b4a is {SECRET[:6]}\x00{SECRET[6:]}",
        "x" * (MAX_MESSAGE_CHARS - 3) + SECRET,
    ],
)
def test_keys_are_hidden(text: str) -> None:
    shown = clean(text, [SECRET])
    for part in ("abcdEFGH1234", "abc.def-123", "wxyz", SECRET, SECRET[:8], "7d6c5b4a"):
        assert part not in shown


def test_escapes_and_controls_are_removed() -> None:
    assert clean("a\x1b[31mred\x1b[0m\x1b]0;title\x07 b\r\n\tc\u202edx\x9b2Jy") == "ared b cdxy"


def test_length_is_bounded() -> None:
    assert len(clean("word " * 10_000)) == MAX_MESSAGE_CHARS


@given(st.text(), st.sampled_from([[], [SECRET]]))
def test_any_text_becomes_safe(text: str, secrets: list[str]) -> None:
    shown = clean(text + SECRET, secrets)
    assert shown.isprintable()
    assert len(shown) <= MAX_MESSAGE_CHARS
    assert not secrets or SECRET not in shown


@given(st.binary(max_size=300))
def test_any_body_gives_a_problem(body: bytes) -> None:
    message = from_body(body, [SECRET]).message
    assert message is None or 0 < len(message) <= MAX_MESSAGE_CHARS
