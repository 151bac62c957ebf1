"""The whole probe in virtual time, against servers that behave badly: it says why, or says nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation.virtual_api import START_S, VirtualApi, virtual_limits
from benchmarks.simulation.virtual_probe import probe
from bltybench.limits.findings.conclude import find, to_record
from bltybench.limits.findings.narrative import summary
from bltybench.limits.probe.thresholds import SESSION
from bltybench.limits.session import ProbeSession, ProbeTask, enforced
from bltybench.runs.attempt import Attempt
from bltybench.scenario.target import RateLimit

ALONE = ProbeTask(questions=("requests",), budget=200)


def told(found: Any) -> dict[str, Any]:
    return {each.question: each for each in found.answers}


def test_a_server_that_always_refuses_is_asked_little_and_said_to() -> None:
    api = VirtualApi(virtual_limits(), spoil=lambda _: (429, "rate_limit_exceeded"))
    found = probe(api, ProbeTask(budget=100))
    assert found.verdict.status == "always_refused"
    assert len(api.flights) <= 100
    assert enforced(found, "run") is None
    assert any("all of" in line and "refused" in line for line in summary(found))


def test_a_server_that_never_refuses_ends_at_the_budget_with_at_least() -> None:
    api = VirtualApi(virtual_limits(), ttft_s=0.01)
    found = probe(api, ProbeTask(budget=150, tokens=40_000))
    assert len(api.flights) <= 150
    assert any(line.startswith("At least") for line in summary(found))
    for question in ("token_limit", "concurrency_limit"):
        assert told(found)[question].value is None
        assert told(found)[question].range[0] > 0
    assert enforced(found, "run") is None


@pytest.mark.parametrize("status", [402, 403, 429])
def test_an_account_without_money_ends_the_probe(status: int) -> None:
    api = VirtualApi(virtual_limits(), spoil=lambda _: (status, "insufficient_quota"))
    found = probe(api, ALONE)
    assert found.verdict.best is None
    assert found.verdict.status not in {"always_refused", "found"}
    book = ProbeSession(ALONE, START_S)
    assert [book.add(attempt) for attempt in api.attempts()[: SESSION.max_failures]] == [True] * (
        SESSION.max_failures - 1
    ) + [False]


def test_overload_among_answers_is_no_limit() -> None:
    api = VirtualApi(
        virtual_limits(), ttft_s=0.01, spoil=lambda number: (503, "overloaded") if number % 7 == 0 else None
    )
    found = probe(api, ALONE)
    assert found.verdict.status == "never_refused"


@pytest.mark.parametrize("charged", ["reserved", "refunded"])
def test_a_max_tokens_beyond_what_the_model_takes_does_not_end_the_question(charged: str) -> None:
    rule = RateLimit(limit=100_000, period_s=60.0)
    limits = virtual_limits(tokens=rule, tokens_charged=charged)
    api = VirtualApi(limits, most_tokens=8192, ttft_s=0.01)
    found = told(probe(api, ProbeTask(questions=("tokens",), tokens_per_min=100_000)))
    assert found["token_limit"].range[0] <= 100_000 <= found["token_limit"].range[1]
    assert found["tokens_charged"].value == charged


def test_who_shares_the_quota_hears_of_no_family_that_is_sure() -> None:
    limits = virtual_limits(requests=RateLimit(limit=20, period_s=10.0))
    api = VirtualApi(limits, ttft_s=0.01, others=lambda draw: int(draw.random() < 0.4))
    found = probe(api, ProbeTask(budget=300))
    assert found.verdict.status != "found" or found.verdict.best.limit == 20  # type: ignore[union-attr]
    values = {name: each.value for name, each in told(found).items()}
    assert values["malformed_counts"] is not True
    assert values["remaining_header"] != "wrong"


def test_a_probe_that_is_resumed_takes_the_questions_that_were_asked_as_asked() -> None:
    limits = virtual_limits(requests=RateLimit(limit=20, period_s=5.0), concurrency=4)
    api = VirtualApi(limits, ttft_s=0.01)
    task = ProbeTask(questions=("requests", "concurrency", "charges"))
    probe(api, ProbeTask(questions=("requests", "concurrency")))
    book = ProbeSession(task, START_S + 1000)
    book.resume(api.attempts(), -1000 * 10**9, ["requests", "concurrency", "no such"])
    assert book.unasked() == ["charges"]
    assert book.earlier_verdict().families == ("fixed_window",)
    found = book.findings(book.earlier_verdict())
    assert told(found)["concurrency_limit"].value == 4
    assert "concurrency = 4" in str(enforced(found, "run"))


NUMBERS = st.one_of(st.none(), st.integers(-5, 10**12))


@settings(deadline=None, max_examples=50)
@given(
    quotas=st.lists(st.tuples(NUMBERS, NUMBERS, st.one_of(st.none(), st.floats(-1e3, 1e13)), NUMBERS)),
    seed=st.integers(0, 9),
)
def test_headers_that_contradict_each_other_are_never_called_honest_nor_end_in_an_error(
    quotas: list[tuple[Any, ...]], seed: int
) -> None:
    attempts = []
    for number, attempt in enumerate(SEEN[seed % len(SEEN)]):
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
    found = find(attempts, START_S, 60)
    assert told(found).get("remaining_header") is None or told(found)["remaining_header"].value != "honest"
    json.dumps(msgspec.to_builtins(to_record(found, "run")), allow_nan=False)


def _seen(family: str) -> list[Attempt]:
    rule = RateLimit.model_validate({"limit": 8, "period_s": 10.0, "algorithm": family})
    api = VirtualApi(virtual_limits(requests=rule), ttft_s=0.01)
    probe(api, ProbeTask(questions=("requests",), budget=60))
    return api.attempts()


SEEN = [_seen("fixed_window"), _seen("token_bucket")]
