"""The sandbox over sockets with an independent client: responses, errors, and their shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support_sandbox import bearer, chat_body, running_sandbox

from bltybench.scenario.prompts import tokens
from bltybench.scenario.target import SANDBOX_RESTRICTED_KEY

ERROR_KEYS = {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with running_sandbox() as sandbox, httpx.Client(base_url=sandbox.base_url, headers=bearer()) as client:
        yield client


def ask(base_url: str, *bodies: dict[str, Any]) -> list[httpx.Response]:
    with httpx.Client(base_url=base_url, headers=bearer()) as client:
        return [client.post("/chat/completions", json=body) for body in bodies]


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def error_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert set(error) == ERROR_KEYS
    return dict(error)


def test_plain_response_has_the_documented_shape(api: httpx.Client) -> None:
    body = chat_body()
    answer = api.post("/chat/completions", json=body)
    assert answer.status_code == 200
    reply = answer.json()
    assert reply["id"].startswith("chatcmpl-")
    assert (reply["object"], reply["model"]) == ("chat.completion", "deepseek-chat")
    (choice,) = reply["choices"]
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (0, "length", "assistant")
    prompt = tokens.count_messages(body["messages"])
    assert reply["usage"]["prompt_tokens"] == prompt
    assert reply["usage"]["completion_tokens"] == tokens.count(choice["message"]["content"]) == 8
    assert reply["usage"]["total_tokens"] == prompt + 8


def test_stream_ends_with_requested_usage_and_done(api: httpx.Client) -> None:
    body = chat_body(stream=True, stream_options={"include_usage": True})
    answer = api.post("/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events_of(answer)
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    words = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-2]]
    assert len(words) == 8
    assert chunks[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_tools_and_response_formats_are_answered_in_the_shape_of_the_reference(api: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Zürich"]}}, "required": ["city"]}
    function = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    body = chat_body(tools=[function], tool_choice="required", n=2)
    del body["max_tokens"]
    plain = api.post("/chat/completions", json=body).json()
    for choice in plain["choices"]:
        (call,) = choice["message"]["tool_calls"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
        assert (call["type"], call["function"]["name"]) == ("function", "weather")
        assert json.loads(call["function"]["arguments"]) == {"city": "Zürich"}
    assert len({choice["message"]["tool_calls"][0]["id"] for choice in plain["choices"]}) == 2
    body = chat_body(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    del body["max_tokens"]
    chunks = events_of(api.post("/chat/completions", json=body | {"stream": True}))
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert json.loads("".join(deltas)) == {"city": "Zürich"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_stream_omits_usage_unless_requested(api: httpx.Client) -> None:
    chunks = events_of(api.post("/chat/completions", json=chat_body(stream=True)))
    assert all("usage" not in chunk for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
def test_n_choices_are_returned(api: httpx.Client, stream: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    answer = api.post("/chat/completions", json=chat_body(n=3, stream=stream, **options))
    texts = ["", "", ""]
    if stream:
        chunks = events_of(answer)
        usage = chunks[-1]["usage"]
        for choice in (choice for chunk in chunks for choice in chunk["choices"]):
            texts[choice["index"]] += choice["delta"].get("content", "")
        reasons = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    else:
        usage = answer.json()["usage"]
        for choice in answer.json()["choices"]:
            texts[choice["index"]] = choice["message"]["content"]
        reasons = [choice["finish_reason"] for choice in answer.json()["choices"]]
    assert [tokens.count(text) for text in texts] == [8, 8, 8]
    assert reasons == ["length"] * 3
    assert usage["completion_tokens"] == 24


@pytest.mark.parametrize("stream", [False, True])
def test_text_ends_before_the_stop_string(api: httpx.Client, stream: bool) -> None:
    answer = api.post("/chat/completions", json=chat_body(max_tokens=300, stop=[" the", "e"], stream=stream))
    if stream:
        choices = [chunk["choices"][0] for chunk in events_of(answer)]
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        reason = choices[-1]["finish_reason"]
    else:
        (choice,) = answer.json()["choices"]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert "e" not in text
    assert reason == "stop"


def test_stop_before_the_first_token_gives_empty_text() -> None:
    """The same seed gives the same text, so a second sandbox can be stopped at the first one's words."""
    with running_sandbox(seed=3) as sandbox:
        said = [
            answer.json()["choices"][0]["message"]["content"]
            for answer in ask(sandbox.base_url, chat_body(), chat_body())
        ]
    plain, streamed = (chat_body(stop=text.split()[0]) for text in said)
    with running_sandbox(seed=3) as sandbox:
        whole, stream = ask(sandbox.base_url, plain, streamed | {"stream": True})
    reply = whole.json()
    assert reply["choices"][0]["message"]["content"] == ""
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] == 0
    (role, finish) = [chunk["choices"][0] for chunk in events_of(stream)]
    assert role["delta"] == {"role": "assistant", "content": ""}
    assert finish["finish_reason"] == "stop"


def test_reasoner_sends_reasoning_first(api: httpx.Client) -> None:
    body = chat_body(model="deepseek-reasoner", stream=True, stream_options={"include_usage": True})
    chunks = events_of(api.post("/chat/completions", json=body))
    kinds = [next(iter(chunk["choices"][0]["delta"])) for chunk in chunks[1:-2]]
    assert kinds == ["reasoning_content"] * 4 + ["content"] * 4
    assert chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}
    assert chunks[-1]["usage"]["completion_tokens"] == 8


