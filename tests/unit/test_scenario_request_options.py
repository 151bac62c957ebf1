"""Request bodies from the options of targets and calls, and what they can cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bltybench.scenario.api.request_options import RequestOptions, max_completion_tokens, request_body
from bltybench.scenario.cost import least_tokens, mean_tokens
from bltybench.scenario.plan import make_plan
from bltybench.scenario.prompts.tokens import count_definitions
from bltybench.scenario.target import Target
from bltybench.scenario.workload import Call, Scenario

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {
    "name": "c",
    "prompt_tokens": {"kind": "fixed", "tokens": 20},
    "max_tokens": {"kind": "fixed", "tokens": 10},
}


def body(
    target: dict[str, Any] | None = None, call: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    arguments = {"stream": False, "max_tokens": 9, "temperature": None} | more
    made = request_body(
        RequestOptions(**(target or {})),
        None if call is None else RequestOptions(**call),
        model="m",
        messages=MESSAGES,
        **arguments,
    )
    assert made.pop("model") == "m"
    assert made.pop("messages") == MESSAGES
    return made


def target(**options: Any) -> Target:
    return Target.model_validate({"base_url": "http://127.0.0.1:9/v1"} | options)


def scenario(**call: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "title": "t",
            "model": "m",
            "duration_s": 60,
            "users": 1,
            "arrivals": {"kind": "constant", "rate_per_min": 10},
            "mix": [CALL | call],
        }
    )


def test_the_usual_body_is_that_of_the_reference() -> None:
    assert body() == {"max_tokens": 9}
    assert body(stream=True, temperature=0.5) == {
        "max_tokens": 9,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_calls_options_override_its_targets_which_override_the_usual() -> None:
    defaults = {
        "body": {"top_p": 0.5, "seed": 1, "temperature": 1},
        "max_tokens_key": "max_completion_tokens",
    }
    assert body(defaults) == {"top_p": 0.5, "seed": 1, "temperature": 1, "max_completion_tokens": 9}
    changed = {"body": {"seed": 2}, "max_tokens_key": "max_tokens"}
    assert body(defaults, changed, temperature=0.0) == {
        "top_p": 0.5,
        "seed": 2,
        "temperature": 0.0,
        "max_tokens": 9,
    }


@pytest.mark.parametrize(
    ("defaults", "call", "sent"),
    [
        ({"stream_options": False}, {}, None),
        ({"stream_options": False}, {"stream_options": True}, {"include_usage": True}),
        ({}, {"stream_options": False}, None),
        ({"body": {"stream_options": {"include_usage": False}}}, {}, {"include_usage": False}),
    ],
)
def test_stream_options_are_sent_as_set_and_in_streams_only(
    defaults: dict[str, Any], call: dict[str, Any], sent: object
) -> None:
    assert body(defaults, call, stream=True).get("stream_options") == sent
    assert "stream_options" not in body(defaults, call)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "x"}, "can't hold model: set the model of the scenario"),
        ({"messages": []}, "can't hold messages"),
        ({"stream": True}, "can't hold stream: set stream of the call"),
        ({"max_tokens": 1}, "can't hold max_tokens"),
        ({"n": 0}, "n must be an integer from 1 to 1000"),
        ({"n": True}, "n must be an integer"),
        ({"a": {"b": [1.0, float("nan")]}}, r"a\.b\[1\] must be a finite number"),
        ({"a": 2**64}, "a has more than 64 bits"),
        ({"a": Path("x")}, "which JSON does not have"),
        ([], "must be a table"),
    ],
)
def test_bodies_that_can_not_be_sent_or_measured_are_refused(given: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RequestOptions.model_validate({"body": given})


@pytest.mark.parametrize("key", ["model", "stream", "temperature", ""])
def test_max_tokens_key_can_not_replace_another_key(key: str) -> None:
    with pytest.raises(ValidationError, match="max_tokens_key"):
        RequestOptions(max_tokens_key=key)


def test_the_bound_of_a_body_is_found_under_its_key() -> None:
    assert max_completion_tokens({"out": 7}, None, RequestOptions(max_tokens_key="out")) == 7
    assert max_completion_tokens({"max_completion_tokens": 8}, RequestOptions()) == 8
    assert max_completion_tokens({"out": 7}, RequestOptions()) is None


def test_costs_include_all_choices_and_the_definitions_of_tools() -> None:
    definitions = count_definitions({"tools": [TOOL]})
    assert definitions > 10
    for used, api in (
        (scenario(body={"n": 3, "tools": [TOOL]}), target()),
        (scenario(), target(body={"n": 3, "tools": [TOOL]})),
    ):
        cost = mean_tokens(used, Path(), api)
        assert (cost.prompt, cost.answer) == (20 + definitions, 30)
        assert least_tokens(used, Path(), api) == 20 + definitions + 30
        plan = make_plan("s", used, "t", api, Path())
        assert (plan.prompt_tokens, plan.answer_tokens) == (10 * (20 + definitions), 300)


def test_turns_of_a_conversation_send_the_definitions_again_but_one_choice_of_the_history() -> None:
    turns = {"min": 2, "max": 2, "tokens": {"kind": "fixed", "tokens": 5}}
    plain = mean_tokens(scenario(turns=turns), Path())
    with_tools = mean_tokens(scenario(turns=turns, body={"n": 2, "tools": [TOOL]}), Path())
    assert with_tools.prompt == plain.prompt + 2 * count_definitions({"tools": [TOOL]})
    assert with_tools.answer == 2 * plain.answer


def test_stored_scenarios_keep_their_bodies() -> None:
    used = scenario(body={"stop": ["a"], "n": 2}, max_tokens_key="max_completion_tokens")
    assert Scenario.model_validate(used.model_dump(mode="json")) == used
    assert Call.model_validate(CALL).body == {}
