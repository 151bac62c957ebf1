from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.text import MAX_LINE_CHARS, MAX_MESSAGE_CHARS, REDACTED, sanitize

SECRET = "tok-9f8e7d6c5b4a"


@given(st.text(), st.text(alphabet="fghijklmno", min_size=3), st.booleans())
def test_any_text_becomes_one_short_printable_line_without_the_secret(
    text: str, secret: str, redact_keys: bool
) -> None:
    shown = sanitize(f"{text}{secret}{text}", [secret], redact_keys=redact_keys)
    assert len(shown) <= MAX_LINE_CHARS
    assert shown.isprintable()
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert secret not in shown.replace(REDACTED, "")


def test_words_stay_apart_and_all_scripts_stay() -> None:
    assert sanitize("  碧波\r\n万顷\t\u2028naïve  ") == "碧波 万顷 naïve"
    assert sanitize("a sk-1 b sk-1", ["sk-1", ""]) == f"a {REDACTED} b {REDACTED}"


def test_long_text_is_cut_at_the_limit() -> None:
    assert sanitize("x" * 300) == "x" * (MAX_LINE_CHARS - 1) + "…"
    assert len(sanitize("word " * 10_000, limit=MAX_MESSAGE_CHARS)) == MAX_MESSAGE_CHARS


def test_escape_sequences_and_control_characters_are_removed() -> None:
    assert sanitize("a\x1b[31mred\x1b[0m\x1b]0;title\x07 b\r\n\tc\u202edx\x9b2Jy") == "ared b cdxy"


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
def test_secrets_and_texts_like_keys_are_redacted(text: str) -> None:
    shown = sanitize(text, [SECRET], MAX_MESSAGE_CHARS, redact_keys=True)
    for part in ("abcdEFGH1234", "abc.def-123", "wxyz", SECRET, SECRET[:8], "7d6c5b4a"):
        assert part not in shown
