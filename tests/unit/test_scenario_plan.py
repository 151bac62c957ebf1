"""The plan of a run's requests and spending, and budgets that can't be kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bltybench.errors import UserError
from bltybench.scenario.plan import Plan, make_plan
from bltybench.scenario.target import Target
from bltybench.scenario.workload import Scenario

MIX = [
    {
        "name": "a",
        "prompt_tokens": {"kind": "fixed", "tokens": 100},
        "max_tokens": {"kind": "uniform", "min": 10, "max": 30},
    }
]
PRICES = {"m": {"input_per_million": 2.0, "output_per_million": 10.0}}


def plan(
    arrivals: dict[str, Any], base: Path = Path(), *, target: dict[str, Any] | None = None, **fields: Any
) -> tuple[Plan, Target]:
    scenario = Scenario.model_validate(
        {"title": "t", "model": "m", "duration_s": 60, "users": 9, "mix": MIX, "arrivals": arrivals} | fields
    )
    at = Target.model_validate({"base_url": "http://127.0.0.1:1/v1", "prices": PRICES} | (target or {}))
    return make_plan("s", scenario, "here", at, base), at


def test_open_loop_plan_counts_requests_and_tokens() -> None:
    found, target = plan({"kind": "constant", "rate_per_min": 50})
    assert (found.requests, found.prompt_tokens, found.answer_tokens) == (50, 5000, 1000)
    assert found.money == pytest.approx(50 * (100 * 2 + 20 * 10) / 1e6)
    assert found.sentence() == (
        "Sends about 50 requests with 5,000 prompt tokens and at most 1,000 completion tokens, "
        "for at most 0.02"
    )
    assert found.exceeds(target) == []


def test_closed_loop_plan_states_the_cost_per_request() -> None:
    found, _ = plan({"kind": "closed"})
    assert found.requests is found.prompt_tokens is found.answer_tokens is found.money is None
    assert "about 100 prompt tokens and at most 20 completion tokens, at most 0.0004" in found.sentence()


def test_search_plan_states_its_maximum() -> None:
    arrivals = {"kind": "search", "start": 60, "max": 600, "stage_s": 9, "requests": 90}
    found, _ = plan(arrivals | {"objectives": {"refused.share": "<= 1%"}})
    assert found.sentence().startswith("Sends at most 90 requests with 9,000 prompt tokens")


def test_trace_plan_sums_the_rows(tmp_path: Path) -> None:
    rows = [
        {"at_s": 0, "prompt_tokens": 10, "max_tokens": 5},
        {"at_s": 1, "prompt_tokens": 30},
        {"at_s": 70, "prompt_tokens": 9, "max_tokens": 1},
    ]
    (tmp_path / "t").write_text("\n".join(json.dumps(row) for row in rows))
    found, _ = plan({"kind": "trace", "file": "t"}, tmp_path)
    assert (found.requests, found.prompt_tokens, found.answer_tokens) == (2, 40, 25)


def test_conversation_plan_counts_all_turns() -> None:
    turns = {"min": 2, "max": 4, "tokens": {"kind": "fixed", "tokens": 26}}
    talk = [MIX[0] | {"turns": turns}]
    found, _ = plan({"kind": "constant", "rate_per_min": 10}, mix=talk)
    assert found.requests == 30
    # Turn n has 100 tokens plus (n − 1) times 20 completion, 26 question, and 4 framing tokens. 2, 3, and 4
    # turns have 1, 3, and 6 such additions.
    assert found.prompt_tokens == round(10 * (3 * 100 + (1 + 3 + 6) / 3 * 50))
    assert found.answer_tokens == 10 * 3 * 20


def test_exceeded_caps_are_named() -> None:
    budget = {"budget": {"requests": 49, "tokens": 5999, "money": 0.0199}}
    found, target = plan({"kind": "constant", "rate_per_min": 50}, target=budget)
    assert found.exceeds(target) == ["49 requests", "5,999 tokens", "0.0199 of money"]
    found, target = plan(
        {"kind": "constant", "rate_per_min": 50}, target={"budget": {"requests": 50, "tokens": 6000}}
    )
    assert found.exceeds(target) == []


@pytest.mark.parametrize(
    ("arrivals", "target", "message"),
    [
        ({"kind": "closed"}, {"budget": {"money": 1}, "prices": {}}, "model 'm' has no price"),
        ({"kind": "closed"}, {"budget": {"tokens": 109}}, "109 tokens can't cover one request"),
        ({"kind": "closed"}, {"budget": {"money": 0.0003}}, "0.0003 can't cover one request"),
        ({"kind": "gamma", "rate_per_min": 0.001, "burstiness": 1}, {}, "nothing would be sent in 60 s"),
    ],
)
def test_impossible_plan_is_refused(arrivals: dict[str, Any], target: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(arrivals, target=target)


def test_smallest_sufficient_budget_is_accepted() -> None:
    found, target = plan({"kind": "closed"}, target={"budget": {"tokens": 110, "money": 0.0004}})
    assert found.exceeds(target) == []
    assert found.per_request.total == 120


def test_bodies_without_a_bound_are_named_instead_of_a_maximum(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "hi"}]
    rows: list[dict[str, Any]] = [{"messages": talk, "max_tokens": 9}, {"messages": talk}, {"messages": talk}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mix = [{"name": "a", "requests": {"file": "b.jsonl"}}]
    open_loop, _ = plan({"kind": "constant", "rate_per_min": 50}, tmp_path, mix=mix)
    assert open_loop.sentence().endswith(
        "Nothing bounds the completion tokens or the cost: 2 of 3 bodies in b.jsonl (the first: line 2) have "
        "neither max_tokens nor max_completion_tokens"
    )
    assert open_loop.sentence().startswith("Sends about 50 requests with ")
    closed, _ = plan({"kind": "closed"}, tmp_path, mix=mix)
    assert "at most" not in closed.sentence()
    (tmp_path / "b.jsonl").write_text(json.dumps(rows[0]) + "\n")
    bounded, _ = plan({"kind": "closed"}, tmp_path, mix=mix)
    assert "at most 9 completion tokens" in bounded.sentence()
