"""Warm-up, stages, goodput, drift, lengths, and spend, compared with results computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from support_runs import (
    S,
    attempt,
    audit_frame,
    audit_table,
    frame,
    generator_seconds,
    manifest,
    scenario,
    table,
)

from bltybench.metrics.analysis import analyze
from bltybench.metrics.checks import metric
from bltybench.metrics.frame import calls_frame
from bltybench.metrics.goodput import good_calls, goodput
from bltybench.metrics.lengths import lengths
from bltybench.metrics.spend import spent
from bltybench.metrics.stages import by_stage
from bltybench.metrics.steady import drift, steady_s, warm_up
from bltybench.metrics.validity import free_users
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.manifest import TargetInfo
from bltybench.scenario.workload import Objectives


def call(number: int, at_s: float, **fields: Any) -> Attempt:
    return attempt(call_id=f"c{number}", due_ns=int(at_s * S), sent_ns=int(at_s * S), **fields)


def test_warm_up_in_seconds_excludes_whole_calls() -> None:
    attempts = [
        call(1, 0.0),
        call(2, 9.999, outcome=Outcome.RATE_LIMITED, status=429),
        attempt(call_id="c2", attempt=1, due_ns=20 * S, sent_ns=20 * S, end_ns=21 * S),
        call(3, 10.0),
        call(4, 11.0),
    ]
    mask, said = warm_up(frame(*attempts), scenario(warm_up_s=10))
    assert list(mask) == [True, True, True, False, False]
    assert (said.seconds, said.calls, said.attempts) == (10, 2, 3)


def test_warm_up_in_calls_applies_to_every_stage() -> None:
    due = [(3, "a"), (1, "a"), (2, "a"), (9, "b")]
    attempts = [call(n, at, stage=stage) for n, (at, stage) in enumerate(due)]
    mask, said = warm_up(frame(*attempts), scenario(warm_up_calls=2))
    assert list(mask) == [False, True, True, True]
    assert (said.calls, said.attempts) == (3, 3)


def test_warm_up_in_seconds_applies_to_every_planned_stage() -> None:
    about = scenario(
        warm_up_s=5, duration_s=60.0, arrivals={"kind": "stairs", "rates_per_min": [60, 120, 180]}
    )
    due = [4.9, 5.0, 19.9, 20.0, 24.9, 25.0, 44.9, 45.0]
    stages = ["a", "a", "a", "b", "b", "b", "c", "c"]
    attempts = [call(n, at, stage=stage) for n, (at, stage) in enumerate(zip(due, stages, strict=True))]
    mask, _ = warm_up(frame(*attempts), about)
    assert list(mask) == [True, False, False, True, True, False, True, False]
    assert steady_s(about, 60 * S) == 45


def test_nothing_is_excluded_without_warm_up_or_attempts() -> None:
    assert not warm_up(frame(call(1, 0)), scenario())[0].any()
    assert len(warm_up(frame(), scenario(warm_up_s=5))[0]) == 0


def test_timeline_includes_the_warm_up_and_results_exclude_it() -> None:
    gaps = {"stream": True, "gaps_us": [5_000], "completion_tokens": 2, "headers_ns": None}
    early = call(1, 1, first_token_ns=2 * S - S // 2, last_token_ns=2 * S - S // 4, **gaps)
    late = call(2, 30, first_token_ns=30 * S + S // 2, last_token_ns=30 * S + S * 3 // 4, **gaps)
    about = manifest(resolved=manifest().resolved | {"warm_up_s": 5})
    found = analyze(table(early, late), audit_table(generator_seconds(31)), about)
    assert len(found.attempts) == len(found.calls) == 1
    assert len(found.samples["itl"]) == 1
    assert found.count_of("accepted") == 1
    assert int(found.minutes["accepted"].sum()) == 2
    assert found.warm_up.calls == 1
    assert metric(found, "attempts.count") == (1.0, "")


def streamed(number: int, ttft_ms: float, tpot_ms: float, total_ms: float, **fields: Any) -> Attempt:
    sent = number * S
    first = sent + int(ttft_ms * 1e6)
    return call(
        number,
        number,
        stream=True,
        first_token_ns=first,
        last_token_ns=first + int(tpot_ms * 1e6) * 9,
        gaps_us=[int(tpot_ms * 1000)] * 9,
        completion_tokens=10,
        end_ns=sent + int(total_ms * 1e6),
        **fields,
    )


def test_goodput_counts_failures_and_ignores_canceled_calls() -> None:
    attempts = frame(
        streamed(1, 100, 10, 400),
        streamed(2, 101, 10, 400),
        streamed(3, 100, 11, 400),
        streamed(4, 100, 10, 401),
        call(5, 5, end_ns=5 * S + 400_000_000),
        call(6, 6, outcome=Outcome.RATE_LIMITED, status=429),
        call(7, 7, outcome=Outcome.CANCELLED, status=None),
    )
    calls = calls_frame(attempts)
    bounds = Objectives(ttft_ms=100.0, tpot_ms=10.0, latency_ms=400.0)
    good = good_calls(attempts, calls, bounds)
    assert list(good) == [True, False, False, False, True, False, False]
    assert goodput(calls, good, 30) == (6, 2, 2 / 6, 4)
    assert list(good_calls(attempts, calls, Objectives())) == [True] * 5 + [False] * 2
    assert goodput(calls[:0], good[:0], 0) == (0, 0, None, None)


def test_objective_of_a_retried_call_includes_its_waits() -> None:
    attempts = frame(
        call(1, 1, outcome=Outcome.RATE_LIMITED, status=429),
        attempt(call_id="c1", attempt=1, due_ns=3 * S, sent_ns=3 * S, end_ns=4 * S),
    )
    calls = calls_frame(attempts)
    assert list(good_calls(attempts, calls, Objectives(latency_ms=3000.0))) == [True]
    assert list(good_calls(attempts, calls, Objectives(latency_ms=2999.0))) == [False]


def test_stages_have_one_row_each() -> None:
    about = scenario(warm_up_s=5, duration_s=40.0, arrivals={"kind": "stairs", "rates_per_min": [60, 120]})
    attempts = frame(
        *(call(n, 5 + n, stage="60/min", in_flight=2) for n in range(15)),
        *(call(100 + n, 25 + n / 2, stage="120/min", in_flight=n + 1) for n in range(29)),
        call(200, 39.5, stage="120/min", outcome=Outcome.RATE_LIMITED, status=429),
    )
    calls = calls_frame(attempts)
    rows = by_stage(attempts, calls, good_calls(attempts, calls, Objectives()), about).to_dict("records")
    assert [row["stage"] for row in rows] == ["60/min", "120/min"]
    assert [row["calls"] for row in rows] == [15, 30]
    assert [row["offered_per_min"] for row in rows] == [60, 120]
    assert [row["accepted"] for row in rows] == [15, 29]
    assert [row["refused_share"] for row in rows] == [0, 1 / 30]
    assert [row["goodput_share"] for row in rows] == [1, 29 / 30]
    assert [row["in_flight_max"] for row in rows] == [2, 29]
    assert rows[0]["latency_p50_ms"] is None or np.isnan(rows[0]["latency_p50_ms"])
    assert rows[1]["latency_p50_ms"] == 1000
    assert by_stage(frame(call(1, 1)), calls_frame(frame(call(1, 1))), np.ones(1, dtype=bool), about).empty


def latencies(values_ms: list[float]) -> Any:
    return frame(*(call(n, n, end_ns=n * S + int(value * 1e6)) for n, value in enumerate(values_ms)))


def test_drift_needs_a_significant_and_large_change() -> None:
    rng = np.random.default_rng(1)
    about = scenario()
    steady = drift(latencies(list(rng.normal(300, 30, 300))), about).to_dict("records")
    assert [(row["metric"], row["n"], row["drifts"]) for row in steady] == [("attempt_latency", 300, False)]
    rising = list(np.linspace(200, 400, 300) + rng.normal(0, 30, 300))
    (row,) = drift(latencies(rising), about).to_dict("records")
    assert row["drifts"]
    assert row["p_value"] < 1e-9
    assert row["change"] == pytest.approx(366 / 233 - 1, rel=0.1)
    # Significant, but too small.
    (row,) = drift(latencies(list(np.linspace(300, 309, 300))), about).to_dict("records")
    assert row["p_value"] < 1e-9
    assert not row["drifts"]


def test_random_latencies_rarely_drift() -> None:
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(200):
        columns = {"at_ns": np.arange(60) * S, "ttft_ms": np.nan, "latency_ms": rng.lognormal(5, 0.5, 60)}
        found += bool(drift(pd.DataFrame(columns), scenario())["drifts"].any())
    assert found <= 2


def test_drift_is_not_tested_for_changing_loads_or_small_samples() -> None:
    rising = list(np.linspace(200, 400, 300))
    assert drift(
        latencies(rising), scenario(arrivals={"kind": "ramp", "from_per_min": 1, "to_per_min": 9})
    ).empty
    assert drift(latencies(rising[:59]), scenario()).empty
    (row,) = drift(latencies([250.0] * 60), scenario()).to_dict("records")
    assert (row["p_value"], row["drifts"]) == (1.0, False)


def test_lengths_compare_requested_and_actual_tokens() -> None:
    known = {"finish_reason": "length", "max_tokens": 20, "wanted_prompt_tokens": 100}
    attempts = frame(
        call(1, 1, prompt_tokens=102, completion_tokens=20, **known),
        call(2, 2, prompt_tokens=98, completion_tokens=10, **(known | {"finish_reason": "stop"})),
        call(3, 3, prompt_tokens=110, completion_tokens=15, **(known | {"finish_reason": "stop"})),
        call(4, 4, outcome=Outcome.RATE_LIMITED, status=429, **known),
        call(5, 5),
    )
    prompt, answer = lengths(attempts).to_dict("records")
    assert (prompt["what"], prompt["n"], prompt["wanted_mean"]) == ("prompt", 3, 100)
    assert prompt["ratio"] == pytest.approx(310 / 300)
    assert prompt["within_2pct"] == pytest.approx(2 / 3)
    assert (answer["actual_mean"], answer["ratio"], answer["at_the_cap"]) == (15, 0.75, pytest.approx(1 / 3))
    assert lengths(frame(call(1, 1))).empty


def test_spend_includes_failed_attempts() -> None:
    target = TargetInfo(
        name="t",
        base_url="http://127.0.0.1/v1",
        prices={"deepseek-chat": {"input_per_million": 2.0, "output_per_million": 8.0}},
    )
    attempts = frame(
        call(1, 1, prompt_tokens=1000, completion_tokens=500),
        call(2, 2, prompt_tokens=10, completion_tokens=None, outcome=Outcome.BROKEN_STREAM, stream=False),
        call(3, 3, outcome=Outcome.RATE_LIMITED, status=429),
        attempt(call_id="c4", sent_ns=None, due_ns=S, end_ns=S, outcome=Outcome.TRANSPORT_ERROR, status=None),
    )
    found = spent(attempts, manifest(target=target), "deepseek-chat")
    assert found[:3] == (3, 1010, 500)
    assert found.money == pytest.approx(0.00602)
    assert spent(attempts, manifest(), "deepseek-chat").money is None


def test_busy_users_are_a_finding_of_open_loops_only() -> None:
    at_ease = audit_frame(generator_seconds(100, no_free_user=0, never_sent=0))
    assert [finding.holds for finding in free_users(frame(attempt()), at_ease, scenario())] == [True]
    # 1% can be late, but none can be unsent.
    seconds = generator_seconds(99) + generator_seconds(1, no_free_user=1)
    assert next(free_users(frame(attempt()), audit_frame(seconds), scenario())).holds
    seconds = generator_seconds(98) + generator_seconds(2, no_free_user=1)
    assert not next(free_users(frame(attempt()), audit_frame(seconds), scenario())).holds
    (finding,) = free_users(
        frame(attempt()), audit_frame(generator_seconds(99) + generator_seconds(1, never_sent=1)), scenario()
    )
    assert not finding.holds
    assert "1 were never sent" in (finding.reason or "")
    assert list(free_users(frame(attempt()), at_ease, scenario(arrivals={"kind": "closed"}))) == []
