"""Simulated retry policies: cases worked out by hand, and laws that hold for all policies and limiters."""

from __future__ import annotations

import random
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulate import MAX_ATTEMPTS, attempts_per_s
from bltybench.cli import main
from bltybench.errors import UserError
from bltybench.limits.observations.classify import Decision
from bltybench.policies import simulation
from bltybench.policies.simulated_api import SimulatedApi
from bltybench.policies.simulated_calls import SimulatedCalls
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad, load_of
from bltybench.policies.simulation import Simulation
from bltybench.policies.tally import jain, tally
from bltybench.policies.tournament import SimulatedTournament, variant
from bltybench.sandbox.quota import KeyQuota, Refusal
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.file.resolve import resolve
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.retry import PolicyName, Retry
from bltybench.scenario.target import RateLimit, SandboxLimits

SECOND = ServiceTime(first_s=1.0, per_token_s=0.0)
SIZE = CallSize(prompt=10, completion=10)


def limits(limit: int = 2, period_s: float = 10.0, **changes: Any) -> SandboxLimits:
    fields = {"requests": RateLimit(limit=limit, period_s=period_s, algorithm="sliding_log")}
    return SandboxLimits(**({"tokens": None, "concurrency": None} | fields | changes))


def load(*due_s: float, users: int = 100, clients: int = 1, **changes: Any) -> SimulatedLoad:
    fields: dict[str, Any] = {"due_s": due_s, "think_s": 0.0, "end_s": 60.0, "sizes": (SIZE,)}
    return SimulatedLoad(clients=clients, users=users, **(fields | changes))


def run(calls: SimulatedLoad, limited: SandboxLimits, policy: str, **retry: Any) -> SimulatedCalls:
    return Simulation(calls, limited, Retry(policy=policy, **retry), SECOND, seed=1).run()  # type: ignore[arg-type]


def test_refused_call_succeeds_after_the_announced_wait() -> None:
    calls = run(load(0, 0, 0), limits(), "retry_after")
    assert [call.accepted_s for call in calls] == [0, 0, pytest.approx(10.02)]
    assert [call.ended_s for call in calls] == [1, 1, pytest.approx(11.02)]
    assert [call.refusals for call in calls] == [[], [], [Decision.REFUSED_BY_REQUESTS]]


def test_calls_give_up_after_their_last_attempt() -> None:
    calls = run(load(0, 0, 0), limits(), "fixed", base_s=2.0, max_attempts=3)
    assert [call.ok for call in calls] == [True, True, False]
    # Sent at 0, 2.02, and 4.04 s; each refusal takes 0.02 s.
    assert calls[2].ended_s == pytest.approx(4.06)
    result = tally("fixed", load(0, 0, 0), calls)
    assert (result.calls, result.ok, result.gave_up, result.attempts) == (3, 2, 1, 5)
    assert result.refusals_per_success == 1.5
    assert result.wasted_tokens == 3 * SIZE.prompt
    assert result.goodput_per_min == 2
    assert result.success_p50_s is None


def test_a_call_without_an_idle_user_is_late_and_its_wait_counts() -> None:
    calls = run(load(0, 0.25, users=1), limits(9), "none")
    assert [call.accepted_s for call in calls] == [0, 1]
    assert calls[1].ended_s - calls[1].due_s == 1.75


def test_users_of_a_closed_loop_think_between_calls_until_the_load_ends() -> None:
    closed = load(users=2, clients=2, due_s=None, think_s=0.5, end_s=4.0)
    calls = run(closed, limits(99), "none")
    assert [call.due_s for call in calls] == [0, 0, 1.5, 1.5, 3, 3]
    assert tally("none", closed, calls).fairness == 1


def test_a_batch_ends_with_its_last_call() -> None:
    batch = load(*[0.0] * 6, end_s=None)
    result = tally("retry_after", batch, run(batch, limits(), "retry_after", max_attempts=9))
    # Two calls at 0, two after 10 s, and two after 20 s, each 1 s long. Each refusal takes 0.02 s.
    assert result.makespan_s == pytest.approx(21.04, abs=0.1)
    assert result.goodput_per_min is None


def test_tokens_and_concurrency_refuse_too() -> None:
    tokens = limits(99, tokens=RateLimit(limit=50, period_s=10, algorithm="sliding_log"))
    calls = run(load(0, 0, 0), tokens, "none")
    assert [call.refusals for call in calls] == [[], [], [Decision.REFUSED_BY_TOKENS]]
    slots = limits(99, concurrency=2)
    calls = run(load(0, 0, 0.5, 1), slots, "none")
    assert [call.refusals for call in calls] == [[], [], [Decision.REFUSED_BY_CONCURRENCY], []]


