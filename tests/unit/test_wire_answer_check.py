from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from support_wire import ended_exchange

from bltybench.wire.answer_check import (
    MAX_CHECKED_CHARS,
    UNCHECKED,
    AnswerCheck,
    check_answer,
    expected_answer,
)
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "now"}},
    {"type": "custom", "custom": {"name": "shell"}},
]
WITH_TOOLS: dict[str, Any] = {"tools": TOOLS, "tool_choice": "auto"}
ANY_OBJECT: dict[str, Any] = {"response_format": {"type": "json_object"}}
BY_SCHEMA: dict[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}
}
PARIS = '{"city": "Paris"}'


def call(name: str, arguments: object, index: int = 0) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"c{index}", "type": "function", "function": function}


def plain(body: dict[str, Any], *messages: dict[str, Any], finish: str = "stop") -> AnswerCheck:
    choices = [
        {"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish}
        for index, message in enumerate(messages)
    ]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    return checked(body, head + json.dumps({"choices": choices}).encode(), stream=False)


def streamed(
    body: dict[str, Any], *deltas: dict[str, Any], finish: str = "stop", failure: Failure | None = None
) -> AnswerCheck:
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    events = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return checked(body, head + events + b"data: [DONE]\n\n", stream=True, failure=failure)


def checked(
    body: dict[str, Any], data: bytes, *, stream: bool, failure: Failure | None = None
) -> AnswerCheck:
    expected = expected_answer(body)
    assert expected is not None
    return check_answer(expected, interpret(ended_exchange(data, stream=stream, failure=failure)))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tools": [], "response_format": {"type": "text"}},
        {"tools": None, "response_format": None},
        {"response_format": {"type": "grammar", "value": "root ::= [0-9]"}},
        {"response_format": "json_object"},
    ],
)
def test_text_in_any_form_is_not_checked(body: dict[str, Any]) -> None:
    assert expected_answer(body) is None


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([call("weather", PARIS)], (1, True, True)),
        ([call("weather", PARIS), call("weather", '{"city": 1}', 1)], (2, True, False)),
        ([call("weather", "{}")], (1, True, False)),
        ([call("weather", '{"city": "Par')], (1, False, False)),
        ([call("weather", f"```json\n{PARIS}\n```")], (1, False, False)),
        ([call("weather", "null")], (1, False, False)),
        ([call("weather", {"city": "Paris"})], (1, False, False)),  # an object instead of its JSON
        ([call("now", "{}")], (1, True, None)),
        ([call("now", "")], (1, False, None)),
        ([call("now", '{"a": NaN}')], (1, False, None)),
        ([call("now", "{}"), call("weather", PARIS, 1)], (2, True, True)),
        ([call("unknown", "{}")], (1, True, False)),
        ([{"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}}], (1, None, None)),
        ([], (0, None, None)),
    ],
)
def test_tool_calls_are_counted_and_their_arguments_checked(
    calls: list[dict[str, Any]], expected: tuple[Any, ...]
) -> None:
    message = {"content": None if calls else "no", "tool_calls": calls}
    assert plain(WITH_TOOLS, message)[:3] == expected


def test_deltas_of_tool_calls_are_joined_by_index() -> None:
    text = '{"city": "Zürich 😀"}'
    first = [call("weather", ""), call("weather", "", 1)]
    parts = [
        {"tool_calls": [{"index": index, "function": {"arguments": letter}}]}
        for letter in json.dumps(json.loads(text))
        for index in (1, 0)
    ]
    assert streamed(WITH_TOOLS, {"tool_calls": first}, *parts) == (2, True, True, None)
    assert streamed(WITH_TOOLS, {"tool_calls": first}, *parts[:-1]) == (2, False, False, None)


@pytest.mark.parametrize(
    ("body", "content", "expected"),
    [
        (ANY_OBJECT, '{"a": [1, 2]}', (None, True, None)),
        (ANY_OBJECT, " \n{}\n", (None, True, None)),
        (ANY_OBJECT, "[1]", (None, False, None)),
        (ANY_OBJECT, "Here it is: {}", (None, False, None)),
        (ANY_OBJECT, '{"a": Infinity}', (None, False, None)),
        (BY_SCHEMA, PARIS, (None, True, True)),
        (BY_SCHEMA, "{}", (None, True, False)),
        (BY_SCHEMA, "{", (None, False, False)),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}}, "[]",
         (None, True, True)),
        ({"response_format": {"type": "json_object", "schema": CITY}}, "{}", (None, True, False)),
        ({"response_format": {"type": "json_schema"}}, "3", (None, True, None)),
        (WITH_TOOLS | BY_SCHEMA, "{}", (0, True, False)),
        (WITH_TOOLS, "{", (0, None, None)),
    ],
)  # fmt: skip
def test_content_is_checked_if_the_response_format_demands_json(
    body: dict[str, Any], content: str, expected: tuple[Any, ...]
) -> None:
    assert plain(body, {"content": content}) == (*expected, None)
    assert streamed(body, *({"content": letter} for letter in content)) == (*expected, None)


def test_truncated_json_is_invalid_and_a_refusal_is_not_judged() -> None:
    assert plain(BY_SCHEMA, {"content": '{"city": "Pa'}, finish="length") == (None, False, False, None)
    assert streamed(BY_SCHEMA, {"reasoning_content": "hm"}, finish="length")[1:3] == (False, False)
    assert plain(BY_SCHEMA, {"content": None, "refusal": "I can't"}) == AnswerCheck()
    assert streamed(WITH_TOOLS | BY_SCHEMA, {"refusal": "I"}, {"refusal": " can't"}) == AnswerCheck(0)


def test_only_the_first_choice_and_only_whole_answers_are_checked() -> None:
    assert plain(BY_SCHEMA, {"content": PARIS}, {"content": "{"}) == (None, True, True, None)
    broken = Failure(Fault.RESET, "why")
    cut = checked(BY_SCHEMA, b"HTTP/1.1 200 OK\r\n\r\n" + b'{"choices"', stream=False, failure=broken)
    assert cut == AnswerCheck()
    error = b'HTTP/1.1 429 Too Many Requests\r\n\r\n{"error": {"message": "slow down"}}'
    assert checked(WITH_TOOLS, error, stream=False) == AnswerCheck()


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"city": "x" * MAX_CHECKED_CHARS}),
        '{"city": ' + "[" * 30_000,
        '{"city": ' + "1" * 5_000 + "}",
    ],
)
def test_an_answer_that_is_too_large_to_check_is_noted(content: str) -> None:
    assert plain(BY_SCHEMA, {"content": content}) == (None, None, None, UNCHECKED)
    assert plain(WITH_TOOLS, {"tool_calls": [call("weather", content)]}) == (1, None, None, UNCHECKED)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "#"},
        {"$ref": "#/$defs/missing"},
        {"$id": "http://[", "$ref": "a"},
        {"$schema": "http://[", "type": "object"},
        {"$schema": "http://json-schema.org/draft-03/schema#", "extends": {"$ref": "file:///etc/hostname"}},
        {"type": "objekt"},
        {"properties": {"city": {"pattern": "\\p{L}"}}},
        "object",
        7,
    ],
)  # fmt: skip
def test_an_unusable_schema_judges_nothing_and_nothing_is_fetched(
    schema: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("must not connect"))
    body = {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
    assert plain(body, {"content": PARIS}) == (None, True, None, UNCHECKED)
    tools = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    assert plain(tools, {"tool_calls": [call("f", PARIS)]}) == (1, True, None, UNCHECKED)
