"""Rows per key, model, and target, and documented limits that each of them has of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pandas as pd
import pytest
from support_runs import S, attempt_at, frame, manifest, scenario

from bltybench.metrics.concurrency import in_flight, steps
from bltybench.metrics.documented import ComparedLimit, WholeRun, compare_scopes, distinct
from bltybench.metrics.rates import token_events
from bltybench.metrics.routes import by_route
from bltybench.metrics.spend import spent
from bltybench.runs.attempt import Attempt
from bltybench.runs.manifest import Manifest, TargetInfo
from bltybench.scenario.api.documented_limits import Limit, sum_limits

RPM = Limit("requests", 60, 60.0)
POOL: dict[str, Any] = {"target": "pool", "requested_model": "m", "prompt_tokens": 10, "completion_tokens": 5}


def run(**fields: object) -> list[Attempt]:
    """Return 80 attempts in 40 s with two keys in turn, of which every tenth of A is refused."""
    return [
        attempt_at(
            index / 2,
            "rate_limited" if index % 20 == 0 else "ok",
            **{"key": "AB"[index % 2], "call_id": f"c{index}"} | POOL | fields,
        )
        for index in range(80)
    ]


def of(**fields: object) -> Manifest:
    pool = TargetInfo(name="pool", base_url="http://127.0.0.1:1/v1", limits=[RPM])
    return manifest(target=msgspec.structs.replace(pool, **fields))


def compared(targets: Sequence[TargetInfo], attempts: pd.DataFrame) -> list[ComparedLimit]:
    whole = WholeRun(token_events(attempts), in_flight(steps(attempts), 40 * S))
    return compare_scopes(targets, attempts, attempts, whole, 40 * S)


def test_each_key_has_a_row_and_a_run_with_one_has_none() -> None:
    rows = by_route(frame(*run()), 40 * S)
    assert rows[["by", "value", "attempts", "accepted", "refused"]].to_numpy().tolist() == [
        ["key", "A", 40, 36, 4],
        ["key", "B", 40, 40, 0],
    ]
    assert rows["refused_share"].tolist() == [0.1, 0.0]
    assert rows["accepted_per_min"].tolist() == [36, 40]
    assert rows["tokens_per_min"].tolist() == [36 * 15, 40 * 15]
    assert rows["in_flight_max"].tolist() == [1, 1]
    assert rows["latency_p50_ms"].tolist() == [20, 20]
    assert by_route(frame(*run(key="A")), 40 * S).empty
    old = by_route(frame(*run(key=None, target=None, requested_model=None)), 40 * S)
    assert old.empty


def test_limits_of_each_key_are_compared_with_that_key() -> None:
    attempts = frame(*run())
    found = compared(of().targets, attempts)
    assert [(limit.key, limit.target, limit.highest) for limit in found] == [("A", None, 36), ("B", None, 40)]
    assert [limit.key for limit in distinct(found)] == ["B"]
    assert distinct(found)[0].each == " for each key"
    (shared,) = compared(of(limits_per=()).targets, attempts)
    assert (shared.owner, shared.highest) == ("", 76)


def test_limits_of_several_targets_are_compared_with_their_own_requests() -> None:
    attempts = frame(*run(), *run(target="other", key=None))
    other = TargetInfo(name="other", base_url="http://127.0.0.1:2/v1", limits=[RPM])
    targets = msgspec.structs.replace(of(), other_targets=[other]).targets
    found = compared(targets, attempts)
    assert [limit.owner for limit in found] == ["pool, A", "pool, B", "other"]
    assert [limit.highest for limit in found] == [36, 40, 76]


def test_limits_of_a_run_add_up_unless_one_part_has_none() -> None:
    assert sum_limits([[RPM], [RPM]]) == [Limit("requests", 120, 60.0)]
    assert sum_limits([[RPM], []]) == []
    assert sum_limits([[RPM]]) == [RPM]


def test_each_target_and_model_is_charged_at_its_own_price() -> None:
    cheap, dear = (
        {"input_per_million": price, "output_per_million": price} for price in (1_000_000.0, 3_000_000.0)
    )
    other = TargetInfo(name="other", base_url="http://127.0.0.1:2/v1", prices={"m": dear})
    both = msgspec.structs.replace(of(prices={"m": cheap}), other_targets=[other])
    accepted = [attempt_at(1.0, **POOL), attempt_at(2.0, **POOL | {"target": "other"})]
    assert spent(frame(*accepted), both, "m").money == pytest.approx(15 + 45)
    unknown = attempt_at(3.0, **POOL | {"requested_model": "n"})
    assert spent(frame(*accepted, unknown), both, "m").money is None


def test_scenario_names_all_its_models() -> None:
    names = {"model": "m", "models": {"m": 1, "n": 2}}
    assert scenario(**names).models_on() == ["m", "n"]
