from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bltybench.sandbox.errors import ApiError
from bltybench.sandbox.request import KNOWN, parse_request

# A busy machine is not a failure.
untimed = settings(deadline=None)

USER = [{"role": "user", "content": "Hi"}]


def parse(**fields: Any) -> Any:
    return parse_request(json.dumps({"model": "m", "messages": USER} | fields).encode())


def test_minimal_request_gets_the_defaults() -> None:
    request = parse()
    assert (request.model, request.messages) == ("m", USER)
    assert (request.stream, request.include_usage, request.max_tokens, request.n) == (False, False, None, 1)
    assert request.stop == ()


def test_request_with_all_parameters_is_accepted() -> None:
    request = parse(
        stream=True,
        stream_options={"include_usage": True},
        max_completion_tokens=7,
        temperature=0,
        top_p=1,
        n=3,
        stop=["a", "b"],
        seed=-5,
        user="u",
        presence_penalty=-2,
        frequency_penalty=2.0,
        logit_bias={"50256": -100},
        response_format={"type": "text"},
        tools=[],
        tool_choice="none",
        logprobs=False,
    )
    assert (request.stream, request.include_usage, request.max_tokens, request.n) == (True, True, 7, 3)
    assert request.stop == ("a", "b")


@pytest.mark.parametrize("name", sorted(KNOWN - {"model", "messages"}))
def test_null_means_missing(name: str) -> None:
    assert parse(**{name: None}) == parse()


def test_single_stop_can_be_a_string() -> None:
    assert parse(stop="x").stop == ("x",)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "S"}, *USER],
        [{"role": "developer", "content": "S"}, *USER],
        [*USER, {"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "4"}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        [{"role": "user", "content": "", "name": "bob"}],
    ],
)
def test_all_message_shapes_are_accepted(messages: list[dict[str, Any]]) -> None:
    assert parse(messages=messages).messages == messages


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": ["Hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [*USER, {"role": "robot", "content": ""}]}, "messages[1].role", "invalid_value"),
        ({"messages": [{"role": [], "content": "Hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
            "invalid_value",
        ),
        ({"temperature": -0.1}, "temperature", "decimal_below_min_value"),
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "decimal_above_max_value"),
        ({"presence_penalty": -3}, "presence_penalty", "decimal_below_min_value"),
        ({"frequency_penalty": 3}, "frequency_penalty", "decimal_above_max_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_type"),
        ({"max_tokens": 10**7}, "max_tokens", "integer_above_max_value"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "invalid_parameter_combination"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"seed": "x"}, "seed", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_type"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_parameter_combination"),
        ({"stream": True, "stream_options": []}, "stream_options", "invalid_type"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "invalid_type",
        ),
        ({"stream": True, "stream_options": {"x": True}}, "stream_options.x", "unknown_parameter"),
        ({"user": 7}, "user", "invalid_type"),
        ({"tool_choice": 7}, "tool_choice", "invalid_type"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"top_logprobs": 2}, "logprobs", "unsupported_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
    ],
)
def test_invalid_parameter_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    error = caught.value
    assert (error.status, error.error_type) == (400, "invalid_request_error")
    assert (error.param, error.code) == (param, code)
    assert param in error.message


@pytest.mark.parametrize("raw", [b"", b"{", b'{"model": "m",}', b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000])
def test_body_that_is_not_json_is_rejected(raw: bytes) -> None:
    with pytest.raises(ApiError, match="not valid JSON") as caught:
        parse_request(raw)
    assert caught.value.code == "invalid_json"


def test_json_that_is_not_an_object_is_rejected() -> None:
    with pytest.raises(ApiError, match="must be a JSON object"):
        parse_request(b"[1]")


TEXT = st.text('ab "\\\n\x00é漢', max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@untimed
@given(fields=st.dictionaries(st.sampled_from(sorted(KNOWN)), JSON, max_size=4))
def test_any_json_is_accepted_or_rejected_with_400(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": USER} | fields).encode()
    try:
        request = parse_request(body)
    except ApiError as caught:
        refusal = caught
    else:
        assert request.n >= 1
        return
    assert refusal.status == 400
    assert json.loads(refusal.body())["error"]["type"] == "invalid_request_error"