def test_a_leaky_queue_delays_accepted_calls() -> None:
    queue = limits(requests=RateLimit(limit=6, period_s=6, algorithm="leaky_queue"))
    calls = run(load(0, 0, 0), queue, "none")
    assert [call.ended_s for call in calls] == pytest.approx([1, 2, 3])


def test_clients_have_budgets_of_their_own() -> None:
    shared = run(load(*[0.0] * 20), limits(1, 3600), "fixed", budget="grpc")
    own = run(load(*[0.0] * 20, clients=20), limits(1, 3600), "fixed", budget="grpc")
    assert sum(len(call.refusals) for call in shared) == 19 + 4
    assert sum(len(call.refusals) for call in own) == 19 * 3


def test_a_refused_call_falls_back_immediately_and_waits_once_all_apis_have_refused_it() -> None:
    # The first API accepts one call per 10 s, the second one per 4 s.
    first, second = limits(1), limits(1, 4.0)
    calls = Simulation(
        load(0, 0, 0, routes=((0, 1),)),
        first,
        Retry(policy="retry_after"),
        SECOND,
        seed=1,
        others=[second],
    ).run()
    assert [len(call.refusals) for call in calls] == [0, 1, 3]
    assert [call.accepted_s for call in calls[:2]] == pytest.approx([0, 0.02])
    # Refused at 0.02 and 0.04 s, it waits 4 s, the shorter wait, and begins with the first API again.
    assert calls[2].accepted_s == pytest.approx(0.04 + 4 + 0.02)
    alone = Simulation(
        load(0, 0, routes=((0, 1), (1, 0))), first, Retry(), SECOND, seed=1, others=[second]
    ).run()
    assert [call.refusals for call in alone] == [[], []]


def test_slots_are_released_at_the_api_that_accepted_the_call() -> None:
    slots = limits(99, concurrency=1)
    calls = Simulation(
        load(0, 0, 1.5, 1.5, routes=((0, 1),)), slots, Retry(), SECOND, seed=1, others=[slots]
    ).run()
    assert [call.ok for call in calls] == [True] * 4


@pytest.mark.parametrize("options", [["--pacing", "limiter"], ["--need", "p95 <= 5 s"]])
def test_scenario_that_falls_back_is_simulated_with_the_limits_of_each_key(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
) -> None:
    file = tmp_path / "scenarios.toml"
    file.write_text(
        """
        default_scenario = "s"
        [targets.t]
        base_url = "http://127.0.0.1:9/v1"
        keys = ["KEY_A", "KEY_B"]
        [[targets.t.limits]]
        what = "requests"
        limit = 10
        per = "minute"
        [[targets.t.limits]]
        what = "requests"
        limit = 15
        per = "hour"
        [scenarios.s]
        title = "Fall back"
        target = "t"
        model = "m"
        users = 40
        duration_s = 120
        [scenarios.s.arrivals]
        kind = "closed"
        [[scenarios.s.mix]]
        name = "a"
        prompt_tokens = { kind = "fixed", tokens = 5 }
        max_tokens = { kind = "fixed", tokens = 5 }
        [scenarios.s.retry]
        policy = "retry_after"
        max_attempts = 9
        fallback = true
        """,
        encoding="utf-8",
    )
    chosen = ("--scenario-file", str(file), "--calls", "40", "--policy", "retry_after")
    assert simulate(monkeypatch, *chosen, "--json") == 0
    (limiter,) = msgspec.json.decode(capsys.readouterr().out, type=SimulatedTournament).limiters
    assert (limiter.other_apis, limiter.optimum, limiter.results[0].ok) == (1, None, 30)
    assert simulate(monkeypatch, *chosen, *options) == 2
    assert "have several" in capsys.readouterr().err


