"""Accuracy of rate-limit headers, in virtual time."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation.virtual_api import START_S, VirtualApi, virtual_limits
from bltybench.limits.findings.conclude import find
from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.observations.answer import Answer
from bltybench.limits.probe.protocol import Experiment, ProbeRequest, SendStep
from bltybench.runs.attempt import Attempt
from bltybench.scenario.target import RateLimit

FAMILIES = (
    "fixed_window",
    "first_hit_window",
    "sliding_log",
    "sliding_counter",
    "first_hit_counter",
    "token_bucket",
    "interval_refill",
)
PHASED = {"fixed_window", "sliding_counter", "interval_refill"}
ACCURATE = {"honest", "window_end", "next_request", "absent", None}
QUESTIONS = {"limit_header", "remaining_header", "reset_header", "retry_after"}
untimed = settings(deadline=None, max_examples=60)


def bursts(rule: RateLimit, waits: list[float], width: int) -> Experiment:
    """Exhaust the limit after each wait, and follow Retry-After."""
    one = ProbeRequest(role="probe")
    for wait_s in waits:
        results = yield SendStep(
            (one,) * (2 * rule.limit), after_s=wait_s, max_in_flight=width, until_refused=True
        )
        retry_after_s = results[-1].retry_after_s
        if retry_after_s is not None:
            if retry_after_s > 1.5:
                yield SendStep((one,), after_s=0.7 * retry_after_s)
            yield SendStep((one,), (results[-1].decided_s or 0.0) + retry_after_s + 0.03)


def analyzed(
    rule: RateLimit, waits: list[float], period_error: float = 0.0, width: int = 1, **world: Any
) -> dict[str, Answer]:
    """Return the answers about headers. The fitted period has a relative error, within its range."""
    headers = world.pop("headers", "honest")
    api = VirtualApi(virtual_limits(requests=rule, headers=headers), ttft_s=0.01, **world)
    api.play(bursts(rule, waits, width))
    # If the server's clock is ahead, its windows end earlier.
    edge_s = START_S - START_S % rule.period_s + (rule.phase_s or 0.0) - api.clock_offset_s
    best = Fit(
        family=rule.algorithm,
        limit=rule.limit,
        limit_range=(rule.limit, rule.limit),
        period_s=rule.period_s,
        period_range_s=(rule.period_s, rule.period_s),
        phase="other" if rule.algorithm in PHASED else None,
        edge_s=edge_s if rule.algorithm in PHASED else None,
        ticks=4 if rule.algorithm == "interval_refill" else None,
        count_refused=rule.count_refused or False,
        contradictions=0,
        cost=0,
    )
    fit = replace(best, period_s=best.period_s * (1 + period_error))
    verdict = Verdict("found", 1, 1, 1, consistent=(replace(fit, variants=(best,)),))
    return header_answers(api.attempts(), verdict)


def header_answers(attempts: list[Attempt], verdict: Verdict) -> dict[str, Answer]:
    findings = find(attempts, START_S, None, verdict, asked=("charges",), probed=True)
    return {answer.question: answer for answer in findings.answers if answer.question in QUESTIONS}


def rules() -> st.SearchStrategy[RateLimit]:
    def rule(family: str, limit: int, period_s: float, phase: float, counting: bool) -> RateLimit:
        made: dict[str, Any] = {"limit": limit, "period_s": period_s, "algorithm": family}
        if family in PHASED:
            made["phase_s"] = round(phase * period_s, 3)
        if counting and family in {"sliding_log", "sliding_counter", "first_hit_counter"}:
            made["count_refused"] = True
        return RateLimit.model_validate(made)

    periods_s = st.sampled_from([2.0, 7.3, 20.0, 60.0])
    return st.builds(
        rule, st.sampled_from(FAMILIES), st.integers(3, 20), periods_s, st.floats(0, 0.99), st.booleans()
    )


WORLDS = st.fixed_dictionaries(
    {
        "latency_s": st.floats(0.001, 0.2),
        "jitter": st.floats(0, 0.5),
        "lost": st.sampled_from([0.0, 0.02]),
        "clock_offset_s": st.floats(-0.3, 0.3),
        "seed": st.integers(0, 99),
    }
)


@untimed
@given(
    rule=rules(),
    waits=st.lists(st.floats(0, 1.4), min_size=3, max_size=6),
    period_error=st.floats(-0.003, 0.003),
    width=st.sampled_from([1, 1, 4]),
    world=WORLDS,
)
def test_accurate_headers_are_never_called_wrong(
    rule: RateLimit, waits: list[float], period_error: float, width: int, world: dict[str, Any]
) -> None:
    # With a longer latency, the limit would never be reached.
    world["latency_s"] = min(world["latency_s"], 0.2 * rule.period_s / rule.limit)
    answers = analyzed(rule, [wait * rule.period_s for wait in waits], period_error, width, **world)
    assert {name: answer.value for name, answer in answers.items() if answer.value not in ACCURATE} == {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("headers", "question", "value"),
    [
        ("honest", "remaining_header", "honest"),
        ("honest", "reset_header", "window_end"),
        ("honest", "retry_after", "honest"),
        ("none", "remaining_header", None),
        ("none", "retry_after", "absent"),
        ("nonsense", "limit_header", None),
        ("nonsense", "retry_after", "absent"),
        ("no_retry_after", "retry_after", "absent"),
        ("short_retry_after", "retry_after", "too_short"),
        ("long_retry_after", "retry_after", "too_long"),
        ("full_remaining", "remaining_header", "wrong"),
    ],
)
def test_kind_of_headers_is_identified_for_each_family(
    family: str, headers: str, question: str, value: str | None
) -> None:
    rule = RateLimit.model_validate({"limit": 12, "period_s": 60.0, "algorithm": family})
    answers = analyzed(rule, [0.0, 130.0, 30.0, 130.0, 45.0], headers=headers)
    assert answers[question].value == value, answers[question]


def test_reset_by_a_clock_that_is_ahead_is_identified() -> None:
    rule = RateLimit(limit=12, period_s=60.0)
    answers = analyzed(rule, [0.0, 130.0, 30.0, 130.0], clock_offset_s=7.0)
    assert answers["reset_header"].value == "window_end"
    assert re.search(r"clock that is (6\.9|7\.?)\d* s ahead of yours", answers["reset_header"].says)


@pytest.mark.parametrize("late_s", [0, 1])
@pytest.mark.parametrize(("limit", "period_s"), [(6, 60.0), (13, 47.3)])
@pytest.mark.parametrize("family", ["sliding_log", "token_bucket"])
def test_reset_that_predicts_one_more_request_is_not_wrong(
    family: str, limit: int, period_s: float, late_s: int
) -> None:
    rule = RateLimit.model_validate({"limit": limit, "period_s": period_s, "algorithm": family})
    api = VirtualApi(virtual_limits(requests=rule), ttft_s=0.01)
    api.play(bursts(rule, [0.0, 0.4 * period_s, 0.7 * period_s, 1.3 * period_s], 1))
    accepted_s: list[float] = []
    level, filled_s = float(limit), 0.0
    attempts = []
    for attempt in api.attempts():
        at_s = (attempt.sent_ns or 0) / 1e9
        if attempt.status == 200:
            accepted_s.append(at_s)
            level = min(limit, level + (at_s - filled_s) * limit / period_s) - 1
            filled_s = at_s
        oldest_s = min(one_s for one_s in accepted_s if one_s > at_s - period_s) + period_s - at_s
        wait_s = oldest_s if family == "sliding_log" else (1 - level % 1) * period_s / limit
        attempts.append(msgspec.structs.replace(attempt, reset_requests_s=math.ceil(wait_s) + late_s))
    best = Fit(family, limit, (limit, limit), period_s, (period_s, period_s), None, None, None, None, 0, 0)
    answer = header_answers(attempts, Verdict("found", 1, 1, 1, consistent=(best,)))["reset_header"]
    assert answer.value == "first_unit", answer


@pytest.mark.parametrize("family", FAMILIES)
def test_reset_that_predicts_nothing_is_wrong(family: str) -> None:
    rule = RateLimit.model_validate({"limit": 12, "period_s": 60.0, "algorithm": family})
    api = VirtualApi(virtual_limits(requests=rule), ttft_s=0.01)
    api.play(bursts(rule, [0.0, 130.0, 30.0, 130.0, 45.0], 1))
    attempts = [
        msgspec.structs.replace(attempt, reset_requests_s=float(7 * number % 60))
        for number, attempt in enumerate(api.attempts())
    ]
    edge_s = START_S - START_S % 60.0 if family in PHASED else None
    best = Fit(family, 12, (12, 12), 60.0, (60.0, 60.0), None, edge_s, 4, None, 0, 0)
    answer = header_answers(attempts, Verdict("found", 1, 1, 1, consistent=(best,)))["reset_header"]
    assert answer.value == "wrong", answer


def test_headers_about_a_daily_limit_are_not_compared_with_a_limit_per_minute() -> None:
    rule = RateLimit(limit=12, period_s=60.0)
    api = VirtualApi(virtual_limits(requests=rule))
    api.play(bursts(rule, [0.0, 130.0, 30.0], 1))
    attempts, left = [], 14_400
    for attempt in api.attempts():
        left -= attempt.status == 200
        quota = {"limit_requests": 14_400, "remaining_requests": left}
        attempts.append(msgspec.structs.replace(attempt, **quota))
    edge_s = START_S - START_S % 60.0
    best = Fit("fixed_window", 12, (12, 12), 60.0, (60.0, 60.0), "clock", edge_s, None, None, 0, 0)
    answers = header_answers(attempts, Verdict("found", 1, 1, 1, consistent=(best,)))
    assert answers["limit_header"].value is None
    assert "another limit" in str(answers["remaining_header"].reason)


def test_headers_about_several_limits_are_not_compared_with_one() -> None:
    """The server announces the limit that accepts less. The run reached only one of them."""
    rule = RateLimit(limit=12, period_s=2.0, also=RateLimit(limit=20, period_s=60.0))
    api = VirtualApi(virtual_limits(requests=rule))
    api.play(bursts(RateLimit(limit=12, period_s=2.0), [0.0, 1.0], 1))
    attempts = api.attempts()
    assert len({attempt.limit_requests for attempt in attempts}) == 2
    edge_s = START_S - START_S % 2.0
    best = Fit("fixed_window", 12, (12, 12), 2.0, (2.0, 2.0), "clock", edge_s, None, None, 0, 0)
    answers = header_answers(attempts, Verdict("found", 1, 1, 1, consistent=(best,)))
    assert answers["limit_header"].value in {None, "honest"}
    assert "several limits" in str(answers["remaining_header"].reason)
    assert "several limits" in str(answers["reset_header"].reason)


def test_shared_quota_does_not_make_remaining_wrong() -> None:
    rule = RateLimit(limit=20, period_s=60.0)
    answers = analyzed(rule, [0.0, 130.0, 30.0, 130.0], others=lambda draw: int(draw.random() < 0.4))
    assert answers["remaining_header"].value is None
    assert "other clients" in str(answers["remaining_header"].reason)


@pytest.mark.parametrize(
    ("headers", "others", "value"), [("honest", 0.8, None), ("short_retry_after", 0.0, "too_short")]
)
def test_unknown_limit_needs_all_waits_to_be_too_short(
    headers: str, others: float, value: str | None
) -> None:
    rule = RateLimit(limit=20, period_s=60.0, algorithm="token_bucket")
    limits = virtual_limits(requests=rule, headers=headers)
    api = VirtualApi(limits, ttft_s=0.01, others=lambda rng: int(rng.random() < others))
    api.play(bursts(rule, [5.0] * 12, 1))
    assert header_answers(api.attempts(), Verdict("unknown", 1, 1, 1))["retry_after"].value == value