def test_completion_ends_by_itself_without_max_tokens(api: httpx.Client) -> None:
    body = chat_body()
    del body["max_tokens"]
    reply = api.post("/chat/completions", json=body).json()
    assert reply["choices"][0]["finish_reason"] == "stop"


def test_models_are_listed_and_retrieved(api: httpx.Client) -> None:
    listed = api.get("/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["deepseek-chat", "deepseek-reasoner", "gpt-4o-mini"]
    assert api.get("/models/gpt-4o-mini").json() == listed["data"][2]
    unknown = api.get("/models/gpt-99")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")


def test_restricted_key_sees_only_its_models(api: httpx.Client) -> None:
    headers = bearer(SANDBOX_RESTRICTED_KEY)
    listed = api.get("/models", headers=headers).json()["data"]
    assert [model["id"] for model in listed] == ["deepseek-chat"]
    assert api.post("/chat/completions", json=chat_body(), headers=headers).status_code == 200
    refused = api.post("/chat/completions", json=chat_body(model="gpt-4o-mini"), headers=headers)
    error = error_of(refused)
    assert (refused.status_code, error["type"], error["param"]) == (403, "permission_error", "model")


@pytest.mark.parametrize("path", ["/chat/completions", "/models", "/models/deepseek-chat"])
@pytest.mark.parametrize("key", ["", "Bearer sk-wrong-secret"])
def test_missing_or_wrong_key_gives_401_on_every_route(api: httpx.Client, path: str, key: str) -> None:
    method = "POST" if path == "/chat/completions" else "GET"
    refused = api.request(method, path, headers={"Authorization": key}, json=chat_body())
    error = error_of(refused)
    assert (refused.status_code, error["type"], error["code"]) == (
        401,
        "authentication_error",
        "invalid_api_key",
    )
    assert "wrong-secret" not in refused.text


def test_unknown_model_gives_404(api: httpx.Client) -> None:
    refused = api.post("/chat/completions", json=chat_body(model="gpt-99"))
    error = error_of(refused)
    assert (refused.status_code, error["type"], error["code"]) == (404, "not_found_error", "model_not_found")


@pytest.mark.parametrize("path", ["/nope", "/chat", "/chat/completions/"])
def test_unknown_route_gives_404(api: httpx.Client, path: str) -> None:
    refused = api.post(path, json=chat_body())
    assert (refused.status_code, error_of(refused)["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/chat/completions", "POST"), ("DELETE", "/models", "GET"), ("POST", "/models", "GET")],
)
def test_wrong_method_gives_405(api: httpx.Client, method: str, path: str, allow: str) -> None:
    refused = api.request(method, path)
    assert (refused.status_code, error_of(refused)["type"]) == (405, "invalid_request_error")
    assert allow in refused.headers["allow"]


def test_malformed_json_gives_400(api: httpx.Client) -> None:
    refused = api.post("/chat/completions", content=b'{"model": ')
    assert (refused.status_code, error_of(refused)["code"]) == (400, "invalid_json")


def test_invalid_value_gives_400_with_its_name(api: httpx.Client) -> None:
    refused = api.post("/chat/completions", json=chat_body(temperature=3))
    error = error_of(refused)
    assert (refused.status_code, error["type"], error["param"]) == (
        400,
        "invalid_request_error",
        "temperature",
    )


def test_prompt_longer_than_the_context_gives_400(api: httpx.Client) -> None:
    refused = api.post("/chat/completions", json=chat_body(max_tokens=131_072))
    assert (refused.status_code, error_of(refused)["code"]) == (400, "context_length_exceeded")


def test_too_large_body_gives_413_and_the_next_request_succeeds(api: httpx.Client) -> None:
    refused = api.post("/chat/completions", content=b" " * (4 * 1024 * 1024 + 1))
    assert (refused.status_code, error_of(refused)["code"]) == (413, "request_too_large")
    assert api.post("/chat/completions", json=chat_body()).status_code == 200


def test_root_page_identifies_the_sandbox(api: httpx.Client) -> None:
    answer = api.get(str(api.base_url).removesuffix("/v1/"))
    assert "bltybench sandbox" in answer.text
    assert answer.headers["x-request-id"].startswith("req_")


def test_request_ids_are_unique(api: httpx.Client) -> None:
    ids = {api.get("/models").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_error_rate_and_seed_determine_the_500s() -> None:
    def statuses() -> list[int]:
        with running_sandbox(error_rate=0.3, seed=5) as sandbox:
            answers = ask(sandbox.base_url, *[chat_body(max_tokens=1)] * 40)
        for answer in answers:
            if answer.status_code == 500:
                assert error_of(answer)["type"] == "server_error"
        return [answer.status_code for answer in answers]

    first = statuses()
    assert set(first) == {200, 500}
    assert 3 <= first.count(500) <= 24
    assert first == statuses()


def test_same_seed_gives_the_same_responses() -> None:
    def texts() -> list[str]:
        with running_sandbox(seed=7) as sandbox:
            replies = [answer.json() for answer in ask(sandbox.base_url, *[chat_body()] * 3)]
        return [reply["choices"][0]["message"]["content"] for reply in replies]

    first = texts()
    assert len(set(first)) == 3
    assert first == texts()
