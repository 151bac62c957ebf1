"""Options of the sandbox's limits: algorithms, header styles, and charging of tokens."""

from __future__ import annotations

from typing import Any

import pytest
from support_sandbox import headers_of, quota

from bltybench.sandbox.quota import Grant, Refusal
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import HeaderStyle, RateLimit

NOON = 1_795_348_800.0


def accepted(rule: RateLimit, times: list[float]) -> list[bool]:
    one = quota(requests=rule)
    return [isinstance(one.admit(NOON + t, CallSize(10, 0)), Grant) for t in times]


@pytest.mark.parametrize(
    ("options", "times", "expected"),
    [
        ({"phase_s": 25.0}, [0, 1, 24, 26], [True, True, False, True]),
        ({"algorithm": "first_hit_window"}, [50, 51, 61, 111], [True, True, False, True]),
        ({"algorithm": "first_hit_counter"}, [50, 51, 61, 111], [True, True, False, True]),
        ({"algorithm": "token_bucket", "burst": 1}, [0, 1, 31], [True, False, True]),
        (
            {"algorithm": "whole_token_bucket"},
            [0, 1, 29, 31, 60, 61.1],
            [True, True, False, True, False, True],
        ),
        ({"algorithm": "interval_refill", "ticks": 2}, [0, 1, 29, 31], [True, True, False, True]),
        ({"algorithm": "leaky_queue", "queue": 0}, [0, 1, 31], [True, False, True]),
        (
            {"algorithm": "sliding_log", "count_refused": True},
            [0, 1, 30, 40, 62],
            [True, True, False, False, False],
        ),
        ({"waiting": 1}, [0, 1, 2, 3, 61, 62], [True, True, True, False, True, True]),
        ({"ban_s": 70.0}, [0, 1, 2, 71, 73], [True, True, False, False, True]),
        (
            {"ban_s": 70.0, "ban_restarts": True},
            [0, 1, 2, 71, 140, 211],
            [True, True, False, False, False, True],
        ),
        (
            {"algorithm": "sliding_log", "ban_s": 5.0, "also": {"limit": 1, "period_s": 1.0}},
            [0, 0.5, 2, 5.5],
            [True, False, False, True],
        ),
    ],
)
def test_options_reach_the_limiter_model(
    options: dict[str, Any], times: list[float], expected: list[bool]
) -> None:
    assert accepted(RateLimit(limit=2, **options), times) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"burst": 3},
        {"algorithm": "sliding_log", "phase_s": 1.0},
        {"algorithm": "token_bucket", "count_refused": True},
    ],
)
def test_option_of_another_algorithm_is_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="requires"):
        RateLimit(limit=2, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ban_restarts": True}, "ban_restarts requires ban_s"),
        ({"ban_s": 0.0}, "greater than 0"),
        ({"ban_s": 5.0, "count_refused": True}, "can't be combined with ban_s"),
        ({"also": {"limit": 1, "ban_s": 5.0}}, "next to also"),
        ({"waiting": 1, "ban_s": 5.0}, "can't be combined"),
        ({"spread": True}, "spread requires first_hit_window"),
    ],
)
def test_settings_that_mean_nothing_are_rejected(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        RateLimit(limit=2, **options)


def test_a_ban_sets_the_headers_and_does_not_start_if_another_limit_refuses() -> None:
    one = quota(requests=RateLimit(limit=1, ban_s=100.0), tokens=RateLimit(limit=50))
    assert isinstance(one.admit(NOON, CallSize(60, 0)), Refusal)
    assert isinstance(one.admit(NOON + 1, CallSize(10, 0)), Grant)
    refused = one.admit(NOON + 2, CallSize(10, 0))
    assert isinstance(refused, Refusal)
    assert headers_of(refused)["retry-after"] == "100"
    assert headers_of(refused)["x-ratelimit-remaining"] == "0"


def test_leaky_queue_delays_a_request() -> None:
    one = quota(requests=RateLimit(limit=2, period_s=1.0, algorithm="leaky_queue", queue=2))
    verdicts = [one.admit(NOON, CallSize(1, 0)) for _ in range(4)]
    assert [verdict.delay_s for verdict in verdicts if isinstance(verdict, Grant)] == pytest.approx(
        [0, 0.5, 1.0]
    )
    assert isinstance(verdicts[3], Refusal)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("honest", {"x-ratelimit-remaining": "0", "retry-after": "60"}),
        ("none", {}),
        ("no_retry_after", {"x-ratelimit-remaining": "0"}),
        ("short_retry_after", {"x-ratelimit-remaining": "0", "retry-after": "30"}),
        ("long_retry_after", {"x-ratelimit-remaining": "0", "retry-after": "120"}),
        ("full_remaining", {"x-ratelimit-remaining": "1", "retry-after": "60"}),
        ("nonsense", {"x-ratelimit-remaining": "soon", "retry-after": "in a while"}),
    ],
)
def test_header_styles_produce_their_headers(style: HeaderStyle, expected: dict[str, str]) -> None:
    one = quota(requests=RateLimit(limit=1), headers=style)
    one.admit(NOON, CallSize(1, 0))
    said = headers_of(one.admit(NOON, CallSize(1, 0)))
    kept = {name: said[name] for name in ("x-ratelimit-remaining", "retry-after") if name in said}
    assert kept == expected


@pytest.mark.parametrize("status", [429, 503, 403])
def test_refusal_has_the_configured_status(status: int) -> None:
    one = quota(requests=RateLimit(limit=1), refusal_status=status)
    one.admit(NOON, CallSize(1, 0))
    refusal = one.admit(NOON, CallSize(1, 0))
    assert isinstance(refusal, Refusal)
    assert refusal.error.status == status


@pytest.mark.parametrize(("charged", "third"), [("refunded", True), ("reserved", False), ("used", True)])
def test_tokens_are_charged_as_configured(charged: str, third: bool) -> None:
    one = quota(tokens=RateLimit(limit=100), tokens_charged=charged)
    for _ in range(2):
        grant = one.admit(NOON, CallSize(50, 0))
        assert isinstance(grant, Grant)
        grant.settle(NOON, CallSize(10, 0))
    assert isinstance(one.admit(NOON, CallSize(50, 0)), Grant) == third


def test_tokens_charged_as_used_can_exceed_the_limit() -> None:
    one = quota(tokens=RateLimit(limit=100), tokens_charged="used")
    grants = [one.admit(NOON, CallSize(90, 0)) for _ in range(3)]
    for grant in grants:
        assert isinstance(grant, Grant)
        grant.settle(NOON, CallSize(90, 0))
    assert isinstance(one.admit(NOON, CallSize(1, 0)), Refusal)