def test_simulate_keeps_documented_limits_on_input_and_output_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenarios.toml"
    file.write_text(
        """
        [targets.t]
        base_url = "http://127.0.0.1:9/v1"
        [[targets.t.limits]]
        what = "input_tokens"
        limit = 100
        per = "minute"
        [[targets.t.limits]]
        what = "output_tokens"
        limit = 20
        per = "minute"
        [scenarios.s]
        title = "One way"
        target = "t"
        model = "m"
        users = 40
        duration_s = 120
        [scenarios.s.arrivals]
        kind = "closed"
        [[scenarios.s.mix]]
        name = "a"
        prompt_tokens = { kind = "fixed", tokens = 30 }
        max_tokens = { kind = "fixed", tokens = 5 }
        """,
        encoding="utf-8",
    )
    chosen = ("--scenario-file", str(file), "--calls", "40", "--policy", "none", "--pacing", "none")
    assert simulate(monkeypatch, *chosen, "--pacing", "limiter", "--json") == 0
    (limiter,) = msgspec.json.decode(capsys.readouterr().out, type=SimulatedTournament).limiters
    assert limiter.sentence() == (
        "100 input tokens per 60 s (fixed window), 20 output tokens per 60 s (fixed window)"
    )
    assert {row.pacing: (row.ok, row.refused_by_tokens) for row in limiter.results} == {
        "limiter": (40, 0),
        "none": (3, 37),
    }
    assert limiter.optimum is not None
    assert limiter.optimum.accepted == 40


@pytest.mark.parametrize(("values", "index"), [([3, 3, 3], 1), ([6, 0, 0], 1 / 3), ([0, 0], None)])
def test_jains_index(values: list[float], index: float | None) -> None:
    assert jain(values) == (None if index is None else pytest.approx(index))


@given(
    policy=st.sampled_from(get_args(PolicyName)),
    algorithm=st.sampled_from(get_args(Algorithm)),
    limit=st.integers(1, 20),
    due_s=st.lists(st.floats(0, 30), min_size=1, max_size=60).map(sorted),
    clients=st.integers(1, 5),
)
@settings(max_examples=150, deadline=None)
def test_every_call_ends_once_and_every_attempt_is_counted(
    policy: str, algorithm: Algorithm, limit: int, due_s: list[float], clients: int
) -> None:
    given_load = load(*due_s, users=7, clients=clients)
    rule = limits(requests=RateLimit(limit=limit, period_s=5.0, algorithm=algorithm))
    retry = Retry(policy=policy, max_attempts=4)  # type: ignore[arg-type]
    calls = Simulation(given_load, rule, retry, SECOND, seed=limit).run()
    result = tally(policy, given_load, calls)
    assert (result.calls, result.ok + result.gave_up) == (len(due_s), len(due_s))
    assert result.attempts == result.ok + result.refused_by_requests
    assert all(call.ended_s >= call.due_s and len(call.refusals) + call.ok <= 4 for call in calls)
    again = tally(policy, given_load, Simulation(given_load, rule, retry, SECOND, seed=limit).run())
    assert again == result
    if algorithm == "sliding_log":
        sent = sorted(call.accepted_s for call in calls if call.accepted_s is not None)
        assert all(later - earlier >= 5 - 1e-6 for earlier, later in zip(sent, sent[limit:], strict=False))


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_calls_that_nothing_hinders_are_simulated_as_by_events(policy: PolicyName) -> None:
    rng = random.Random(policy)
    for seed in range(20):
        rule = {
            "limit": rng.randint(1, 12),
            "period_s": rng.choice((0.7, 5.0, 61.3)),
            "algorithm": rng.choice(get_args(Algorithm)),
        }
        rule |= rng.choice(({}, {"ban_s": 3.0}, {"also": {"limit": 3, "period_s": 1.0}}))
        style = rng.choice(("honest", "no_retry_after", "long_retry_after"))
        enforced = limits(requests=RateLimit.model_validate(rule), headers=style)
        # Some calls are due at the same time.
        times_s = [rng.choice((rng.uniform(0, 30), float(rng.randint(0, 9)))) for _ in range(60)]
        calls = load(*sorted(times_s), clients=rng.randint(1, 3), sizes=(SIZE, CallSize(1, 7)))
        fast, by_events = (
            Simulation(
                calls, enforced, Retry(policy=policy, max_attempts=5), ServiceTime(0.3, 0.1), seed=seed
            )
            for _ in range(2)
        )
        assert list(fast.run()) == list(by_events.run_by_events())


