"""The token experiment, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.simulation.virtual_api import START_S, VirtualApi, virtual_limits
from bltybench.limits.experiments.tokens_analysis import analyze, roundest
from bltybench.limits.experiments.tokens_period import period_and_algorithm
from bltybench.limits.experiments.tokens_roles import charged_at_end, fill_bounds, unit_verdict
from bltybench.limits.experiments.tokens_steps import steps
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.classify import Decision
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.limits.probe.protocol import SendStep
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.target import RateLimit


def request_limit(limit: int, period_s: float) -> Fit:
    """Return a request limit that the probe has answers before."""
    return Fit(
        "sliding_log", limit, (limit, limit), period_s, (period_s, period_s), None, None, None, None, 0, 0
    )


def decided(accepted: bool) -> Decision:
    return Decision.ACCEPTED if accepted else Decision.REFUSED


def filled(tokens: int) -> list[ProbeResult]:
    """Return a fill of exactly this many tokens, and one more that is refused."""
    one = ProbeResult(
        role="fill", sent_s=1.0, decision=Decision.ACCEPTED, prompt_tokens=8, max_tokens=tokens - 8
    )
    return [one, replace(one, sent_s=2.0, decision=Decision.REFUSED_BY_TOKENS, max_tokens=8)]


def run_experiment(api: VirtualApi, **facts: Any) -> dict[str, Answer]:
    context = ProbeContext(**({"never_refused": True, "tokens_left": 3_000_000} | facts))
    return {answer.question: answer for answer in analyze(api.play(steps(context, START_S)), context)}


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
def test_limit_period_and_charging_are_identified(
    charged: str, algorithm: str, documented: int | None
) -> None:
    rule = RateLimit.model_validate({"limit": 100_000, "algorithm": algorithm})
    api = VirtualApi(virtual_limits(tokens=rule, tokens_charged=charged), seed=3)
    answers = run_experiment(api, tokens_per_min=documented)
    limit = answers["token_limit"]
    assert limit.value == 100_000
    assert limit.range is not None
    assert 100_000 - limit.range[0] < 7_000
    assert limit.range[1] - 100_000 < 7_000
    assert answers["tokens_charged"].value == charged
    assert answers["tokens_charged_at"].value == ("end" if charged == "used" else "admission")
    period = answers["token_period_s"]
    assert period.value is None or period.value == pytest.approx(60, rel=0.02)
    assert answers["token_algorithm"].value in {None, algorithm}


def test_window_reset_during_the_fill_gives_no_wrong_limit() -> None:
    rule = RateLimit(limit=4000, period_s=2.0)
    for seed in range(2):
        api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="reserved"), seed=seed, latency_s=0.1)
        answers = run_experiment(api, expected_period_s=2.0)
        assert answers["token_limit"].value in {None, 4000}, answers["token_limit"]


def test_tokens_used_shortly_before_the_probe_have_expired() -> None:
    rule = RateLimit(limit=4000, algorithm="sliding_log")
    api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="reserved"))
    api.quotas.of("first", "a").admit(START_S, CallSize(3_600, 0))
    answers = run_experiment(api, fits=(request_limit(59, 2.0),), never_refused=False)
    assert answers["token_limit"].value == 4000, answers["token_limit"]


def test_unknown_period_leaves_the_largest_request_as_lower_bound() -> None:
    """Earlier use can have counted, and a bucket can have refilled during the fill."""
    half = replace(filled(3_000)[0], max_tokens=1_492)
    results = [half, replace(half, sent_s=1.5), filled(3_000)[1]]
    limit, *others = analyze(results, ProbeContext())
    assert (limit.question, limit.value, limit.range) == ("token_limit", None, (1_500, float("inf")))
    assert others[-1].value == "admission"
    documented, *_ = analyze(results, ProbeContext(tokens_per_min=3_000))
    assert documented.value == 3_000


def test_refusals_by_the_request_limit_give_no_token_limit() -> None:
    api = VirtualApi(
        virtual_limits(
            requests=RateLimit(limit=12, period_s=60.0),
            tokens=RateLimit(limit=100_000, period_s=2.0),
            tokens_charged="used",
        ),
        terse=True,
    )
    answers = run_experiment(api, fits=(request_limit(12, 60.0),), never_refused=False, tokens_left=300_000)
    assert answers["token_limit"].value is None, answers["token_limit"]
    named = [*filled(3_000), ProbeResult(role="fill", sent_s=9.0, decision=Decision.REFUSED)]
    assert fill_bounds(named) == fill_bounds(filled(3_000))


def test_units_as_many_as_the_request_limit_identify_nothing_unless_refusals_name_tokens() -> None:
    units = [
        ProbeResult(
            role="unit", sent_s=at_s, decided_s=at_s + 0.01, end_s=at_s + 0.01, decision=decided(number < 12)
        )
        for minute in range(3)
        for number in range(14)
        for at_s in [60.0 * minute + 0.1 * number + 1]
    ]
    assert unit_verdict(units, ProbeContext(fits=(request_limit(30, 60.0),))).best is not None
    ambiguous = unit_verdict(units, ProbeContext(fits=(request_limit(12, 60.0),)))
    assert ambiguous.best is None
    assert "request limit" in ambiguous.reason
    named = [replace(unit, decision=Decision.REFUSED_BY_TOKENS) if unit.refused else unit for unit in units]
    assert unit_verdict(named, ProbeContext(fits=(request_limit(12, 60.0),))).best is not None


def test_request_with_a_lost_response_is_sent_again() -> None:
    experiment = steps(ProbeContext(never_refused=True, tokens_per_min=4_000), START_S)
    step, sent = next(experiment), filled(4_000)
    while not (isinstance(step, SendStep) and step.requests[0].role == "right after"):
        step = experiment.send(sent)
    lost = ProbeResult(role="right after", sent_s=9.0, end_s=9.1)
    again = experiment.send([*sent, lost])
    assert isinstance(again, SendStep)
    assert again.requests == step.requests


def test_remainder_of_a_weighted_counter_widens_its_period() -> None:
    rule = RateLimit(limit=10_000, period_s=5.0, algorithm="first_hit_counter")
    for seed in range(2):
        api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="reserved"), seed=seed)
        period = run_experiment(api, expected_period_s=5.0)["token_period_s"]
        assert period.range is None or period.range[0] <= 5.0 <= period.range[1], period


def test_lower_limit_than_documented_is_found() -> None:
    rule = RateLimit(limit=40_000, period_s=2.0, algorithm="first_hit_window")
    api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="used"), latency_s=0.002, ttft_s=0.002)
    answers = run_experiment(api, tokens_per_min=1_200_000, tokens_left=1_000_000)
    assert answers["token_limit"].value == 40_000, answers["token_limit"]


def test_no_refusal_gives_a_lower_bound() -> None:
    answers = run_experiment(VirtualApi(virtual_limits()), tokens_left=100_000)
    limit = answers["token_limit"]
    assert limit.value is None
    assert limit.range is not None
    assert limit.range[0] > 5_000
    assert "met no refusal" in str(limit.reason)


def test_budget_too_small_for_the_experiment_sends_nothing() -> None:
    api = VirtualApi(virtual_limits())
    assert run_experiment(api, requests_left=4)["token_limit"].value is None
    assert not api.requests


def test_exhausted_credit_is_not_a_token_limit() -> None:
    api = VirtualApi(virtual_limits(), spoil=lambda number: (429, "insufficient_quota"))
    answers = run_experiment(api)
    assert answers["token_limit"].value is None
    assert "failed" in str(answers["token_limit"].reason)


@pytest.mark.parametrize(
    ("least", "most", "documented", "chosen"),
    [
        (99_900, 100_100, None, 100_000),
        (99_900, 100_100, 99_950, 99_950),
        (4_990, 5_020, None, 5_000),
        (7, 7, None, 7),
    ],
)
def test_documented_or_roundest_number_within_the_bounds_is_chosen(
    least: int, most: int, documented: int | None, chosen: int
) -> None:
    assert roundest(least, most, documented) == chosen


def batch(*ends: tuple[float, bool]) -> list[ProbeResult]:
    return [
        ProbeResult(role="together", sent_s=0.0, end_s=end_s, decision=decided(accepted))
        for end_s, accepted in ends
    ]


@pytest.mark.parametrize(
    ("results", "at_end"),
    [
        ([], None),
        (batch((1.0, True), (1.1, True), (1.2, True)), True),
        (batch((1.0, True), (1.1, True), (0.1, False)), False),
        # The two that fit had already ended when the third was refused.
        (batch((1.0, True), (1.1, True), (1.3, False)), None),
    ],
)
def test_refusal_proves_charging_on_admission_only_before_others_have_ended(
    results: list[ProbeResult], at_end: bool | None
) -> None:
    assert charged_at_end(results, min_limit=2) is at_end


def test_period_of_a_weighted_counter_is_exact_with_an_exact_limit() -> None:
    rule = RateLimit(limit=4000, period_s=30.0, algorithm="first_hit_counter")
    limits = virtual_limits(tokens=rule, tokens_charged="reserved")
    api = VirtualApi(limits, seed=10, latency_s=0.002, jitter=0.3, ttft_s=0.002)
    period = run_experiment(api, tokens_left=1_000_000, requests_left=400)["token_period_s"]
    assert period.value == pytest.approx(30.0, rel=0.02)


def test_possible_bucket_refill_widens_the_limit_if_families_are_ambiguous() -> None:
    rule = RateLimit(limit=100_000, period_s=2.0, algorithm="token_bucket")
    limits = virtual_limits(tokens=rule, tokens_charged="used")
    for seed in range(2):
        api = VirtualApi(limits, latency_s=0.005, ttft_s=0.02, seed=seed)
        limit = run_experiment(api, tokens_per_min=3_000_000, tokens_left=1_000_000)["token_limit"]
        assert limit.range is not None
        assert limit.range[0] <= 100_000 <= limit.range[1], limit


def test_bucket_below_zero_refills_before_the_exact_size_is_measured() -> None:
    rule = RateLimit(limit=40_000, algorithm="token_bucket")
    limits = virtual_limits(tokens=rule, tokens_charged="used")
    for seed in range(2):
        api = VirtualApi(limits, ttft_s=0.02, early_headers=False, seed=seed)
        limit = run_experiment(api, tokens_per_min=40_000, tokens_left=980_000, requests_left=400)[
            "token_limit"
        ]
        assert limit.range is None or limit.range[0] <= 40_000 <= limit.range[1], limit


def test_documented_limit_per_minute_has_a_period_of_a_minute() -> None:
    uncertain = Fit("fixed_window", 8, (8, 8), 66.0, (57.6, 76.6), "clock", 0.0, None, None, 0, 0)
    verdict = Verdict("found", 100, 40, 60, (uncertain,), (uncertain,), 0.99)
    limit = Answer(question="token_limit", value=100_000, says="", range=(99_920, 100_027))
    answer, _ = period_and_algorithm(verdict, limit, 12_480.0, 100_000)
    assert (answer.value, answer.range) == (60.0, (57.6, 76.6))
    for documented in (None, 50_000):
        assert period_and_algorithm(verdict, limit, 12_480.0, documented)[0].value is None


def test_bucket_refill_is_uncertain_by_one_unit() -> None:
    bucket = Fit("token_bucket", 3, (3, 3), 13.5, (13.4, 13.6), None, None, None, None, 0, 0)
    verdict = Verdict("found", 62, 11, 51, (bucket,), (bucket,), 0.99)
    limit = Answer(question="token_limit", value=4_000, says="", range=(3_799, 4_071))
    answer, _ = period_and_algorithm(verdict, limit, 1_916.0, None)
    assert answer.value is None  # 8 units refilled, so it is uncertain by an eighth
    assert period_and_algorithm(replace(verdict, accepted=60), limit, 1_916.0, None)[0].value is None
    exact = replace(limit, range=(3_990, 4_010))
    assert period_and_algorithm(replace(verdict, accepted=60), exact, 1_916.0, None)[0].value is not None


def test_charging_is_unknown_if_the_limit_can_exceed_the_tokens_in_flight() -> None:
    units = [
        ProbeResult(
            role="unit",
            sent_s=at_s,
            decided_s=at_s,
            end_s=at_s,
            decision=decided(number < 3),
            prompt_tokens=16_000,
        )
        for minute in range(3)
        for number in range(5)
        for at_s in [60.0 * minute + 0.1 * number]
    ]
    held = ProbeResult(role="fill", sent_s=-200.0, decision=Decision.ACCEPTED, max_tokens=50_000)
    answers = {
        answer.question: answer for answer in analyze([held, *units], ProbeContext(never_refused=True))
    }
    assert answers["token_limit"].range is not None
    assert answers["token_limit"].range[1] > 50_000
    assert answers["tokens_charged"].value is None
    more = {
        answer.question: answer
        for answer in analyze([replace(held, max_tokens=90_000), *units], ProbeContext())
    }
    assert more["tokens_charged"].value == "used"
