"""The optimum against exhaustive search over all schedules on a grid, and against every policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.policies import random_case
from bltybench.limits.models import AllOf
from bltybench.limits.models.families import FAMILIES, model_of
from bltybench.policies.optimum import Optimum, optimum
from bltybench.policies.simulated_api import windows_start_s
from bltybench.policies.simulated_load import ServiceTime, SimulatedLoad
from bltybench.policies.simulation import Simulation
from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.retry import PolicyName, Retry
from bltybench.scenario.target import RateLimit, SandboxLimits

SECOND = ServiceTime(first_s=1.0, per_token_s=0.0)
WAITING: tuple[Algorithm, ...] = ("first_hit_window", "first_hit_counter", "whole_token_bucket")
"""Families for which a client gains by waiting."""
HORIZON_S = 10
PERIOD_S = 4.0
CASES = 5
SIZE = CallSize(4, 6)


def load(*due: float, users: int = 1000, **changes: Any) -> SimulatedLoad:
    fields: dict[str, Any] = {"due_s": due, "think_s": 0.0, "end_s": 30.0, "sizes": (SIZE,)}
    return SimulatedLoad(clients=1, users=users, **(fields | changes))


def limits(requests: RateLimit | None, **changes: Any) -> SandboxLimits:
    return SandboxLimits(**({"requests": requests, "tokens": None, "concurrency": None} | changes))


def best_by(limited: SandboxLimits, due_s: tuple[int, ...], start_s: float) -> list[int]:
    """Return the most calls that any schedule on the grid has accepted by each second, by trying them all."""
    best = [0] * (HORIZON_S + 1)
    costs = [SIZE.cost(what) for what in limited.per_period]

    def search(at_s: int, state: AllOf | None, ends_s: list[float], accepted: int) -> None:
        best[at_s] = max(best[at_s], accepted)
        if at_s == HORIZON_S:
            return
        now_s = at_s + 1
        for more in sent(now_s, state, [end_s for end_s in ends_s if end_s > now_s], accepted):
            search(now_s, *more)

    def sent(
        now_s: int, state: AllOf | None, ends_s: list[float], accepted: int
    ) -> Iterator[tuple[AllOf | None, list[float], int]]:
        """Yield the state after sending no, one, two, … of the calls that are due, all of them accepted."""
        yield deepcopy(state), ends_s, accepted
        while accepted < sum(due <= now_s for due in due_s):
            if limited.concurrency is not None and len(ends_s) >= limited.concurrency:
                return
            delay_s = 0.0
            if state is not None:
                decisions = state.decide_each(start_s + now_s, costs)
                if not all(decision.accepted for decision in decisions):
                    return
                delay_s = max(decision.delay_s for decision in decisions)
            ends_s, accepted = [*ends_s, now_s + delay_s + 1.0], accepted + 1
            yield deepcopy(state), ends_s, accepted

    models = [model_of(setting) for setting in limited.per_period.values()]
    state = AllOf(models) if models else None
    for more in sent(0, state, [], 0):
        search(0, *more)
    return [max(best[: at_s + 1]) for at_s in range(HORIZON_S + 1)]


def replayed(limited: SandboxLimits, found: Optimum, start_s: float) -> bool:
    """Return whether the limiters accept all requests of the optimum."""
    costs = [SIZE.cost(what) for what in limited.per_period]
    models = AllOf([model_of(setting) for setting in limited.per_period.values()])
    if not any(
        FAMILIES[one.algorithm].has_phase for top in limited.per_period.values() for one in top.chain()
    ):
        # The optimum is exact to the last bit in the client's time.
        start_s = 0.0
    return all(
        decision.accepted
        for at_s in found.accepted_s
        for decision in models.decide_each(start_s + at_s, costs)
    )


def without_waits(setting: RateLimit, due_s: Sequence[float], end_s: float, cost: float = 1.0) -> int:
    """Return how many calls are accepted by the end if each is sent as soon as it is accepted."""
    model, now_s, accepted = model_of(setting), 0.0, 0
    for at_s in due_s:
        now_s = max(now_s, at_s)
        now_s += model.peek(now_s, cost).retry_after_s or 0.0
        model.charge(now_s, cost)
        accepted += now_s <= end_s
    return accepted


def check(limited: SandboxLimits, due_s: tuple[int, ...], start_s: float) -> bool:
    """Compare the optimum by each second with the best schedule on the grid. Return whether it is known."""
    best = best_by(limited, due_s, start_s)
    for at_s in range(HORIZON_S + 1):
        found = optimum(load(*due_s, end_s=float(at_s)), limited, SECOND, start_s)
        if found is None:
            return False
        assert found.accepted_by(at_s) >= best[at_s], (limited, due_s, start_s, at_s)
        assert replayed(limited, found, start_s)
    return True


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_no_schedule_on_a_grid_beats_the_optimum(algorithm: Algorithm) -> None:
    rng = Random(algorithm)
    for _ in range(CASES):
        limited = limits(RateLimit(limit=rng.randint(1, 3), period_s=PERIOD_S, algorithm=algorithm))
        due_s = tuple(sorted(rng.randint(0, 7) for _ in range(5)))
        assert check(limited, due_s, start_s=float(rng.randint(0, 3)))


def test_no_schedule_on_a_grid_beats_the_optimum_of_several_limits() -> None:
    rng = Random(1)
    known = 0
    for _ in range(3 * CASES):
        first, second = rng.choices(get_args(Algorithm), k=2)
        limited = limits(
            RateLimit(limit=rng.randint(1, 3), period_s=PERIOD_S, algorithm=first),
            tokens=RateLimit(limit=rng.randint(10, 30), period_s=5.0, algorithm=second),
            output_tokens=RateLimit(limit=rng.randint(6, 20), period_s=5.0, algorithm=second),
            concurrency=rng.choice([None, 1, 2]),
        )
        known += check(limited, tuple(sorted(rng.randint(0, 7) for _ in range(5))), 1.0)
    assert known > CASES


def test_a_first_hit_window_can_be_started_late_on_purpose() -> None:
    # With the first call at 1 s, only three calls are accepted by 7 s. With a window from 3 to 7 s, four are.
    limited = limits(RateLimit(limit=2, period_s=PERIOD_S, algorithm="first_hit_window"))
    found = optimum(load(1, 5, 7, 7, 7, end_s=7.0), limited, SECOND, 0.0)
    assert found is not None
    assert found.accepted_by(7.0) == 4


def test_optimum_is_known_if_a_first_hit_window_starts_when_the_former_ends() -> None:
    # Rounding once put the start of a window an instant before the end of the former one.
    case = random_case(9_000_182)
    drawn = case.limits.requests or RateLimit(limit=6)
    limited = limits(drawn.model_copy(update={"algorithm": "first_hit_window"}))
    found = optimum(case.load, limited, case.service, windows_start_s(limited, case.seed))
    assert found is not None
    assert found.accepted_by(case.load.end_s) == 26
    rng = Random(3)
    for _ in range(50):
        period_s, start_s = rng.uniform(1, 60), rng.uniform(0, 60)
        limited = limits(RateLimit(limit=2, period_s=period_s, algorithm="first_hit_window"))
        # One call late in each window, and a burst at the end of the next, over and over.
        due_s = sorted(n * period_s + m * 1e-9 for n in range(20) for m in range(3))
        found = optimum(load(*due_s, end_s=20 * period_s), limited, SECOND, start_s)
        assert found is not None
        assert found.accepted_by(20 * period_s) >= 2 * 20


@pytest.mark.parametrize(
    ("algorithm", "due_s", "end_s", "waits", "never_waits"),
    [
        # Sent at 3 s, the second call would lose half a token.
        ("whole_token_bucket", (2, 3, 5, 5), 6, [2, 4, 6, 6], 3),
        # If the first window starts at 3 s, the second one ends during the burst, and none is empty.
        ("first_hit_counter", (0, 0, 11, 11, 11), 13, [3, 3, 11, 11, 11], 4),
        # The windows end a moment after the first call of each burst, which two windows then share.
        ("first_hit_counter", (2, 6, 6, 8), 9, [2, 6, 6, 8], 3),
    ],
)
def test_client_accepts_more_if_it_waits_at_the_right_times(
    algorithm: Algorithm, due_s: tuple[float, ...], end_s: float, waits: list[float], never_waits: int
) -> None:
    setting = RateLimit(limit=2, period_s=PERIOD_S, algorithm=algorithm)
    found = optimum(load(*due_s, end_s=end_s), limits(setting), SECOND, 0.0)
    assert found is not None
    assert list(found.accepted_s) == pytest.approx(waits, abs=1e-5)
    assert without_waits(setting, due_s, end_s) == never_waits


@pytest.mark.parametrize("algorithm", WAITING)
def test_optimum_is_known_and_within_the_limit_for_a_thousand_calls(algorithm: Algorithm) -> None:
    rng = Random(2)
    due_s = sorted(rng.uniform(0, 900) for _ in range(200) for _ in range(rng.choice([1, 1, 20])))[:1000]
    requests, tokens = (RateLimit(limit=n, period_s=10.0, algorithm=algorithm) for n in (20, 205))
    for limited, setting, cost in (
        (limits(requests), requests, 1),
        (limits(None, tokens=tokens), tokens, 10),
    ):
        found = optimum(load(*due_s, end_s=480.0), limited, SECOND, 0.0)
        assert found is not None
        assert replayed(limited, found, 0.0)
        assert found.accepted_by(480.0) >= without_waits(setting, due_s, 480.0, cost) + (cost == 1)


@pytest.mark.parametrize("algorithm", WAITING)
def test_no_schedule_on_a_grid_beats_the_optimum_of_a_batch(algorithm: Algorithm) -> None:
    limited = limits(RateLimit(limit=2, period_s=PERIOD_S, algorithm=algorithm))
    assert check(limited, (1, 1, 1, 1, 1), 1.0)
    few = limits(RateLimit(limit=2, period_s=3.0, algorithm=algorithm), concurrency=1)
    assert check(few, (1, 1, 1, 1, 1), 1.0) is (algorithm != "whole_token_bucket")


def test_optimum_of_a_limit_that_rewards_waiting_and_another_is_known_if_one_of_them_decides() -> None:
    windows = RateLimit(limit=2, period_s=PERIOD_S, algorithm="first_hit_window")
    due_s = (1.0, 5.0, 7.0, 7.0, 7.0)
    # Alone, the windows accept four calls by 7 s.
    for second, accepted in ((RateLimit(limit=4, period_s=9.0), 4), (RateLimit(limit=1, period_s=9.0), 1)):
        chain = limits(windows.model_copy(update={"also": second}))
        found = optimum(load(*due_s, end_s=7.0), chain, SECOND, 0.0)
        assert found is not None
        assert found.accepted_by(7.0) == accepted
        assert replayed(chain, found, 0.0)
    # By 2 s, both accept five calls if the fourth waits for a token. Each limit alone accepts five.
    buckets = RateLimit(limit=4, period_s=6.0, algorithm="whole_token_bucket")
    second = RateLimit(limit=3, period_s=3.0, algorithm="token_bucket")
    both = limits(buckets.model_copy(update={"also": second}))
    assert optimum(load(*[0.0] * 10, end_s=2.0), both, SECOND, 0.0) is None


def test_optimum_is_known_for_a_waiting_room_unless_its_waiting_calls_begin_windows() -> None:
    for algorithm, is_known in (("fixed_window", True), ("sliding_log", True), ("first_hit_window", False)):
        rule = {"limit": 2, "period_s": PERIOD_S, "algorithm": algorithm, "waiting": 1}
        assert check(limits(RateLimit.model_validate(rule)), (0, 0, 0, 1), 1.0) == is_known


def test_optimum_is_unknown_if_a_window_delays_calls() -> None:
    limited = limits(
        RateLimit(limit=2, period_s=PERIOD_S, algorithm="first_hit_window", spread=True),
    )
    assert optimum(load(0, 0, 0, 0), limited, SECOND, 0.0) is None
    assert optimum(load(0, 0, 1), limited, SECOND, 0.0) is None


@pytest.mark.parametrize(
    ("algorithm", "accepted_s"),
    [
        ("fixed_window", [0, 0, 4, 4, 8, 8]),
        ("first_hit_window", [0, 0, 4, 4, 8, 8]),
        ("sliding_log", [0, 0, 4, 4, 8, 8]),
        ("token_bucket", [0, 0, 2, 4, 6, 8]),
        ("whole_token_bucket", [0, 0, 2, 4, 6, 8]),
        ("interval_refill", [0, 0, 2, 4, 6, 8]),
        ("leaky_queue", [0, 0, 2, 4, 6, 8]),
        ("sliding_counter", [0, 0, 4, 6, 8, 10]),
        ("first_hit_counter", [0, 0, 4, 6, 8, 10]),
    ],
)
def test_optimum_of_a_batch_is_that_of_the_family(algorithm: Algorithm, accepted_s: list[float]) -> None:
    batch = load(*[0.0] * 6, end_s=None)
    limited = limits(RateLimit(limit=2, period_s=PERIOD_S, algorithm=algorithm))
    found = optimum(batch, limited, SECOND, 0.0)
    assert found is not None
    assert list(found.accepted_s) == pytest.approx(accepted_s)
    assert found.below(found.accepted_s, None) == 0
    assert found.below(found.accepted_s[:3], None) == 50


@given(
    policy=st.sampled_from(get_args(PolicyName)),
    algorithm=st.sampled_from(get_args(Algorithm)),
    limit=st.integers(1, 12),
    due_s=st.lists(st.floats(0, 20), min_size=1, max_size=50).map(sorted),
    end_s=st.floats(1, 30),
)
@settings(max_examples=150, deadline=None)
def test_no_policy_beats_the_optimum(
    policy: str, algorithm: Algorithm, limit: int, due_s: list[float], end_s: float
) -> None:
    limited = limits(RateLimit(limit=limit, period_s=PERIOD_S, algorithm=algorithm))
    given_load, retry = load(*due_s, end_s=end_s), Retry(policy=policy)  # type: ignore[arg-type]
    found = optimum(given_load, limited, SECOND, windows_start_s(limited, seed=limit))
    assert found is not None
    calls = Simulation(given_load, limited, retry, SECOND, seed=limit).run()
    accepted_s = sorted(call.accepted_s for call in calls if call.accepted_s is not None)
    below = found.below(accepted_s, end_s)
    assert below is None or below >= 0
    if algorithm not in WAITING:
        # The same schedule is then the best for any end.
        assert all(found.accepted_by(at_s) >= count for count, at_s in enumerate(accepted_s, start=1))


def test_closed_loop_has_an_optimum() -> None:
    closed = load(users=2, due_s=None, think_s=0.5, end_s=4.0)
    found = optimum(closed, limits(None), SECOND, 0.0)
    assert found is not None
    assert list(found.accepted_s) == [0, 0, 1.5, 1.5, 3, 3]


def test_optimum_is_unknown_if_the_order_of_unequal_calls_matters() -> None:
    unequal = (CallSize(5, 5), CallSize(50, 50))
    plenty, scarce = (RateLimit(limit=tokens, period_s=10) for tokens in (10_000, 105))
    requests = RateLimit(limit=2, period_s=10)
    calls = load(0, 0, 1, 2, sizes=unequal * 2, end_s=15.0)
    assert optimum(calls, limits(requests, tokens=plenty), SECOND, 0.0) is not None
    assert optimum(calls, limits(requests, tokens=scarce), SECOND, 0.0) is None
    # After 40 s, all are accepted in any order.
    late = load(0, 0, 1, 2, sizes=unequal * 2, end_s=40.0)
    assert optimum(late, limits(requests, tokens=scarce), SECOND, 0.0) is not None
    assert optimum(load(users=2, due_s=None, sizes=unequal), limits(requests), SECOND, 0.0) is None
    # A call that can never be accepted is left to fail.
    found = optimum(load(0, 0), limits(None, tokens=RateLimit(limit=5, period_s=10)), SECOND, 0.0)
    assert found == Optimum((), 0.0)
    assert found.below((), 30.0) is None