@pytest.mark.parametrize(
    "changes", [{"users": 2}, {"due_s": None, "users": 3}, {"routes": ((0, 0),)}, {"due_s": (3.0, 1.0, 0.0)}]
)
def test_calls_that_can_wait_for_users_or_fall_back_are_simulated_by_events(changes: dict[str, Any]) -> None:
    calls = load(0, 0, 0, 1, 1, **({"end_s": 5.0} | changes))
    found = Simulation(calls, limits(), Retry(policy="fixed"), SECOND, seed=1)
    assert list(found.run()) == list(
        Simulation(calls, limits(), Retry(policy="fixed"), SECOND, seed=1).run_by_events()
    )


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
@pytest.mark.parametrize("style", ["honest", "long_retry_after", "no_retry_after"])
def test_simulated_api_answers_as_the_sandbox(algorithm: Algorithm, style: str) -> None:
    rng = random.Random(algorithm)
    rule = limits(
        requests=RateLimit(limit=8, period_s=7, algorithm=algorithm),
        tokens=RateLimit(limit=600, period_s=11, algorithm="token_bucket"),
        input_tokens=RateLimit(limit=400, period_s=11, algorithm="sliding_log"),
        output_tokens=RateLimit(limit=400, period_s=13),
        tokens_charged="reserved",
        headers=style,
    )
    api, quota, now_s = SimulatedApi(rule), KeyQuota(rule), 1000.0
    refusals = 0
    for _ in range(300):
        now_s += rng.expovariate(2.0)
        size = CallSize(rng.randint(1, 100), rng.randint(1, 100))
        answer, admitted = api.decide(now_s, size), quota.admit(now_s, size)
        if isinstance(admitted, Refusal):
            refusals += 1
            assert answer.decision.value == f"refused by {admitted.limit.rpartition('_')[2]}"
            header = dict(admitted.error.headers).get(b"retry-after")
            assert answer.announced_s == (None if header is None else float(header))
        else:
            assert answer.decision is Decision.ACCEPTED
            assert answer.delay_s == admitted.delay_s
    assert 50 < refusals < 290


def test_an_endless_simulation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "MAX_EVENTS", 1000)
    with pytest.raises(UserError, match="more than 1,000 events"):
        run(load(*[0.0] * 9), limits(1, 3600), "fixed", max_attempts=10**6)


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_a_scenarios_retry_table_can_take_every_policy(policy: str) -> None:
    own = Retry(policy="backoff", base_s=2.0, max_attempts=7, budget="grpc")
    changed = variant(own, policy)
    assert (changed.policy, changed.max_attempts, changed.budget) == (policy, 7, "grpc")


def test_load_of_a_scenario_has_its_schedule_and_lengths() -> None:
    resolved = resolve(load_book(), "quickstart")
    made = load_of(resolved.scenario, resolved.base_dir, clients=3)
    assert made.due_s is not None
    assert len(made.due_s) == len(made.sizes) == 150
    assert all(earlier <= later for earlier, later in pairwise(made.due_s))
    assert sum(made.users_of(client) for client in range(3)) == made.users == resolved.scenario.users
    assert load_of(resolved.scenario, resolved.base_dir, clients=3, batch=7).due_s == (0.0,) * 7


def simulate(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bltybench", "simulate", *arguments])
    return main()


def test_command_compares_policies_and_limiters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = (
        "--policy",
        "openai",
        "--policy",
        "none",
        "--limiter",
        "token_bucket",
        "--limiter",
        "sliding_log",
    )
    assert simulate(monkeypatch, "quickstart", *chosen, "--requests", "30", "--clients", "2", "--json") == 0
    made = msgspec.json.decode(capsys.readouterr().out, type=SimulatedTournament)
    assert [limiter.requests and limiter.requests["algorithm"] for limiter in made.limiters] == [
        "token_bucket",
        "sliding_log",
    ]
    for limiter in made.limiters:
        assert {row.policy for row in limiter.results} == {"openai", "none"}
        assert all(row.calls == 150 and row.refused_by_requests for row in limiter.results)
        assert limiter.optimum is not None
        below = [row.below_optimum_percent or 0.0 for row in limiter.results]
        assert 0 <= below[0] <= below[1] < 100
    assert simulate(monkeypatch, "chat", "--calls", "40", "--policy", "vercel_ai") == 0
    out = capsys.readouterr().out
    assert "Simulated a batch of chat" in out
    assert "vercel_ai" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "opnai"), "--policy opnai: unknown name; did you mean 'openai'?"),
        (("--limiter", "bucket"), "--limiter bucket: unknown name; did you mean 'token_bucket'?"),
        (("--clients", "200"), "200 clients need at least as many users, but the scenario has 100"),
        (("find-capacity",), "arrivals of the kind 'search' can't be simulated"),
    ],
)
def test_command_explains_what_it_cannot_simulate(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert simulate(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_benchmark_of_the_speed_counts_every_attempt() -> None:
    assert attempts_per_s("none", 100)[0] == 100
    attempts, per_s = attempts_per_s("fixed", 10_000)
    assert 10_000 < attempts < 10_000 * MAX_ATTEMPTS
    assert per_s > 0
