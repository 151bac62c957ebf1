"""The question of tokens, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.virtual_api import START_S, VirtualApi, virtual_limits
from bltybench.limits.answer import Answer
from bltybench.limits.ask import Seen
from bltybench.limits.known import Known
from bltybench.limits.tokens_judgement import charged_at_end, judge, rounded
from bltybench.limits.tokens_question import ask
from bltybench.scenario.target import RateLimit


def asked(api: VirtualApi, **facts: Any) -> dict[str, Answer]:
    known = Known(**({"never_refused": True, "tokens_left": 3_000_000} | facts))
    return {answer.question: answer for answer in judge(api.play(ask(known, START_S)), known)}


@pytest.mark.parametrize(
    ("charged", "algorithm", "documented"),
    [
        ("reserved", "fixed_window", 100_000),
        ("reserved", "token_bucket", None),
        ("refunded", "first_hit_window", None),
        ("refunded", "sliding_log", 100_000),
        ("used", "fixed_window", None),
        ("used", "token_bucket", 100_000),
    ],
)
def test_size_period_and_what_is_charged(charged: str, algorithm: str, documented: int | None) -> None:
    rule = RateLimit.model_validate({"limit": 100_000, "algorithm": algorithm})
    api = VirtualApi(virtual_limits(tokens=rule, tokens_charged=charged), seed=3)
    found = asked(api, tokens_per_min=documented)
    limit = found["token_limit"]
    assert limit.value == 100_000
    assert limit.range is not None
    assert 100_000 - limit.range[0] < 7_000
    assert limit.range[1] - 100_000 < 7_000
    assert found["tokens_charged"].value == charged
    assert found["tokens_charged_at"].value == ("end" if charged == "used" else "admission")
    period = found["token_period_s"]
    assert period.value is None or period.value == pytest.approx(60, rel=0.02)
    assert found["token_algorithm"].value in {None, algorithm}


def test_a_window_that_turns_while_it_is_filled_does_not_mislead() -> None:
    rule = RateLimit(limit=4000, period_s=2.0)
    for seed in range(3):
        api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="reserved"), seed=seed, latency_s=0.1)
        found = asked(api, hint_s=2.0)
        assert found["token_limit"].value in {None, 4000}, found["token_limit"]


def test_no_limit_of_tokens_is_at_least() -> None:
    found = asked(VirtualApi(virtual_limits()), tokens_left=100_000)
    limit = found["token_limit"]
    assert limit.value is None
    assert limit.range is not None
    assert limit.range[0] > 5_000
    assert "met no refusal" in str(limit.reason)


def test_a_budget_that_is_too_small_sends_nothing() -> None:
    api = VirtualApi(virtual_limits())
    assert asked(api, requests_left=4)["token_limit"].value is None
    assert not api.flights


def test_an_account_without_money_is_no_limit_of_tokens() -> None:
    api = VirtualApi(virtual_limits(), spoil=lambda number: (429, "insufficient_quota"))
    found = asked(api)
    assert found["token_limit"].value is None
    assert "failed" in str(found["token_limit"].reason)


@pytest.mark.parametrize(
    ("least", "most", "documented", "chosen"),
    [
        (99_900, 100_100, None, 100_000),
        (99_900, 100_100, 99_950, 99_950),
        (4_990, 5_020, None, 5_000),
        (7, 7, None, 7),
    ],
)
def test_a_number_that_people_choose_is_named(
    least: int, most: int, documented: int | None, chosen: int
) -> None:
    assert rounded(least, most, documented) == chosen


def together(*ends: tuple[float, bool]) -> list[Seen]:
    return [Seen(role="together", sent_s=0.0, end_s=end_s, accepted=accepted) for end_s, accepted in ends]


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ([], None),
        (together((1.0, True), (1.1, True), (1.2, True)), True),
        (together((1.0, True), (1.1, True), (0.1, False)), False),
        # Both that fit had ended when the third was refused: it had come too late to tell.
        (together((1.0, True), (1.1, True), (1.3, False)), None),
    ],
)
def test_a_refusal_shows_what_is_charged_at_admission_only_before_others_have_ended(
    seen: list[Seen], told: bool | None
) -> None:
    assert charged_at_end(seen, fewest=2) is told
