"""Whether a run with several keys shows that they share a limit, and what is then claimed of each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from support_runs import manifest

from benchmarks.key_sharing import attempts_with_keys, shared_by
from benchmarks.ordinary_runs import START_S
from bltybench.limits.findings.model import decode, encode
from bltybench.limits.observations.extract import EXACT
from bltybench.limits.sharing import Conditions, divide
from bltybench.report.inference import Inference
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.manifest import TargetInfo

MAX_REQUESTS = 300
"""Attempts of a run: enough for several periods of the limits."""


@pytest.mark.parametrize(
    ("name", "shared", "fallback"),
    [
        ("FixedWindow", True, False),
        ("SlidingLog", True, True),
    ],
)
def test_sharing_is_found_from_an_ordinary_run(name: str, shared: bool, fallback: bool) -> None:
    assert (
        shared_by(attempts_with_keys(name, 0, shared=shared, fallback=fallback, max_requests=MAX_REQUESTS))
        is shared
    )


def divided(attempts: Sequence[Attempt]) -> tuple[list[dict[str, str]], list[str]]:
    parts, sharing = divide(attempts, Conditions(START_S, (), EXACT))
    return [dict(part.owner) for part in parts], [one.says for one in sharing]


def inferred(attempts: Sequence[Attempt], **fields: object) -> Inference:
    clock = msgspec.structs.replace(manifest().clock, wall_ns=round(START_S * 1e9))
    return Inference(msgspec.structs.replace(manifest(), clock=clock, **fields), EXACT, probed=False)


def test_run_without_refusals_says_nothing_about_sharing() -> None:
    accepted = [
        one
        for one in attempts_with_keys("FixedWindow", 0, shared=True, max_requests=MAX_REQUESTS)
        if one.outcome is Outcome.OK
    ]
    owners, says = divided(accepted)
    assert owners == [{}]
    assert says == ["The run does not show whether the keys A and B share a limit: nothing was refused."]
    record = inferred(accepted).record(accepted)
    assert record.status == "never_refused"
    assert not record.parts


def test_refusals_by_another_limit_claim_nothing_about_the_request_limit() -> None:
    attempts = [
        one
        if one.outcome is Outcome.OK
        else msgspec.structs.replace(
            one, error_code="token_limit_exceeded", error_message="tokens per minute"
        )
        for one in attempts_with_keys("FixedWindow", 0, shared=True, max_requests=MAX_REQUESTS)
    ]
    owners, says = divided(attempts)
    assert owners == [{}]
    assert says[0].endswith("share a limit: no refusal is by the request limit.")


def test_more_keys_than_can_be_compared_claim_nothing() -> None:
    attempts = attempts_with_keys("FixedWindow", 0, shared=True, max_requests=MAX_REQUESTS)
    many = [msgspec.structs.replace(one, key=f"K{index % 9}") for index, one in enumerate(attempts)]
    _, says = divided(many)
    assert says == [
        "The run does not show whether the keys K0, K1, K2, and 6 more share a limit: at most 8 are compared."
    ]


def test_refusals_that_both_explain_claim_no_limit() -> None:
    # B is used while A is not, so either of both explanations fits.
    attempts = attempts_with_keys("FixedWindow", 0, shared=False, share=1.0, max_requests=MAX_REQUESTS)
    last = max(one.sent_ns or 0 for one in attempts)
    later = [
        msgspec.structs.replace(
            one,
            key="B",
            due_ns=one.due_ns + last,
            sent_ns=(one.sent_ns or 0) + last,
            headers_ns=(one.headers_ns or 0) + last,
            end_ns=one.end_ns + last,
        )
        for one in attempts[:5]
        if one.outcome is Outcome.OK
    ]
    record = inferred(attempts).record([*attempts, *later])
    assert record.status == "unknown"
    assert record.observed is None
    assert (record.reason or "").startswith("The run does not show whether the keys A and B share a limit")
    assert record.sharing[0].shared is None
    assert record.headers.retry_enough.of == 0


def test_each_key_with_a_limit_of_its_own_is_fitted_alone() -> None:
    attempts = attempts_with_keys("SlidingLog", 0, shared=False, max_requests=MAX_REQUESTS)
    record = inferred(attempts).record(attempts)
    assert [part.owner for part in record.parts] == [{"key": "A"}, {"key": "B"}]
    limits = {part.findings.observed and part.findings.observed.limit for part in record.parts}
    assert len(limits) == 1
    assert None not in limits
    assert record.observed is None
    assert record.says[0].startswith("The keys A and B do not share a limit: one limiter for all makes ")
    assert any(line.startswith("Rate: A: ") for line in record.advice)
    assert decode(encode(record)) == record


def test_different_targets_never_share_a_fit() -> None:
    attempts = attempts_with_keys("FixedWindow", 0, shared=True, max_requests=MAX_REQUESTS)
    by_target = [msgspec.structs.replace(one, target=one.key, key=None) for one in attempts]
    owners, says = divided(by_target)
    assert owners == [{"target": "A"}, {"target": "B"}]
    assert says == []
    targets = [TargetInfo(name=name, base_url="http://127.0.0.1:1/v1") for name in "AB"]
    accepted = [one for one in by_target if one.outcome is Outcome.OK]
    record = inferred(accepted, target=targets[0], other_targets=targets[1:]).record(accepted)
    assert [part.name for part in record.parts] == ["A", "B"]
    assert record.status == "never_refused"


def test_models_are_compared_as_keys_are() -> None:
    attempts = attempts_with_keys("FixedWindow", 0, shared=True, max_requests=MAX_REQUESTS)
    by_model = [msgspec.structs.replace(one, requested_model=one.key, key="K") for one in attempts]
    owners, says = divided(by_model)
    assert owners == [{}]
    assert says[0].startswith("The models A and B share a limit: one limiter for all makes ")
