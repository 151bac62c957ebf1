"""The question of tokens, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.simulation.virtual_api import START_S, VirtualApi, virtual_limits
from bltybench.limits.experiments.tokens_analysis import charged_at_end, judge, rounded
from bltybench.limits.experiments.tokens_period import period
from bltybench.limits.experiments.tokens_roles import bounds, unit_verdict
from bltybench.limits.experiments.tokens_steps import ask
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import SendStep
from bltybench.scenario.target import RateLimit


def window(limit: int, period_s: float) -> Fit:
    """Return a limit of requests as it is known before."""
    return Fit(
        "sliding_log", limit, (limit, limit), period_s, (period_s, period_s), None, None, None, None, 0, 0
    )


def filled(tokens: int) -> list[ProbeResult]:
    """Return a fill that fits to the token, and one more that does not."""
    one = ProbeResult(role="fill", sent_s=1.0, accepted=True, prompt_tokens=8, max_tokens=tokens - 8)
    return [one, replace(one, sent_s=2.0, accepted=False, said="tokens per minute", max_tokens=8)]


def asked(api: VirtualApi, **facts: Any) -> dict[str, Answer]:
    known = ProbeContext(**({"never_refused": True, "tokens_left": 3_000_000} | facts))
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
        found = asked(api, expected_period_s=2.0)
        assert found["token_limit"].value in {None, 4000}, found["token_limit"]


def test_what_was_used_shortly_before_does_not_count() -> None:
    rule = RateLimit(limit=4000, algorithm="sliding_log")
    api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="reserved"))
    api.quotas.of("first", "a").admit(START_S, 3_600)
    found = asked(api, fits=(window(59, 2.0),), never_refused=False)
    assert found["token_limit"].value == 4000, found["token_limit"]


def test_where_the_period_is_not_known_only_what_fits_by_itself_is_sure() -> None:
    """Some of it may have been used before, and a bucket may have given back while it was filled."""
    half = replace(filled(3_000)[0], max_tokens=1_492)
    seen = [half, replace(half, sent_s=1.5), filled(3_000)[1]]
    limit, *others = judge(seen, ProbeContext())
    assert (limit.question, limit.value, limit.range) == ("token_limit", None, (1_500, float("inf")))
    assert others[-1].value == "admission"
    documented, *_ = judge(seen, ProbeContext(tokens_per_min=3_000))
    assert documented.value == 3_000


def test_refusals_of_the_limit_of_requests_say_nothing_of_tokens() -> None:
    api = VirtualApi(
        virtual_limits(
            requests=RateLimit(limit=12, period_s=60.0),
            tokens=RateLimit(limit=100_000, period_s=2.0),
            tokens_charged="used",
        ),
        terse=True,
    )
    found = asked(api, fits=(window(12, 60.0),), never_refused=False, tokens_left=300_000)
    assert found["token_limit"].value is None, found["token_limit"]
    named = [*filled(3_000), ProbeResult(role="fill", sent_s=9.0, accepted=False, said="too many requests")]
    assert bounds(named) == bounds(filled(3_000))


def test_units_are_as_many_as_the_limit_of_requests_allows_and_so_nothing_is_concluded() -> None:
    units = [
        ProbeResult(role="unit", sent_s=at_s, decided_s=at_s + 0.01, end_s=at_s + 0.01, accepted=number < 12)
        for minute in range(3)
        for number in range(14)
        for at_s in [60.0 * minute + 0.1 * number + 1]
    ]
    known = ProbeContext(fits=(window(30, 60.0),))
    assert unit_verdict(units, known).best is not None
    doubtful = unit_verdict(units, ProbeContext(fits=(window(12, 60.0),)))
    assert doubtful.best is None
    assert "limit of requests" in doubtful.reason
    named = [replace(each, said="tokens per minute") if each.refused else each for each in units]
    assert unit_verdict(named, ProbeContext(fits=(window(12, 60.0),))).best is not None


def test_a_lost_answer_is_asked_for_again() -> None:
    asking = ask(ProbeContext(never_refused=True, tokens_per_min=4_000), START_S)
    step, sent = next(asking), filled(4_000)
    while not (isinstance(step, SendStep) and step.requests[0].role == "right after"):
        step = asking.send(sent)
    lost = ProbeResult(role="right after", sent_s=9.0, end_s=9.1)
    again = asking.send([*sent, lost])
    assert isinstance(again, SendStep)
    assert again.requests == step.requests


def test_what_does_not_divide_widens_the_period_of_a_weighted_counter() -> None:
    rule = RateLimit(limit=10_000, period_s=5.0, algorithm="first_hit_counter")
    for seed in range(2):
        api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="reserved"), seed=seed)
        period = asked(api, expected_period_s=5.0)["token_period_s"]
        assert period.range is None or period.range[0] <= 5.0 <= period.range[1], period


def test_a_documented_limit_that_is_not_enforced_is_found_all_the_same() -> None:
    rule = RateLimit(limit=40_000, period_s=2.0, algorithm="first_hit_window")
    api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="used"), latency_s=0.002, ttft_s=0.002)
    found = asked(api, tokens_per_min=1_200_000, tokens_left=1_000_000)
    assert found["token_limit"].value == 40_000, found["token_limit"]


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


def together(*ends: tuple[float, bool]) -> list[ProbeResult]:
    return [
        ProbeResult(role="together", sent_s=0.0, end_s=end_s, accepted=accepted) for end_s, accepted in ends
    ]


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
    seen: list[ProbeResult], told: bool | None
) -> None:
    assert charged_at_end(seen, fewest=2) is told


def test_a_weighted_counter_of_tokens_does_not_round_to_whole_units() -> None:
    rule = RateLimit(limit=4000, period_s=30.0, algorithm="first_hit_counter")
    limits = virtual_limits(tokens=rule, tokens_charged="reserved")
    api = VirtualApi(limits, seed=10, latency_s=0.002, jitter=0.3, ttft_s=0.002)
    period = asked(api, tokens_left=1_000_000, requests_left=400)["token_period_s"]
    assert period.value == pytest.approx(30.0, rel=0.02)


def test_what_a_bucket_may_have_given_back_widens_the_limit_where_it_is_not_told_from_others() -> None:
    rule = RateLimit(limit=100_000, period_s=2.0, algorithm="token_bucket")
    limits = virtual_limits(tokens=rule, tokens_charged="used")
    for seed in range(4):
        api = VirtualApi(limits, latency_s=0.005, ttft_s=0.02, seed=seed)
        limit = asked(api, tokens_per_min=3_000_000, tokens_left=1_000_000)["token_limit"]
        assert limit.range is not None
        assert limit.range[0] <= 100_000 <= limit.range[1], limit


def test_a_bucket_that_owes_what_was_used_beyond_it_is_waited_for() -> None:
    rule = RateLimit(limit=40_000, algorithm="token_bucket")
    limits = virtual_limits(tokens=rule, tokens_charged="used")
    for seed in range(4):
        api = VirtualApi(limits, ttft_s=0.02, early_headers=False, seed=seed)
        limit = asked(api, tokens_per_min=40_000, tokens_left=980_000, requests_left=400)["token_limit"]
        assert limit.range is None or limit.range[0] <= 40_000 <= limit.range[1], limit


def test_as_many_as_are_documented_a_minute_are_let_in_a_minute() -> None:
    unsure = Fit("fixed_window", 8, (8, 8), 66.0, (57.6, 76.6), "clock", 0.0, None, None, 0, 0)
    verdict = Verdict("found", 100, 40, 60, (unsure,), (unsure,), 0.99)
    limit = Answer(question="token_limit", value=100_000, says="", range=(99_920, 100_027))
    told, _ = period(verdict, limit, 12_480.0, 100_000)
    assert (told.value, told.range) == (60.0, (57.6, 76.6))
    for documented in (None, 50_000):
        assert period(verdict, limit, 12_480.0, documented)[0].value is None


def test_what_came_back_to_a_bucket_is_known_to_a_unit_only() -> None:
    bucket = Fit("token_bucket", 3, (3, 3), 13.5, (13.4, 13.6), None, None, None, None, 0, 0)
    verdict = Verdict("found", 62, 11, 51, (bucket,), (bucket,), 0.99)
    limit = Answer(question="token_limit", value=4_000, says="", range=(3_799, 4_071))
    told, _ = period(verdict, limit, 1_916.0, None)
    assert told.value is None  # 8 units came back: it may be an eighth off
    assert period(replace(verdict, accepted=60), limit, 1_916.0, None)[0].value is None
    exact = replace(limit, range=(3_990, 4_010))
    assert period(replace(verdict, accepted=60), exact, 1_916.0, None)[0].value is not None


def test_a_limit_that_may_be_more_than_was_in_flight_may_be_reserved() -> None:
    units = [
        ProbeResult(
            role="unit", sent_s=at_s, decided_s=at_s, end_s=at_s, accepted=number < 3, prompt_tokens=16_000
        )
        for minute in range(3)
        for number in range(5)
        for at_s in [60.0 * minute + 0.1 * number]
    ]
    held = ProbeResult(role="fill", sent_s=-200.0, accepted=True, max_tokens=50_000)
    found = {each.question: each for each in judge([held, *units], ProbeContext(never_refused=True))}
    assert found["token_limit"].range is not None
    assert found["token_limit"].range[1] > 50_000
    assert found["tokens_charged"].value is None
    more = {each.question: each for each in judge([replace(held, max_tokens=90_000), *units], ProbeContext())}
    assert more["tokens_charged"].value == "used"
