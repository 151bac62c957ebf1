"""Keys, headers, and queries of targets, from the file and from the environment."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bltybench.errors import UserError
from bltybench.scenario.target import Target
from bltybench.wire.http.origin import Origin
from bltybench.wire.http.request import RequestWriter

ROOT = Path(__file__).parents[2]
DEPLOYMENT = "http://127.0.0.1:9/openai/deployments/gpt"


def target(**keys: Any) -> Target:
    return Target.model_validate({"base_url": "http://127.0.0.1:9/v1"} | keys)


def head(api: Target, model: str = "m", key: SecretStr | None = None) -> list[str]:
    access = api.access("t")
    writer = RequestWriter(Origin(api.base_url, api.timeouts, query=access.query))
    headers = access.headers([("User-Agent", "own")], key or access.key)
    return writer.compose("POST", api.path_of_chat(model), headers, b"").decode().split("\r\n")


@pytest.mark.parametrize(
    ("address", "query"),
    [
        (f"{DEPLOYMENT}?api-version=2024-10-21", {}),
        (f"{DEPLOYMENT}/?api-version=2024-10-21", {}),
        (DEPLOYMENT, {"api-version": "2024-10-21"}),
        (f"{DEPLOYMENT}/chat/completions?api-version=2024-10-21", {}),
    ],
)
def test_query_is_sent_after_the_path_wherever_it_is_written(address: str, query: dict[str, str]) -> None:
    api = target(base_url=address, query=query)
    assert head(api)[0] == "POST /openai/deployments/gpt/chat/completions?api-version=2024-10-21 HTTP/1.1"
    assert api.base_url == DEPLOYMENT
    assert Target.model_validate(api.model_dump(mode="json")) == api


def test_query_is_encoded() -> None:
    line = head(target(base_url="http://127.0.0.1:9/v1?a=1&b=", query={"c d": "ü&=/"}))[0]
    assert line == "POST /v1/chat/completions?a=1&b=&c%20d=%C3%BC%26%3D%2F HTTP/1.1"


def test_model_can_be_part_of_the_path() -> None:
    api = target(base_url="http://127.0.0.1:9/openai", chat_path="/deployments/{model}/chat/completions")
    assert head(api, "org/gpt 4")[0] == "POST /openai/deployments/org%2Fgpt%204/chat/completions HTTP/1.1"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (None, "Authorization: Bearer sk-unit"),
        ("api-key", "api-key: sk-unit"),
        ("X-Goog-Api-Key", "X-Goog-Api-Key: sk-unit"),
        ("Authorization: Token", "Authorization: Token sk-unit"),
        ("Authorization:", "Authorization: sk-unit"),
    ],
)
def test_key_is_sent_in_its_header(given: str | None, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIT_KEY", "sk-unit")
    style = {} if given is None else {"api_key_header": given}
    lines = head(target(api_key_env="UNIT_KEY", **style))
    assert line in lines
    assert sum("sk-unit" in sent for sent in lines) == 1
    other = head(target(api_key_env="UNIT_KEY", **style), key=SecretStr("sk-other"))
    assert line.replace("sk-unit", "sk-other") in other


def test_headers_come_from_the_file_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIT_TOKEN", " token value\n")
    headers = {
        "user-agent": "mine",
        "X-Title": "test",
        "X-Auth": {"env": "UNIT_TOKEN", "prefix": "Bearer "},
    }
    lines = head(target(headers=headers))
    assert lines[-6:-3] == ["user-agent: mine", "X-Title: test", "X-Auth: Bearer token value"]
    assert "User-Agent: own" not in lines


def test_values_from_the_environment_and_of_credentials_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIT_KEY", "sk-unit")
    monkeypatch.setenv("UNIT_TOKEN", "a token/1")
    monkeypatch.setenv("UNIT_SIGNATURE", "s1+s2")
    api = target(
        api_key_env="UNIT_KEY",
        headers={
            "X-Any": {"env": "UNIT_TOKEN", "prefix": "Bearer "},
            "api-key": "written",
            "X-Title": "title",
            "Cookie": "x",
        },
        query={"other": {"env": "UNIT_SIGNATURE"}, "api-version": "2024-10-21"},
    )
    access = api.access("t")
    wanted = {
        "sk-unit",
        "a token/1",
        "a%20token%2F1",
        "a token\\/1",
        "Bearer a token/1",
        "written",
        "s1+s2",
        "s1%2Bs2",
    }
    assert wanted <= set(access.secrets)
    assert not {"title", "2024-10-21", "x"} & set(access.secrets)
    assert api.secret_variables == {"UNIT_KEY", "UNIT_TOKEN", "UNIT_SIGNATURE"}
    assert "token" not in repr(access)


def test_missing_variable_is_named_with_its_header() -> None:
    with pytest.raises(UserError) as caught:
        target(headers={"X-Auth": {"env": "UNIT_NOT_SET"}}).access("t")
    assert caught.value.what == "target 't' needs UNIT_NOT_SET for headers.X-Auth, but it is not set"


def test_value_that_no_header_can_carry_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNIT_TOKEN", "to\nken")
    with pytest.raises(UserError) as caught:
        target(headers={"X-Auth": {"env": "UNIT_TOKEN"}}).access("t")
    assert str(caught.value).startswith("UNIT_TOKEN: the value can't be sent: character 3 of 6 is a space or")
    assert "ken" not in str(caught.value).lower().replace("unit_token", "")


@pytest.mark.parametrize("source", ["docs/targets.md", "scenarios.toml"])
def test_documented_targets_are_valid(source: str) -> None:
    text = (ROOT / source).read_text()
    if source.endswith(".md"):
        (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    else:
        start = text.index("#   [targets.mine]")
        lines = text[start : text.index("# ----", start)].splitlines()
        block = "\n".join(line.removeprefix("#").strip().removeprefix("# ") for line in lines)
    targets = tomllib.loads(block)["targets"]
    assert {"openai", "mistral", "vllm"} <= set(targets)
    for table in targets.values():
        known = Target.model_validate(table)
        assert known.is_local or known.budget.requests is not None


def test_another_key_replaces_one_in_the_headers() -> None:
    lines = head(target(headers={"authorization": "Bearer fixed"}), key=SecretStr("sk-other"))
    assert [line for line in lines if line.lower().startswith("authorization")] == [
        "Authorization: Bearer sk-other"
    ]


def test_addresses_of_any_script_are_encoded() -> None:
    lines = head(target(base_url="http://b\u00fccher.example:8080/\u6a21\u578b/a%20b/v1"))
    assert lines[:2] == [
        "POST /%E6%A8%A1%E5%9E%8B/a%20b/v1/chat/completions HTTP/1.1",
        "Host: xn--bcher-kva.example:8080",
    ]
