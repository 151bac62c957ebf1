from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from support_runs import scenario

from bltybench.limits.observations.classify import Decision
from bltybench.policies.retries import POLICIES, Retries, outcome_of
from bltybench.policies.retry.backoff import FailedAttempt
from bltybench.policies.retry.budgets import FinagleBudget, GrpcBudget
from bltybench.report.sentences import PACING_WORDS, client_policy, policy_label, retry_policy
from bltybench.scenario.pacing import PACINGS, Pacing
from bltybench.scenario.retry import SDK_POLICIES, PolicyName, Retry
from bltybench.wire.ratelimit_headers import MAX_WAIT_S, Quota, parse_quota
from bltybench.wire.retry_hints import take_hints

DAY_S = 86_400.0


class ConstantRandom(random.Random):
    """Draws the same number each time."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self._number = number

    def random(self) -> float:
        return self._number


def wait_s(retry: Retry, draw: float = 0.0, **failed: Any) -> float | None:
    announced_s = failed.pop("announced_s", None)
    facts: dict[str, Any] = {"number": 0, "decision": Decision.REFUSED, "status": 429} | failed
    attempt = FailedAttempt(announced_s=announced_s, standard_s=announced_s, **facts)
    return Retries(retry).wait_s(attempt, 0.0, ConstantRandom(draw))


def waits_s(policy: str, draw: float, **failed: Any) -> list[float | None]:
    """Return the waits before six retries in a row."""
    retry, waits = Retry(policy=policy, max_attempts=7), list[float | None]()  # type: ignore[arg-type]
    for number in range(6):
        waits.append(wait_s(retry, draw, number=number, waited_s=waits[-1] if waits else None, **failed))
    return waits


@pytest.mark.parametrize(
    ("policy", "at_0", "at_half"),
    [
        ("none", [None] * 6, [None] * 6),
        ("fixed", [0.5] * 6, [0.5] * 6),
        ("exponential", [0.5, 1, 2, 4, 8, 8], [0.5, 1, 2, 4, 8, 8]),
        ("full_jitter", [0] * 6, [0.25, 0.5, 1, 2, 4, 4]),
        ("equal_jitter", [0.25, 0.5, 1, 2, 4, 4], [0.375, 0.75, 1.5, 3, 6, 6]),
        ("decorrelated_jitter", [0.5] * 6, [1.0, 1.75, 2.875, 4.5625, 7.09375, 8]),
        ("backoff", [0.5, 1, 2, 4, 8, 8], [0.4375, 0.875, 1.75, 3.5, 7, 7]),
        ("retry_after", [0.5, 1, 2, 4, 8, 8], [0.4375, 0.875, 1.75, 3.5, 7, 7]),
        ("retry_after_jitter", [0.5, 1, 2, 4, 8, 8], [0.4375, 0.875, 1.75, 3.5, 7, 7]),
        ("openai", [0.5, 1, 2, 4, 8, 8], [0.4375, 0.875, 1.75, 3.5, 7, 7]),
        ("openai_2_51", [0.5, 1, 2, 4, 8, 8], [0.4375, 0.875, 1.75, 3.5, 7, 7]),
        ("litellm", [0.5, 1, 2, 4, 8, 8], [0.875, 1.375, 2.375, 4.375, 8.375, 8.375]),
        ("vercel_ai", [2, 4, 8, 16, 32, 64], [2, 4, 8, 16, 32, 64]),
    ],
)
def test_waits_without_retry_after_are_those_of_the_policy(
    policy: str, at_0: list[float | None], at_half: list[float | None]
) -> None:
    assert waits_s(policy, 0.0) == at_0
    assert waits_s(policy, 0.5) == at_half


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        # Announced: 7 s, 60 s, 61 s, 120 s, 121 s, a day, 0 (or in the past), and a negative wait.
        ("backoff", [0.4375] * 8),
        ("retry_after", [7, 60, 61, 120, None, None, 0.4375, 0.4375]),
        ("retry_after_jitter", [7.875, 67.5, 68.625, 135, None, None, 0.4375, 0.4375]),
        ("openai", [7, 60, 61, 120, None, None, 0.4375, 0.4375]),
        ("openai_2_51", [7, 60, 0.4375, 0.4375, 0.4375, 0.4375, 0.4375, 0.4375]),
        ("litellm", [7.375, 60.375, 0.875, 0.875, 0.875, 0.875, 0.875, 0.875]),
        ("vercel_ai", [7, 2, 2, 2, 2, 2, 0, 2]),
    ],
)
def test_announced_waits_are_followed_up_to_the_cap_of_the_policy(
    policy: str, waits: list[float | None]
) -> None:
    retry = Retry(policy=policy)  # type: ignore[arg-type]
    announced = (7.0, 60.0, 61.0, 120.0, 121.0, DAY_S, 0.0, -5.0)
    assert [wait_s(retry, 0.5, announced_s=given_s) for given_s in announced] == waits


NOW_S = datetime(2026, 11, 22, 14, tzinfo=UTC).timestamp()
BACKOFF = {"retry_after": 0.4375, "openai": 0.4375, "openai_2_51": 0.4375, "litellm": 0.875, "vercel_ai": 2.0}
GIVES_UP = BACKOFF | {"retry_after": None, "openai": None}


@pytest.mark.parametrize(
    ("name", "text", "announced_s", "waits"),
    [
        ("retry-after", "0", 0.0, BACKOFF | {"vercel_ai": 0.0}),
        ("retry-after", "Sun, 22 Nov 2026 13:59:00 GMT", 0.0, BACKOFF | {"vercel_ai": 0.0}),
        ("retry-after", "-5", None, BACKOFF),
        ("retry-after", "soon", None, BACKOFF),
        ("retry-after", "", None, BACKOFF),
        ("retry-after", "86400", DAY_S, GIVES_UP),
        ("retry-after", "24h", DAY_S, GIVES_UP),
        ("retry-after-ms", "86400000", DAY_S, GIVES_UP),
        ("retry-after", "Mon, 22 Nov 2027 14:00:00 GMT", 365 * DAY_S, GIVES_UP),
        ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT", MAX_WAIT_S, GIVES_UP),
        ("retry-after", "9" * 19, MAX_WAIT_S, GIVES_UP),
        ("retry-after", "9" * 20, MAX_WAIT_S, GIVES_UP),
        ("retry-after", "9" * 300 + ".5", MAX_WAIT_S, GIVES_UP),
        ("retry-after-ms", "9" * 25, MAX_WAIT_S, GIVES_UP),
        ("retry-after", "9" * 25 + "h", MAX_WAIT_S, GIVES_UP),
    ],
)
def test_announced_wait_that_makes_no_sense_is_recorded_and_the_policy_decides(
    name: str, text: str, announced_s: float | None, waits: dict[str, float | None]
) -> None:
    asked_s = parse_quota([(name, text)], NOW_S).retry_after_s
    assert asked_s == announced_s
    done_s = {policy: wait_s(Retry(policy=policy), 0.5, announced_s=asked_s) for policy in waits}  # type: ignore[arg-type]
    assert done_s == waits


@pytest.mark.parametrize(
    ("body", "announced_s"),
    [
        ({"retry_after": 10**400}, 1e15),
        ({"retry_after": float("inf")}, 1e15),
        ({"retry_after_ms": 1 << 60}, 1e12),
        ({"retryDelay": "9" * 25 + "s"}, 1e15),
        ({"retry_after": float("nan")}, None),
        ({"retry_after": -5}, None),
        ({"message": f"Try again in {'9' * 25} hours"}, 1e15),
    ],
)
def test_wait_in_a_body_can_be_absurdly_long(body: dict[str, Any], announced_s: float | None) -> None:
    quota = Quota()
    take_hints(body, body.get("message"), quota, NOW_S)
    assert quota.retry_after_s == (None if announced_s is None else min(announced_s, MAX_WAIT_S))


def test_own_bounds_replace_the_defaults() -> None:
    assert wait_s(Retry(policy="retry_after", max_wait_s=8), announced_s=9) is None
    retry = Retry(policy="exponential", base_s=3, cap_s=10, max_attempts=9)
    assert [wait_s(retry, number=number) for number in range(3)] == [3, 6, 10]


@pytest.mark.parametrize("policy", [*POLICIES])
def test_waits_after_thousands_of_attempts_are_finite(policy: str) -> None:
    retry = Retry(policy=policy, max_attempts=10**6)  # type: ignore[arg-type]
    waited = wait_s(retry, 0.5, number=5000, waited_s=8.0)
    assert waited is not None
    assert 0 < waited < 1e30


@pytest.mark.parametrize("policy", [*POLICIES])
def test_no_retry_after_the_last_attempt(policy: str) -> None:
    retry = Retry(policy=policy, max_attempts=3)  # type: ignore[arg-type]
    assert wait_s(retry, 0.5, number=1) is not None
    assert wait_s(retry, 0.5, number=2) is None


def test_only_what_can_succeed_later_is_retried_by_default() -> None:
    final = {decision for decision in Decision if wait_s(Retry(policy="fixed"), decision=decision) is None}
    assert final == {
        Decision.ACCEPTED,
        Decision.BILLING,
        Decision.CLIENT_ERROR,
        Decision.CANCELLED,
        Decision.NOT_SENT,
    }


def test_outcomes_choose_what_is_retried() -> None:
    retry = Retry(policy="fixed", outcomes=("refused", "billing"))
    retried = {decision for decision in Decision if wait_s(retry, decision=decision) is not None}
    assert {outcome_of(decision) for decision in retried} == {"refused", "billing"}
    assert Decision.REFUSED_BY_TOKENS in retried


def test_a_stream_that_broke_after_a_token_is_retried_only_on_request() -> None:
    broken: dict[str, Any] = {"decision": Decision.BROKEN, "status": 200, "stream": True, "interrupted": True}
    assert wait_s(Retry(policy="fixed"), **broken) == 0.5
    assert wait_s(Retry(policy="fixed"), **broken, has_tokens=True) is None
    assert wait_s(Retry(policy="fixed", retry_begun_streams=True), **broken, has_tokens=True) == 0.5


@pytest.mark.parametrize("policy", sorted(SDK_POLICIES))
@pytest.mark.parametrize(
    ("failed", "retried"),
    [
        ({"status": 429, "decision": Decision.BILLING}, True),
        ({"status": 408, "decision": Decision.CLIENT_ERROR}, True),
        ({"status": 409, "decision": Decision.CLIENT_ERROR}, True),
        ({"status": 529, "decision": Decision.OVERLOAD}, True),
        ({"status": 403, "decision": Decision.REFUSED}, False),
        ({"status": 400, "decision": Decision.CLIENT_ERROR}, False),
        ({"status": None, "decision": Decision.LOST, "interrupted": True}, True),
        ({"status": None, "decision": Decision.CANCELLED, "interrupted": True}, False),
        ({"status": 200, "decision": Decision.BROKEN, "interrupted": True}, True),
        ({"status": 200, "decision": Decision.BROKEN, "interrupted": True, "stream": True}, False),
        ({"status": 200, "decision": Decision.BROKEN}, False),
        ({"status": 200, "decision": Decision.REFUSED, "stream": True}, False),
    ],
)
def test_sdk_policies_retry_what_the_sdks_retry(policy: str, failed: dict[str, Any], retried: bool) -> None:
    assert (wait_s(Retry(policy=policy), **failed) is not None) == retried  # type: ignore[arg-type]


def test_x_should_retry_decides_for_the_openai_package_only() -> None:
    forbidden: dict[str, Any] = {"status": 403, "decision": Decision.CLIENT_ERROR, "should_retry": True}
    assert wait_s(Retry(policy="openai"), **forbidden) == 0.5
    assert wait_s(Retry(policy="openai"), should_retry=False) is None
    assert wait_s(Retry(policy="openai"), should_retry=True, announced_s=DAY_S) is None
    assert wait_s(Retry(policy="retry_after"), should_retry=False) == 0.5


def test_sdk_policy_rejects_settings_that_it_would_ignore() -> None:
    with pytest.raises(ValidationError, match="can't have base_s, outcomes"):
        Retry(policy="openai", base_s=1, outcomes=("refused",))
    assert Retry.model_validate(Retry(policy="openai", max_attempts=5).model_dump()).max_attempts == 5


def test_grpc_budget_stops_retries_at_half_of_its_tokens() -> None:
    budget = GrpcBudget()
    allowed = 0
    for _ in range(20):
        budget.fail()
        allowed += budget.take(0.0)
    assert allowed == 4
    for _ in range(50):
        budget.succeed()
    assert not budget.take(0.0)
    budget.succeed()
    assert budget.take(0.0)


def test_finagle_budget_allows_its_reserve_and_a_fifth_of_recent_calls() -> None:
    budget = FinagleBudget()
    for _ in range(50):
        budget.begin(0.0)
    assert sum(budget.take(1.0) for _ in range(300)) == 110
    assert not budget.take(9.9)
    # After 10 s, neither the calls nor the retries count.
    assert sum(budget.take(11.0) for _ in range(300)) == 100


def test_calls_of_a_client_share_its_budget() -> None:
    retries, rng = Retries(Retry(policy="fixed", budget="grpc", max_attempts=2)), random.Random(1)
    first = FailedAttempt(number=0, decision=Decision.REFUSED, status=429)
    last = FailedAttempt(number=1, decision=Decision.REFUSED, status=429)
    # Last attempts use up tokens too, although they are not retried.
    outcomes = [retries.wait_s(failed, 0.0, rng) for failed in (first, last, first, last, first)]
    assert outcomes == [0.5, None, 0.5, None, None]


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_the_page_describes_every_policy(policy: str) -> None:
    words = retry_policy(Retry(policy=policy, budget="grpc"))  # type: ignore[arg-type]
    assert words == "none, each call has one attempt" or words.endswith("with the retry budget of gRPC")


def test_the_page_describes_what_is_retried() -> None:
    assert retry_policy(
        Retry(policy="fixed", outcomes=("refused", "slow_down"), retry_begun_streams=True)
    ) == (
        "waits 0.5 s each time, and ignores Retry-After, 3 attempts at most, retries refused, slow down, "
        "retries streams that failed after their first token, too"
    )


def test_pacing_is_part_of_the_policy_on_the_page() -> None:
    assert client_policy(Retry(), Pacing()) == retry_policy(Retry())
    assert set(PACING_WORDS) == set(PACINGS) - {"none"}
    paced = scenario(retry={"policy": "retry_after"}, pacing={"policy": "even"})
    assert client_policy(paced.retry, paced.pacing).endswith(
        "; requests are paced evenly, at the rate of the limits"
    )
    assert policy_label(paced) == "retry-after, pacing even"
    calls = {"kind": "constant", "rate_per_min": 60}
    arrivals = {"kind": "tournament", "policies": ["none", "openai"], "calls": calls, "stage_s": 9}
    assert policy_label(scenario(retry={}, arrivals=arrivals)) == "2 policies, one after another"
