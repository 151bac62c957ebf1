from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bltybench.wire.ratelimit_headers import Quota, parse_quota, seconds_until

NOW = datetime(2026, 11, 22, 14, 0, 0, tzinfo=UTC).timestamp()

HEADER_FORMATS: list[tuple[dict[str, str], Quota]] = [
    ({"Content-Type": "application/json"}, Quota()),
    (
        {
            "X-RateLimit-Limit": "60",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": f"{NOW + 31:.0f}",
            "Retry-After": "31",
        },
        Quota(60, 0, 31.0, retry_after_s=31.0, dialect="x-ratelimit"),
    ),
    (
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "29000",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        Quota(500, 499, 0.12, 30000, 29000, 360.0, dialect="openai"),
    ),
    (
        {
            "retry-after-ms": "1500",
            "retry-after": "2",
            "x-ratelimit-remaining-requests": "-1",
            "x-ratelimit-reset-tokens": "7",
        },
        Quota(reset_tokens_s=7.0, retry_after_s=1.5, dialect="azure"),
    ),
    (
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-11-22T14:00:30Z",
            "anthropic-ratelimit-input-tokens-limit": "1",
            "anthropic-ratelimit-tokens-limit": "40000",
            "anthropic-ratelimit-tokens-remaining": "39000",
            "anthropic-ratelimit-tokens-reset": "2026-11-22T15:01:00+01:00",
            "retry-after": "12",
        },
        Quota(50, 49, 30.0, 40000, 39000, 60.0, 12.0, "anthropic"),
    ),
    (
        {
            "RateLimit-Limit": "4, 4;w=5",
            "RateLimit-Remaining": "3",
            "RateLimit-Reset": "5",
            "RateLimit-Policy": "4;w=5",
        },
        Quota(4, 3, 5.0, dialect="ietf-6"),
    ),
    ({"RateLimit": "limit=4, remaining=3, reset=5"}, Quota(4, 3, 5.0, dialect="ietf-7")),
    (
        {"RateLimit": '"4-in-5sec"; r=3; t=5', "RateLimit-Policy": '"4-in-5sec"; q=4; w=5'},
        Quota(4, 3, 5.0, dialect="ietf-8"),
    ),
    (
        {
            "RateLimit": '"burst";r=50;t=30, "daily";r=20;t=900, "conc";r=1',
            "RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400,"conc";q=5;qu="content-bytes"',
        },
        Quota(1000, 20, 900.0, dialect="ietf-8"),
    ),
    ({"RateLimit": "default;r=9;t=2"}, Quota(None, 9, 2.0, dialect="ietf-8")),
    (
        {
            "x-ratelimitbysize-limit-minute": "500000",
            "x-ratelimitbysize-remaining-minute": "499000",
            "ratelimitbysize-reset": "33",
        },
        Quota(None, None, None, 500000, 499000, 33.0, dialect="mistral"),
    ),
    (
        {
            "x-ratelimit-api_key-remaining-requests": "9",
            "x-ratelimit-api_key-limit-max_parallel_requests": "3",
        },
        Quota(None, 9, dialect="gateway"),
    ),
    ({"X-Rate-Limit-Limit": "10", "X-Rate-Limit-Remaining": "9"}, Quota(10, 9, dialect="x-ratelimit")),
    ({"X-RateLimit-Reset": f"{NOW * 1000 + 2500:.0f}"}, Quota(None, None, 2.5, dialect="x-ratelimit")),
    ({"X-RateLimit-Reset": f"{NOW + 2.5:.3f}"}, Quota(None, None, 2.5, dialect="x-ratelimit")),
    ({"X-RateLimit-Reset": "30"}, Quota(None, None, 30.0, dialect="x-ratelimit")),
    ({"X-Retry-In": "1.23s"}, Quota(retry_after_s=1.23, dialect="retry-after")),
    ({"X-RateLimit-Retry-After": "4"}, Quota(retry_after_s=4.0, dialect="retry-after")),
    ({"X-RateLimit-Limit": "many", "X-RateLimit-Remaining": "", "Retry-After": "soon"}, Quota()),
]


@pytest.mark.parametrize(
    ("headers", "quota"), HEADER_FORMATS, ids=lambda row: row.dialect if isinstance(row, Quota) else ""
)
def test_each_header_format_gives_its_quota(headers: dict[str, str], quota: Quota) -> None:
    assert parse_quota(list(headers.items()), NOW) == quota
    assert parse_quota([(name.upper(), value) for name, value in headers.items()], NOW) == quota
    assert parse_quota(list(headers.items())[::-1], NOW) == quota


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("20", 20.0),
        ("0.5", 0.5),
        ("1.", 1.0),
        ("0.13576169299994945", 0.13576169299994945),
        ("9.5e-05", 9.5e-05),
        ("-5", None),
        ("-1", None),
        ("Sun, 22 Nov 2026 14:01:00 GMT", 60.0),
        ("Sunday, 22-Nov-26 14:01:00 GMT", 60.0),
        ("Sun Nov 22 14:01:00 2026", 60.0),
        ("Sun, 22 Nov 2026 14:01:00 -0000", 60.0),
        ("Sun, 22 Nov 2026 13:59:00 GMT", 0.0),
        (f"{NOW + 60:.0f}", 60.0),
        (f"{NOW - 60:.0f}", 0.0),
        ("2026-11-22T14:01:00.500Z", 60.5),
        ("1h2m3.5s", 3723.5),
        ("7us", 7e-6),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        ("", None),
        ("9" * 400, None),
        ("Mon, 99 Foo 2026", None),
        ("0001-01-01T00:00:00Z", None),
    ],
)
def test_reset_values_become_seconds(text: str, seconds: float | None) -> None:
    got = seconds_until(text, NOW)
    assert got == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


NAMES = st.sampled_from(
    [name for headers, _ in HEADER_FORMATS for name in headers] + ["x-retry-limit", "rate_limit"]
)
VALUES = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[-+]?[0-9]{0,25}(\.[0-9]*)?(ms|s|m|h)?", fullmatch=True),
    st.datetimes(timezones=st.just(UTC)).map(format_datetime),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.from_regex(r'("?[a-z0-9-]*"?(;[qrtw]=[0-9]{1,30}){0,3},? ?){0,3}', fullmatch=True),
)


@given(st.lists(st.tuples(NAMES | st.text(max_size=20), VALUES), max_size=8))
def test_any_headers_give_a_quota_of_plausible_numbers(headers: list[tuple[str, str]]) -> None:
    quota = parse_quota(headers, NOW)
    for field in Quota.__struct_fields__:
        value = getattr(quota, field)
        if field == "dialect":
            assert value is None or len(value) < 20
        else:
            assert value is None or 0 <= value < 1 << 60
