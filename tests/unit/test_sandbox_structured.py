from __future__ import annotations

import json
import random
from typing import Any

import pytest
from support_wire import ended_exchange

from bltybench.sandbox.reply import PlannedChoice, plan
from bltybench.sandbox.request import ChatRequest, parse_request
from bltybench.sandbox.stream import ChunkWriter
from bltybench.wire.answer_check import AnswerCheck, check_answer, expected_answer
from bltybench.wire.interpret import interpret

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["celsius", "°F"]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2},
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["city", "days"],
    "$defs": {"tag": {"type": ["string", "null"]}},
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
CALLED: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
IN_JSON: dict[str, Any] = {"response_format": FORMAT}


def parsed(**body: Any) -> ChatRequest:
    message = {"role": "user", "content": "hi"}
    return parse_request(json.dumps({"model": "m", "messages": [message], **body}).encode())


def choice_of(seed: int = 1, fault: str | None = None, **body: Any) -> PlannedChoice:
    return plan(parsed(**body), random.Random(seed), fault)[0]


def streamed(seed: int = 1, fault: str | None = None, **body: Any) -> AnswerCheck:
    """Return what the client records of the sandbox's stream."""
    request = parsed(**body)
    (choice,) = plan(request, random.Random(seed), fault)
    writer = ChunkWriter("chatcmpl-0123456789abcdef01234567", 0, request)
    events = [writer.role(0), *(writer.token(0, choice, step) for step in range(choice.tokens))]
    data = b"".join([*events, writer.finish(0, choice.finish_reason), b"data: [DONE]\n\n"])
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    expected = expected_answer(body)
    assert expected is not None
    return check_answer(expected, interpret(ended_exchange(head + data, stream=True)))


@pytest.mark.parametrize("seed", range(5))
def test_json_satisfies_the_schema_of_the_request(seed: int) -> None:
    assert streamed(seed, **CALLED) == (1, True, True, None)
    assert streamed(seed, **IN_JSON) == (None, True, True, None)
    assert streamed(seed, response_format={"type": "json_object"}) == (None, True, None, None)
    assert choice_of(seed, **CALLED) == choice_of(seed, **CALLED)


@pytest.mark.parametrize(
    ("fault", "expected"), [("invalid_json", (False, False)), ("null_values", (True, False))]
)
def test_faults_damage_the_json_and_leave_text_alone(fault: str, expected: tuple[bool, bool]) -> None:
    assert streamed(fault=fault, **CALLED) == (1, *expected, None)
    assert streamed(fault=fault, **IN_JSON) == (None, *expected, None)
    assert choice_of(fault=fault) == choice_of()


def test_max_tokens_cuts_json() -> None:
    choice = choice_of(max_tokens=3, **CALLED)
    assert (choice.tokens, choice.finish_reason) == (3, "length")
    assert streamed(max_tokens=3, **IN_JSON) == (None, False, False, None)
    assert choice_of(max_tokens=1000, **CALLED).finish_reason == "tool_calls"


def test_tool_choice_decides_whether_and_which_tool_is_called() -> None:
    tools = [TOOL, {"type": "function", "function": {"name": "now"}}, {"type": "web_search"}]
    named = {"type": "function", "function": {"name": "now"}}
    assert {choice_of(seed, tools=tools, tool_choice=named).tool for seed in range(9)} == {"now"}
    assert {choice_of(seed, tools=tools, tool_choice="none").tool for seed in range(9)} == {None}
    assert {choice_of(seed, tools=tools).tool for seed in range(20)} == {"now", "weather", None}
    assert choice_of(tools=[{"type": "web_search"}]) == choice_of()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": [1], "required": 5},
        {"type": {}, "minItems": "x"},
        {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}},
        {"$ref": "#"},
        {"$ref": "#/a/b"},
        {"enum": 5, "anyOf": [3]},
        5,
        None,
    ],
)
def test_any_schema_gives_bounded_json(schema: object) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    content = "".join(choice_of(response_format=wanted).content)
    json.loads(content)
    assert len(content) < 20_000
