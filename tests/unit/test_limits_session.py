"""The whole probe in virtual time, against servers with unusual behavior."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation.virtual_api import START_S, VirtualApi, virtual_limits
from benchmarks.simulation.virtual_probe import probe
from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.limits_toml import request_limit
from bltybench.limits.findings.model import Findings
from bltybench.limits.findings.narrative import summary
from bltybench.limits.observations.answer import Answer
from bltybench.limits.probe.thresholds import SESSION
from bltybench.limits.session import ProbeSession, ProbeTask, limits_toml_of
from bltybench.runs.attempt import Attempt
from bltybench.scenario.target import RateLimit, SandboxLimits

REQUEST_LIMIT_ONLY = ProbeTask(questions=("requests",), budget=200)
SEEDS = range(1, 5)


def answers(findings: Findings) -> dict[str, Answer]:
    return {answer.question: answer for answer in findings.answers}


def bounds(answer: Answer) -> tuple[float, float]:
    assert answer.range is not None
    return answer.range


def test_server_that_always_refuses_is_reported_within_the_budget() -> None:
    api = VirtualApi(virtual_limits(), spoil=lambda _: (429, "rate_limit_exceeded"))
    findings = probe(api, ProbeTask(budget=100))
    assert findings.verdict.status == "always_refused"
    assert len(api.requests) <= 100
    assert limits_toml_of(findings, "run") is None
    assert any("all of" in line and "refused" in line for line in summary(findings))


def test_server_that_never_refuses_gets_lower_bounds_within_the_budget() -> None:
    api = VirtualApi(virtual_limits(), ttft_s=0.01)
    findings = probe(api, ProbeTask(budget=150, tokens=40_000))
    assert len(api.requests) <= 150
    assert any(line.startswith("At least") for line in summary(findings))
    for question in ("token_limit", "concurrency_limit"):
        answer = answers(findings)[question]
        assert answer.value is None
        assert bounds(answer)[0] > 0
    assert limits_toml_of(findings, "run") is None


def test_limits_toml_of_a_ban_makes_the_decisions_of_the_api_and_says_what_is_uncertain() -> None:
    limit = RateLimit(limit=12, period_s=10.0, algorithm="sliding_log", ban_s=20.0, ban_restarts=True)
    findings = probe(VirtualApi(virtual_limits(requests=limit)), REQUEST_LIMIT_ONLY)
    assert findings.replayed is not None
    assert findings.replayed.count >= 0.99 * findings.replayed.of > 100
    text = str(limits_toml_of(findings, "run"))
    assert "# Its limit outside bans is uncertain: " in text
    written = request_limit(text)
    assert written.ban_s == pytest.approx(20.0, rel=0.05)
    assert written.ban_restarts
    assert written.limit == 12
    assert any("of the API's" in line for line in summary(findings))


def test_the_documented_limits_are_measured_completely_in_less_than_12_minutes() -> None:
    api = VirtualApi(SandboxLimits(), ttft_s=0.2)
    task = ProbeTask(requests_per_min=60, tokens_per_min=100_000, concurrency=50, second_key=True)
    findings = probe(api, task)
    assert findings.verdict.families == ("fixed_window",)
    assert {name: answer.value for name, answer in answers(findings).items() if answer.value is None} == {}
    told = answers(findings)
    assert told["concurrency_limit"].value == 50
    assert told["token_limit"].value == 100_000
    assert told["token_period_s"].value == 60
    assert told["token_algorithm"].value == "fixed_window"
    assert told["tokens_charged"].value == "refunded"
    assert api.now_s - START_S < task.usual_duration_s < 12.5 * 60
    assert len(api.requests) < 500


@pytest.mark.parametrize("status", [402, 403, 429])
def test_unpaid_account_ends_the_probe(status: int) -> None:
    api = VirtualApi(virtual_limits(), spoil=lambda _: (status, "insufficient_quota"))
    findings = probe(api, REQUEST_LIMIT_ONLY)
    assert findings.verdict.best is None
    assert findings.verdict.status not in {"always_refused", "found"}
    session = ProbeSession(REQUEST_LIMIT_ONLY, START_S)
    *before, last = [session.add(attempt) for attempt in api.attempts()[: SESSION.max_failures]]
    assert all(before)
    assert len(before) == SESSION.max_failures - 1
    assert not last


def test_overload_responses_are_not_refusals() -> None:
    api = VirtualApi(
        virtual_limits(), ttft_s=0.01, spoil=lambda number: (503, "overloaded") if number % 7 == 0 else None
    )
    assert probe(api, REQUEST_LIMIT_ONLY).verdict.status == "never_refused"


@pytest.mark.parametrize("charged", ["reserved", "refunded"])
def test_rejected_max_tokens_does_not_end_the_token_experiment(charged: str) -> None:
    rule = RateLimit(limit=100_000, period_s=60.0)
    limits = virtual_limits(tokens=rule, tokens_charged=charged)
    api = VirtualApi(limits, max_model_tokens=8192, ttft_s=0.01)
    found = answers(probe(api, ProbeTask(questions=("tokens",), tokens_per_min=100_000)))
    low, high = bounds(found["token_limit"])
    assert low <= 100_000 <= high
    assert found["tokens_charged"].value == charged


@pytest.mark.parametrize("seed", SEEDS)
def test_shared_quota_never_yields_a_confident_wrong_limit(seed: int) -> None:
    limits = virtual_limits(requests=RateLimit(limit=20, period_s=10.0))
    api = VirtualApi(limits, ttft_s=0.01, seed=seed, others=lambda rng: int(rng.random() < 0.4))
    findings = probe(api, ProbeTask(budget=300))
    assert findings.verdict.status == "unknown"
    found = answers(findings)
    assert found["malformed_counts"].value is None
    assert found["remaining_header"].value is None


@pytest.mark.parametrize("seed", SEEDS)
def test_same_quota_without_other_clients_is_measured(seed: int) -> None:
    limits = virtual_limits(requests=RateLimit(limit=20, period_s=10.0))
    findings = probe(VirtualApi(limits, ttft_s=0.01, seed=seed), ProbeTask(budget=300))
    best, found = findings.verdict.best, answers(findings)
    assert best is not None
    assert (findings.verdict.families, best.limit) == (("fixed_window",), 20)
    assert best.period_s == pytest.approx(10.0, rel=0.02)
    assert found["remaining_header"].value == "honest"


def test_resumed_probe_keeps_the_answers_it_has_and_asks_the_rest() -> None:
    limits = virtual_limits(requests=RateLimit(limit=20, period_s=5.0), concurrency=4)
    api = VirtualApi(limits, ttft_s=0.01)
    task = ProbeTask(questions=("requests", "concurrency", "charges"))
    probe(api, ProbeTask(questions=("requests", "concurrency")))
    session = ProbeSession(task, START_S + 1000)
    session.resume(api.attempts(), -1000 * 10**9, ["requests", "concurrency", "no such"])
    assert session.remaining_experiments() == ["charges"]
    assert session.verdict().families == ("fixed_window",)
    findings = session.findings()
    assert answers(findings)["concurrency_limit"].value == 4
    assert "concurrency = 4" in str(limits_toml_of(findings, "run"))


@pytest.mark.parametrize(
    ("algorithm", "seed", "early_headers"),
    [("fixed_window", 1, False), ("sliding_log", 2, False), ("token_bucket", 3, True)],
)
def test_the_record_alone_gives_the_findings_of_the_probe(
    algorithm: str, seed: int, early_headers: bool
) -> None:
    """Plain responses take much longer than the decision, as only refusals show. Records have any order."""
    rule = RateLimit.model_validate({"limit": 6, "period_s": 4.0, "algorithm": algorithm})
    api = VirtualApi(virtual_limits(requests=rule), ttft_s=0.3, seed=seed, early_headers=early_headers)
    task = ProbeTask(questions=("requests", "charges"), budget=220, period_s=4.0 if seed == 3 else None)
    probed = to_record(probe(api, task), "run")
    assert probed.status == "found"
    rows = api.attempts()
    random.Random(seed).shuffle(rows)
    session = ProbeSession(replace(task, other_model="b"), START_S)
    session.attempts = rows
    assert to_record(session.findings(), "run") == probed


@pytest.mark.parametrize(("limit", "ttft_s"), [(2, 0.3), (8, 0.3)])
def test_concurrency_is_measured_if_it_refused_the_requests_of_the_request_limit(
    limit: int, ttft_s: float
) -> None:
    """Responses are slow, so the probe sends concurrently, and released slots look like a window."""
    api = VirtualApi(virtual_limits(concurrency=limit), terse=True, ttft_s=ttft_s, seed=limit)
    findings = probe(api, ProbeTask(questions=("requests", "concurrency"), budget=600))
    assert findings.verdict.best is None
    assert answers(findings)["concurrency_limit"].value == limit
    assert answers(findings)["cancelled_frees_slot"].value is True


def test_request_limit_that_full_slots_hid_is_measured_again_with_fewer_in_flight() -> None:
    limits = virtual_limits(requests=RateLimit(limit=16, period_s=2.0), concurrency=6)
    findings = probe(
        VirtualApi(limits, terse=True, ttft_s=0.5), ProbeTask(questions=("requests", "concurrency"))
    )
    assert answers(findings)["concurrency_limit"].value == 6
    best = findings.verdict.best
    assert best is not None
    assert (findings.verdict.status, best.family, best.limit) == ("found", "fixed_window", 16)
    assert findings.full_refusals >= SESSION.min_full_refusals
    assert f"{findings.full_refusals} refusals came while as many requests were in flight" in " ".join(
        summary(findings)
    )
    text = str(limits_toml_of(findings, "run"))
    assert "concurrency = 6" in text
    assert "limit = 16" in text


NUMBERS = st.one_of(st.none(), st.integers(-5, 10**12))


@settings(deadline=None, max_examples=25)
@given(
    quotas=st.lists(st.tuples(NUMBERS, NUMBERS, st.one_of(st.none(), st.floats(-1e3, 1e13)), NUMBERS)),
    family=st.sampled_from(["fixed_window", "token_bucket"]),
)
def test_contradictory_headers_never_count_as_accurate_nor_raise(
    quotas: list[tuple[Any, ...]], family: str
) -> None:
    attempts = []
    for number, attempt in enumerate(ATTEMPTS[family]):
        limit, remaining, reset_s, retry_s = quotas[number % len(quotas)] if quotas else (None,) * 4
        attempts.append(
            msgspec.structs.replace(
                attempt,
                limit_requests=limit,
                remaining_requests=remaining,
                reset_requests_s=reset_s,
                retry_after_s=None if retry_s is None else float(retry_s),
            )
        )
    findings = find(attempts, START_S, 60)
    remaining_header = answers(findings).get("remaining_header")
    assert remaining_header is None or remaining_header.value != "honest"
    json.dumps(msgspec.to_builtins(to_record(findings, "run")), allow_nan=False)


def _attempts(family: str) -> list[Attempt]:
    rule = RateLimit.model_validate({"limit": 8, "period_s": 10.0, "algorithm": family})
    api = VirtualApi(virtual_limits(requests=rule), ttft_s=0.01)
    probe(api, ProbeTask(questions=("requests",), budget=60))
    return api.attempts()


ATTEMPTS = {family: _attempts(family) for family in ("fixed_window", "token_bucket")}
